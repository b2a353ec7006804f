"""Every picture in every format it has, and the committed set of them in ``diagrams/``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from discorder.errors import PictureError
from discorder.pictures.architecture import architecture_dot
from discorder.pictures.dot import dot
from discorder.pictures.grid import grid_dot
from discorder.pictures.markdown import markdown
from discorder.pictures.mermaid import mermaid
from discorder.pictures.renderer import draw_png, draw_svg
from discorder.pictures.sequence import sequence_dot, sequence_mermaid
from discorder.pictures.stories import STORIES
from discorder.pictures.trail import Trail
from discorder.statemachine.table import State


class Subject(StrEnum):
    """What there is a picture of."""

    LIFE_CYCLE = "life-cycle"
    GRID = "grid"
    START = "sequence-start"
    RESUME = "sequence-resume"
    ZOMBIE = "sequence-zombie"
    OP_9 = "sequence-op-9"
    SHUTDOWN = "sequence-shutdown"
    ARCHITECTURE = "architecture"

    @property
    def story(self) -> str | None:
        """The name of the story that a sequence diagram tells, None for another picture."""
        kind, _, name = self.value.partition("-")
        return name if kind == "sequence" else None


class PictureFormat(StrEnum):
    """What ``diagram --format`` knows."""

    SVG = "svg"
    PNG = "png"
    MERMAID = "mermaid"
    DOT = "dot"
    MARKDOWN = "markdown"


COMMITTED = {
    "life-cycle.svg": (Subject.LIFE_CYCLE, PictureFormat.SVG),
    "life-cycle.mmd": (Subject.LIFE_CYCLE, PictureFormat.MERMAID),
    "life-cycle.md": (Subject.LIFE_CYCLE, PictureFormat.MARKDOWN),
    **{f"{subject}.svg": (subject, PictureFormat.SVG) for subject in Subject if subject is not Subject.LIFE_CYCLE},
}
"""The files in ``diagrams/``."""


def render(
    subject: Subject, picture_format: PictureFormat, highlight: State | None = None, trail: Trail | None = None
) -> bytes:
    """``subject`` in ``picture_format`` (text is UTF-8).

    In the picture of the life cycle ``highlight`` is marked, or the steps of ``trail``. Raises `PictureError` for a format that
    this subject does not have, and when the renderer is missing or fails (SVG and PNG only).
    """
    match picture_format:
        case PictureFormat.SVG:
            return draw_svg(_dot(subject, highlight, trail), _title(subject))
        case PictureFormat.PNG:
            return draw_png(_dot(subject, highlight, trail))
        case PictureFormat.DOT:
            return _dot(subject, highlight, trail).encode()
        case PictureFormat.MERMAID if subject is Subject.LIFE_CYCLE and trail is None:
            return mermaid(highlight).encode()
        case PictureFormat.MERMAID if subject.story is not None:
            return sequence_mermaid(subject.story).encode()
        case PictureFormat.MARKDOWN if subject is Subject.LIFE_CYCLE and trail is None:
            return markdown().encode()
    what = subject if trail is None else f"{subject} with a trace"
    msg = f"there is no {picture_format} of {what}; allowed: svg, png, dot"
    raise PictureError(msg)


def write_all(folder: Path) -> list[Path]:
    """Write the committed set into ``folder``, which is made if need be; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (subject, picture_format) in COMMITTED.items():
        path = folder / name
        path.write_bytes(render(subject, picture_format))
        written.append(path)
    return written


def check_all(folder: Path) -> list[str]:
    """One sentence for each file of the committed set that is missing in ``folder`` or differs from what it shows."""
    findings = []
    for name, (subject, picture_format) in COMMITTED.items():
        path = folder / name
        if not path.is_file():
            findings.append(f"{path} is missing; draw it with `make diagrams`")
        elif path.read_bytes() != render(subject, picture_format):
            findings.append(f"{path} is outdated; draw it anew with `make diagrams`")
    return findings


def _dot(subject: Subject, highlight: State | None, trail: Trail | None) -> str:
    if subject.story is not None:
        return sequence_dot(subject.story)
    match subject:
        case Subject.GRID:
            return grid_dot()
        case Subject.ARCHITECTURE:
            return architecture_dot()
        case _:
            return dot(highlight, trail)


def _title(subject: Subject) -> str:
    if subject.story is not None:
        return STORIES[subject.story].title
    return _TITLES[subject]


_TITLES = {
    Subject.LIFE_CYCLE: "The life cycle of a shard",
    Subject.GRID: "Every state and trigger of a shard",
    Subject.ARCHITECTURE: "The parts of Discorder and who imports whom",
}
