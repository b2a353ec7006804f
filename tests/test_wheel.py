"""The wheel, installed in a separate environment outside the tree, works like the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment = kept | {"XDG_STATE_HOME": str(cwd / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.system
@pytest.mark.heavy
def test_the_wheel_works_outside_the_tree(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    run("git", "clone", "-q", str(ROOT), str(copy), cwd=tmp_path)  # a build leaves its own folders in its source tree
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "wheels", str(copy), cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("discorder-*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"discorder"}

    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    run(str(binaries / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    discorder = str(binaries / "discorder")
    out = run(discorder, "demo", "--seconds", "2", "--set", "publishers.zmq.bind=tcp://127.0.0.1:0", cwd=elsewhere)
    assert " lost=0" in out.splitlines()[-1]
    run(discorder, "init", cwd=elsewhere)
    assert "tcp://127.0.0.1:6000" in run(discorder, "check-config", "discorder.toml", cwd=elsewhere)
    assert "flowchart" in run(discorder, "diagram", "--format", "mermaid", cwd=elsewhere)
