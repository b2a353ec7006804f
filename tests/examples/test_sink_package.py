"""The package in examples/sink-package: its own tests pass, it is found by its entry point, and it keeps every event once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

from discorder.simulator import Simulator
from discorder.wire import session_label

if TYPE_CHECKING:
    from tests.harness import StartStage

PACKAGE = Path(__file__).parent.parent.parent / "examples" / "sink-package"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder as an installation would leave it: the module, and metadata with the entry points. Needs no package index."""
    folder = tmp_path / "site-packages"
    project = tomli.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / f"discorder_sqlite-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    shutil.copy(PACKAGE / "discorder_sqlite.py", folder)
    return folder


@pytest.mark.system
def test_its_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "tests", tmp_path / "tests")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:asyncio",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
        ],
        cwd=tmp_path / "tests",
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout
    assert "14 passed" in run.stdout


async def test_a_control_plane_finds_it_and_it_has_each_event_once_through_restarts(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sim: Simulator, start_stage: StartStage
) -> None:
    monkeypatch.syspath_prepend(installed)
    path = tmp_path / "events.sqlite"
    table = ("publishers.archive.kind=sqlite", f"publishers.archive.path={path}", "publishers.archive.required=true")
    stage = start_stage(sim, *table)
    await stage.ready()
    for number in range(20):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
        if number == 10:
            await sim.drop()
    await stage.ready(generation=2)
    await stage.until(
        lambda: not any(health.queued_events + health.in_flight for health in stage.tracker.publisher_health)
    )
    await stage.stop()
    with closing(sqlite3.connect(path)) as database:
        kept = database.execute("SELECT session, seq, type FROM event WHERE seq IS NOT NULL ORDER BY rowid").fetchall()
    assert kept == [(session_label(session), seq, kind) for session, seq, kind in sim.sent]
    assert len(kept) > 20


@pytest.mark.heavy
@pytest.mark.system
def test_pip_installs_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(pip, check=True, capture_output=True, timeout=240)
    look = "from discorder.publishers.registry import build; print(build('x', {'kind': 'sqlite', 'path': 'e'})[0].name)"
    run = subprocess.run(
        [sys.executable, "-c", look],
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == "x\n"
