"""Render each picture in each of its formats; write and check the set of pictures in ``diagrams/``."""

from __future__ import annotations

from pathlib import Path

from discorder.errors import PictureError
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.architecture import architecture_dot
from discorder.pictures.dot import dot
from discorder.pictures.grid import grid_dot
from discorder.pictures.markdown import markdown
from discorder.pictures.mermaid import mermaid
from discorder.pictures.page_svg import page_svg
from discorder.pictures.renderer import draw_png, draw_svg
from discorder.pictures.scenarios import SCENARIOS
from discorder.pictures.sequence import sequence_dot, sequence_mermaid
from discorder.pictures.trace_path import TracePath
from discorder.statemachine.table import State

COMMITTED = {
    "life-cycle.svg": (Subject.LIFE_CYCLE, PictureFormat.SVG),
    "life-cycle.mmd": (Subject.LIFE_CYCLE, PictureFormat.MERMAID),
    "life-cycle.md": (Subject.LIFE_CYCLE, PictureFormat.MARKDOWN),
    **{f"{subject}.svg": (subject, PictureFormat.SVG) for subject in Subject if subject is not Subject.LIFE_CYCLE},
}
"""The files in ``diagrams/``."""

PAGE_FOLDER = Path("discorder", "http", "page")
PAGE_PICTURE = "life-cycle.svg"
"""The picture that the status page shows. It is package data, so that drawing it needs no renderer at run time."""


def render(
    subject: Subject, picture_format: PictureFormat, highlight: State | None = None, trace: TracePath | None = None
) -> bytes:
    """Return ``subject`` in ``picture_format`` (text is UTF-8). The life cycle can mark ``highlight`` and ``trace``.

    Raises `PictureError` for a format that the subject does not have, and for SVG and PNG if the renderer is missing or fails.
    """
    match picture_format:
        case PictureFormat.SVG:
            return draw_svg(_dot(subject, highlight, trace), _title(subject))
        case PictureFormat.PNG:
            return draw_png(_dot(subject, highlight, trace))
        case PictureFormat.PAGE if subject is Subject.LIFE_CYCLE and highlight is None and trace is None:
            return page_svg(_title(subject)).encode()
        case PictureFormat.DOT:
            return _dot(subject, highlight, trace).encode()
        case PictureFormat.MERMAID if subject is Subject.LIFE_CYCLE and trace is None:
            return mermaid(highlight).encode()
        case PictureFormat.MERMAID if subject.scenario is not None:
            return sequence_mermaid(subject.scenario).encode()
        case PictureFormat.MARKDOWN if subject is Subject.LIFE_CYCLE and trace is None:
            return markdown().encode()
    what = subject if trace is None else f"{subject} with a trace"
    msg = f"there is no {picture_format} of {what}; allowed: svg, png, dot"
    raise PictureError(msg)


def write_all(folder: Path) -> list[Path]:
    """Write the committed set into ``folder``, which is created if it is missing; return the paths.

    If the status page's folder is beside ``folder``, as in a checkout of the project, also write the page's picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = _committed(folder)
    for path, (subject, picture_format) in files.items():
        path.write_bytes(render(subject, picture_format))
    return list(files)


def check_all(folder: Path) -> list[str]:
    """Return one sentence for each file that `write_all` would write and that is missing or outdated."""
    findings = []
    for path, (subject, picture_format) in _committed(folder).items():
        if not path.is_file():
            findings.append(f"{path} is missing; draw it with `make diagrams`")
        elif path.read_bytes() != render(subject, picture_format):
            findings.append(f"{path} is outdated; draw it again with `make diagrams`")
    return findings


def _committed(folder: Path) -> dict[Path, tuple[Subject, PictureFormat]]:
    files = {folder / name: picture for name, picture in COMMITTED.items()}
    page = folder.absolute().parent / PAGE_FOLDER
    if page.is_dir():
        files[page / PAGE_PICTURE] = (Subject.LIFE_CYCLE, PictureFormat.PAGE)
    return files


def _dot(subject: Subject, highlight: State | None, trace: TracePath | None) -> str:
    if subject.scenario is not None:
        return sequence_dot(subject.scenario)
    match subject:
        case Subject.GRID:
            return grid_dot()
        case Subject.ARCHITECTURE:
            return architecture_dot()
        case _:
            return dot(highlight, trace)


def _title(subject: Subject) -> str:
    if subject.scenario is not None:
        return SCENARIOS[subject.scenario].title
    return _TITLES[subject]


_TITLES = {
    Subject.LIFE_CYCLE: "The life cycle of a shard",
    Subject.GRID: "Every state and trigger of a shard",
    Subject.ARCHITECTURE: "The parts of Discorder and who imports whom",
}
