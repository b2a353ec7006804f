"""spin, as a program beside us: write the model, build the verifier, run it, and translate a trail back into steps.

Needs `spin` and `gcc` (`apt-get install spin gcc`). Knows nothing of the world but that its steps are numbered.
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
from discorder.proofs.language import variables_in
from discorder.proofs.liveness import Liveness
from discorder.proofs.promela import STEP_MARK, promela
from discorder.proofs.small_world import SmallWorld, with_steps, without_properties
from discorder.proofs.surroundings import GOOD_WEATHER

MEMORY_MIB: Final = 1500
DEPTH: Final = 1_000_000  # steps of one run; a run this deep is reported as not checked, never passed over
_OPTIONS = ("-O0", "-w", "-DNFAIR=3", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}")  # -O0: gcc takes longer than pan saves
_CYCLE = "<<<<<START OF CYCLE>>>>>"


@dataclass(frozen=True, slots=True)
class Run:
    """A counterexample: ``steps`` from ``beginning``; those from number ``cycle`` on repeat for ever, None in a finite one."""

    beginning: bytes
    steps: tuple[tuple[int, bytes], ...]
    cycle: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What spin said. ``run`` None: the property holds in every run of ``world``, the one that was checked."""

    check: Liveness
    world: SmallWorld
    states: int
    memory_mib: float
    seconds: float
    run: Run | None = None


def missing_tools() -> list[str]:
    """Which of the programs are not installed."""
    return [name for name in ("spin", "gcc") if shutil.which(name) is None]


def verify(world: SmallWorld, check: Liveness) -> Verified:
    """Check one property. Raises `UnusableFile` where spin itself fails."""
    began = time.perf_counter()
    checked = _world_of(world, check)
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


def _world_of(world: SmallWorld, check: Liveness) -> SmallWorld:
    if check.weather:
        world = with_steps(world, GOOD_WEATHER)
    return without_properties(world, {variable for _, atom in check.atoms for variable in variables_in(atom)})


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  # our own files
    if done.returncode != 0:
        msg = f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise UnusableFile(msg)
    return done.stdout


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    return 0.0 if found is None else float(found.group(1))


def _translated(world: SmallWorld, trail: str) -> Run:
    """The steps that the trail printed, taken once more in the world."""
    compiled = Compiled(world)
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
            steps.append((number, dict(compiled.look(state)[0])[number]))
    return Run(beginning, tuple(steps), cycle)
