"""Pictures of the life cycle in every format, and the committed set of them in ``diagrams/``.

SVG and PNG are drawn by the ``graphviz-pure`` command of the wheel of that name: its font metrics are its own, so that the
bytes are the same on every machine and CI can compare them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from discorder.errors import PictureError
from discorder.pictures.dot import dot
from discorder.pictures.markdown import markdown
from discorder.pictures.mermaid import mermaid
from discorder.pictures.palette import CARD, SVG_CLASS, style_sheet
from discorder.statemachine.states import State

RENDERER = "graphviz-pure"
RENDER_SECONDS = 30.0  # drawing takes about 20 ms; a renderer that hangs must not hang CI
PNG_DPI = 144  # sharp on a dense screen at README width


class PictureFormat(StrEnum):
    """What ``diagram --format`` knows."""

    SVG = "svg"
    PNG = "png"
    MERMAID = "mermaid"
    DOT = "dot"
    MARKDOWN = "markdown"


COMMITTED = {
    "life-cycle.svg": PictureFormat.SVG,
    "life-cycle.mmd": PictureFormat.MERMAID,
    "life-cycle.md": PictureFormat.MARKDOWN,
}
"""The files in ``diagrams/``."""


def render(picture_format: PictureFormat, highlight: State | None = None) -> bytes:
    """The life cycle in ``picture_format`` (text is UTF-8), with ``highlight`` marked where the format has a picture.

    Raises `PictureError` when the renderer is missing or fails (SVG and PNG only).
    """
    match picture_format:
        case PictureFormat.SVG:
            return _finished_svg(_draw(dot(highlight), "-Tsvg").decode()).encode()
        case PictureFormat.PNG:
            return _draw(dot(highlight), "-Tpng", f"-Gdpi={PNG_DPI}")
        case PictureFormat.MERMAID:
            return mermaid(highlight).encode()
        case PictureFormat.DOT:
            return dot(highlight).encode()
        case PictureFormat.MARKDOWN:
            return markdown().encode()


def write_all(folder: Path) -> list[Path]:
    """Write the committed set into ``folder``, which is made if need be; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, picture_format in COMMITTED.items():
        path = folder / name
        path.write_bytes(render(picture_format))
        written.append(path)
    return written


def check_all(folder: Path) -> list[str]:
    """One sentence for each file of the committed set that is missing in ``folder`` or differs from the table."""
    findings = []
    for name, picture_format in COMMITTED.items():
        path = folder / name
        if not path.is_file():
            findings.append(f"{path} is missing; draw it with `make diagrams`")
        elif path.read_bytes() != render(picture_format):
            findings.append(f"{path} differs from the table; draw it anew with `make diagrams`")
    return findings


# -------------------------------------------------------------------------------------------------- the renderer


def _draw(text: str, *options: str) -> bytes:
    command = [find_renderer(), *options]
    try:
        done = subprocess.run(  # noqa: S603  # our own text, into a command of an installed wheel
            command, input=text.encode(), capture_output=True, check=False, timeout=RENDER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{RENDERER} could not draw the picture: {error}; reinstall it with: pip install --force-reinstall {RENDERER}"
        raise PictureError(msg) from error
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip() or "no message"
        msg = f"{RENDERER} ended with {done.returncode} and said: {said}; the input is that of `diagram --format dot`"
        raise PictureError(msg)
    return done.stdout


def find_renderer() -> str:
    """The path of the renderer: beside the running Python, in its scripts folder, then on PATH."""
    for folder in _script_folders():
        if (found := shutil.which(RENDERER, path=folder)) is not None:
            return found
    if (found := shutil.which(RENDERER)) is not None:
        return found
    msg = (
        f"the command {RENDERER}, which draws SVG and PNG, was not found; install it with: "
        f"{sys.executable} -m pip install {RENDERER} (mermaid, dot and markdown work without it)"
    )
    raise PictureError(msg)


def _script_folders() -> Iterator[str]:
    yield str(Path(sys.executable).parent)
    yield sysconfig.get_path("scripts")
    yield sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))


# -------------------------------------------------------------------------------------------------- the SVG


_HEAD = re.compile(r"\A.*?(?=<svg )", re.DOTALL)  # XML declaration and DOCTYPE: in the way where the picture is inlined
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)  # among them the renderer's version
_TOOLTIP = re.compile(r"<title>.*?</title>\n", re.DOTALL)  # "Ready&#45;&gt;Unhealthy" at the mouse helps nobody
_BACKGROUND = re.compile(r'<polygon fill="[^"]*" stroke="none" points="[^"]*"/>\n')  # the first one is the page


def _finished_svg(svg: str) -> str:
    """The renderer's SVG as a card with a style sheet, free of what only the renderer needs."""
    body = _TOOLTIP.sub("", _COMMENT.sub("", _HEAD.sub("", svg))).replace("&#45;", "-")
    body = _BACKGROUND.sub("", body, count=1)
    opening, rest = body.split(">", 1)
    opening = opening.replace("<svg ", f'<svg class="{SVG_CLASS}" role="img" ', 1)
    card = f'<rect width="100%" height="100%" rx="14" fill="{CARD.light}"/>'
    return f"{opening}>\n<title>The life cycle of a shard</title>\n<style>\n{style_sheet()}</style>\n{card}{rest.rstrip()}\n"
