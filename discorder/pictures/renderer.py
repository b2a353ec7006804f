"""Draw DOT text as SVG and PNG with the command ``graphviz-pure`` of the wheel of that name.

The wheel brings its own font metrics, so the output is the same on every machine and CI can compare it.
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
    """Draw ``dot`` as an SVG with a background and a style sheet of its own. Raises `PictureError`."""
    return _finished_svg(draw_plain_svg(dot), title).encode()


def draw_plain_svg(dot: str) -> str:
    """Draw ``dot`` as the renderer's own SVG. Raises `PictureError`."""
    return _draw(dot, "-Tsvg").decode()


def draw_png(dot: str) -> bytes:
    """Draw ``dot`` as a PNG. Raises `PictureError`."""
    return _draw(dot, "-Tpng", f"-Gdpi={PNG_DPI}")


def _draw(dot: str, *options: str) -> bytes:
    command = [find_renderer(), *options]
    if "layout=neato" in dot:
        command.append("-n2")  # the text gives every position: do not lay out again
    try:
        done = subprocess.run(  # noqa: S603  # the command of an installed wheel; the text is ours
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
    """Return the path of the renderer: beside the running Python, in its scripts folder, or on PATH."""
    for folder in _script_folders():
        if (found := shutil.which(RENDERER, path=folder)) is not None:
            return found
    if (found := shutil.which(RENDERER)) is not None:
        return found
    msg = (
        f"the command {RENDERER}, which draws SVG and PNG, was not found; install it with: "
        f"{sys.executable} -m pip install 'discorder[diagrams]' (mermaid, dot and markdown work without it)"
    )
    raise PictureError(msg)


def _script_folders() -> Iterator[str]:
    yield str(Path(sys.executable).parent)
    yield sysconfig.get_path("scripts")
    yield sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))


# -------------------------------------------------------------------------------------------------- the SVG


_HEAD = re.compile(r"\A.*?(?=<svg )", re.DOTALL)  # XML declaration and DOCTYPE, which an inlined picture must not have
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)  # one of them states the renderer's version
_TOOLTIP = re.compile(r"<title>.*?</title>\n", re.DOTALL)  # tooltips such as "Ready&#45;&gt;Unhealthy"
_BACKGROUND = re.compile(r'<polygon fill="[^"]*" stroke="none" points="[^"]*"/>\n')  # the first one is the page


def _finished_svg(svg: str, title: str) -> str:
    """Return the renderer's SVG with a background and a style sheet, without the renderer's own additions."""
    body = _TOOLTIP.sub("", _COMMENT.sub("", _HEAD.sub("", svg))).replace("&#45;", "-")
    body = _BACKGROUND.sub("", body, count=1)
    opening, rest = body.split(">", 1)
    opening = opening.replace("<svg ", f'<svg class="{SVG_CLASS}" role="img" ', 1)
    card = f'<rect width="100%" height="100%" rx="14" fill="{CARD.light}"/>'
    return f"{opening}>\n<title>{escape(title)}</title>\n<style>\n{style_sheet()}</style>\n{card}{rest.rstrip()}\n"
