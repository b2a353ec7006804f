"""The command that draws DOT text as SVG and PNG, and the finish of its SVG.

It is ``graphviz-pure`` of the wheel of that name: its font metrics are its own, so that the bytes are the same on every machine
and CI can compare them. Nothing here knows what a picture shows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from html import escape
from pathlib import Path

from discorder.errors import PictureError
from discorder.pictures.palette import CARD, SVG_CLASS, style_sheet

RENDERER = "graphviz-pure"
RENDER_SECONDS = 30.0  # drawing takes about 20 ms; a renderer that hangs must not hang CI
PNG_DPI = 144  # sharp on a dense screen at README width


def draw_svg(dot: str, title: str) -> bytes:
    """``dot`` as an SVG that carries its own background and style sheet. Raises `PictureError`."""
    return _finished_svg(_draw(dot, "-Tsvg").decode(), title).encode()


def draw_png(dot: str) -> bytes:
    """``dot`` as a PNG. Raises `PictureError`."""
    return _draw(dot, "-Tpng", f"-Gdpi={PNG_DPI}")


def _draw(dot: str, *options: str) -> bytes:
    command = [find_renderer(), *options]
    if "layout=neato" in dot:
        command.append("-n2")  # every place is given: move nothing, and draw the edges as they are
    try:
        done = subprocess.run(  # noqa: S603  # our own text, into a command of an installed wheel
            command, input=dot.encode(), capture_output=True, check=False, timeout=RENDER_SECONDS
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


def _finished_svg(svg: str, title: str) -> str:
    """The renderer's SVG as a card with a style sheet, free of what only the renderer needs."""
    body = _TOOLTIP.sub("", _COMMENT.sub("", _HEAD.sub("", svg))).replace("&#45;", "-")
    body = _BACKGROUND.sub("", body, count=1)
    opening, rest = body.split(">", 1)
    opening = opening.replace("<svg ", f'<svg class="{SVG_CLASS}" role="img" ', 1)
    card = f'<rect width="100%" height="100%" rx="14" fill="{CARD.light}"/>'
    return f"{opening}>\n<title>{escape(title)}</title>\n<style>\n{style_sheet()}</style>\n{card}{rest.rstrip()}\n"
