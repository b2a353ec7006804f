"""Run spin as a subprocess: write the model, build and run the verifier, and translate a trail back into steps.

Needs `spin` and `gcc` (`apt-get install spin gcc`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from discorder.errors import UnusableFile
from discorder.proofs.compiled import Compiled
from discorder.proofs.environment import GOOD_WEATHER
from discorder.proofs.liveness import Liveness
from discorder.proofs.model import TableModel, with_steps, without_properties
from discorder.proofs.model_dsl import variables_in
from discorder.proofs.promela import STEP_MARK, promela

MEMORY_MIB: Final = 1500
DEPTH: Final = 1_000_000  # steps of one run; a deeper run raises UnusableFile, it is never ignored
# -O0: optimising takes gcc longer than it saves in the verifier.
_OPTIONS = ("-O0", "-w", "-DNFAIR=3", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}")
_CYCLE = "<<<<<START OF CYCLE>>>>>"


@dataclass(frozen=True, slots=True)
class SpinTrace:
    """Hold a counterexample: ``steps`` from ``beginning``. Steps from index ``cycle`` on repeat forever; None = a finite run."""

    beginning: bytes
    steps: tuple[tuple[int, bytes], ...]
    cycle: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """Hold the result of spin. ``run`` None: the property holds in every run of ``model``, the checked model."""

    check: Liveness
    model: TableModel
    states: int
    memory_mib: float
    seconds: float
    run: SpinTrace | None = None


def missing_tools() -> list[str]:
    """Return the required programs that are not installed."""
    return [name for name in ("spin", "gcc") if shutil.which(name) is None]


def verify(model: TableModel, check: Liveness) -> Verified:
    """Check one property with spin. Raises `UnusableFile` if spin or gcc fails."""
    began = time.perf_counter()
    checked = _model_of(model, check)
    with tempfile.TemporaryDirectory(prefix="discorder-spin-") as name:
        folder = Path(name)
        (folder / "model.pml").write_text(promela(checked, check))
        _call(folder, "spin", "-a", "model.pml")
        _call(folder, "gcc", *_OPTIONS, "-o", "pan", "pan.c")
        fair = () if check.safety else ("-f",)
        output = _call(folder, "./pan", "-a", *fair, f"-m{DEPTH}", "-n")
        if "max search depth too small" in output or "errors:" not in output:
            msg = f"spin could not finish {check.name}:\n{output}"
            raise UnusableFile(msg)
        run = (
            _translated(checked, _call(folder, "spin", "-t", "model.pml"))
            if (folder / "model.pml.trail").exists()
            else None
        )
    seconds = time.perf_counter() - began
    states = int(_number(r"(\d+) states, stored", output))
    return Verified(check, checked, states, _number(r"([\d.]+)\s+total actual memory", output), seconds, run)


def _model_of(model: TableModel, check: Liveness) -> TableModel:
    if check.weather:
        model = with_steps(model, GOOD_WEATHER)
    return without_properties(model, {variable for _, atom in check.atoms for variable in variables_in(atom)})


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  # our own files
    if done.returncode != 0:
        msg = f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise UnusableFile(msg)
    return done.stdout


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    return 0.0 if found is None else float(found.group(1))


def _translated(model: TableModel, trail: str) -> SpinTrace:
    """Replay the steps of the trail in the model and return the run."""
    compiled = Compiled(model)
    beginning = b""
    steps: list[tuple[int, bytes]] = []
    cycle = None
    for line in map(str.strip, trail.splitlines()):
        if line.startswith(_CYCLE):
            cycle = len(steps)
        elif line.startswith(f"{STEP_MARK}begin"):
            beginning = bytes(map(int, line.split()[1:]))
        elif line.startswith(STEP_MARK):
            number = int(line.removeprefix(STEP_MARK))
            state = steps[-1][1] if steps else beginning
            steps.append((number, dict(compiled.expand(state)[0])[number]))
    return SpinTrace(beginning, tuple(steps), cycle)
