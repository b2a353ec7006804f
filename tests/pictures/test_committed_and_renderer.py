"""The committed diagrams are up to date, the bytes are the same each time, and a missing renderer says so."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from discorder.errors import PictureError
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.render import COMMITTED, check_all, render, write_all
from discorder.pictures.renderer import RENDERER, find_renderer

ROOT = Path(__file__).resolve().parents[2]

# -------------------------------------------------------------------------------------------------- the committed set


def test_the_committed_diagrams_are_those_of_the_table() -> None:
    """Who changes the table draws it anew."""
    assert check_all(ROOT / "diagrams") == []


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_the_bytes_are_the_same_each_time(picture_format: PictureFormat) -> None:
    """CI compares them."""
    assert render(Subject.LIFE_CYCLE, picture_format) == render(Subject.LIFE_CYCLE, picture_format)


@pytest.mark.heavy
@pytest.mark.parametrize("subject", Subject)
def test_every_subject_has_a_picture_and_says_which_formats_it_lacks(subject: Subject) -> None:
    """SVG, PNG and DOT of all; the others where they make sense."""
    assert render(subject, PictureFormat.SVG).startswith(b"<svg ")
    assert render(subject, PictureFormat.PNG)[:8] == b"\x89PNG\r\n\x1a\n"
    assert render(subject, PictureFormat.DOT).startswith(b"digraph ")
    if subject is not Subject.LIFE_CYCLE:
        with pytest.raises(PictureError, match=f"no markdown of {subject}; allowed: svg, png, dot"):
            render(subject, PictureFormat.MARKDOWN)


def test_a_missing_and_a_changed_file_are_named(tmp_path: Path) -> None:
    """One sentence for each, with the way out."""
    folder = tmp_path / "drawn" / "here"
    assert write_all(folder) == [folder / name for name in COMMITTED]
    assert check_all(folder) == []
    (folder / "life-cycle.svg").unlink()
    (folder / "life-cycle.md").write_text("edited by hand", encoding="utf-8")
    assert check_all(folder) == [
        f"{folder / 'life-cycle.svg'} is missing; draw it with `make diagrams`",
        f"{folder / 'life-cycle.md'} is outdated; draw it again with `make diagrams`",
    ]


# -------------------------------------------------------------------------------------------------- the renderer


def renderer_script(folder: Path, body: str) -> Path:
    """An executable of the renderer's name."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / RENDERER
    script.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    script.chmod(0o755)
    return script


@pytest.fixture
def bare_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python without the wheel: its folder is empty, and so are its scripts folder and PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name, **_: str(tmp_path / name))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    return folder


def test_the_renderer_is_found_beside_python_first(bare_python: Path) -> None:
    """An environment that is not activated has its scripts folder not on PATH."""
    elsewhere = renderer_script(bare_python.parent / "scripts", "exit 0")
    assert find_renderer() == str(elsewhere)
    beside = renderer_script(bare_python, "exit 0")
    assert find_renderer() == str(beside)


def test_the_renderer_on_path_will_do(bare_python: Path) -> None:
    """The last place to look."""
    on_path = renderer_script(bare_python.parent / "nowhere", "exit 0")
    assert find_renderer() == str(on_path)


def test_without_the_renderer_text_formats_still_work(bare_python: Path) -> None:
    """And the error of the others says how to get it."""
    assert shutil.which(RENDERER) is None
    with pytest.raises(PictureError, match=r"pip install .discorder\[diagrams\]"):
        render(Subject.LIFE_CYCLE, PictureFormat.SVG)
    assert all(
        render(Subject.LIFE_CYCLE, kind) for kind in (PictureFormat.DOT, PictureFormat.MERMAID, PictureFormat.MARKDOWN)
    )


@pytest.mark.parametrize("body", ["echo 'no such layout' >&2; exit 3", "cat > /dev/null; echo 'no such layout' >&2"])
def test_a_renderer_that_fails_is_reported_with_its_words(bare_python: Path, body: str) -> None:
    """By its status, or by having drawn nothing."""
    renderer_script(bare_python, f"PATH=/bin:/usr/bin; {body}")
    with pytest.raises(PictureError, match="no such layout"):
        render(Subject.LIFE_CYCLE, PictureFormat.PNG)
