"""`discorder verify`: the table that ships is sound, and a recorded run is told from one that cannot have been."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.statemachine.table import Name
from tests.harness import StartStage

pytestmark = pytest.mark.system
Command = Callable[..., Awaitable[Any]]

STEP = (
    '{{"type":"DISCORDER_STATE","shard":[0,1],"seq":null,"prev":null,"session":null,"timestamp":"2026-11-25T08:00:01Z",'
    '"data":{{"source":"{}","trigger":"{}","target":"{}","cause":null,"generation":{},"milliseconds":0.1}}}}\n'
)


def document(line: str) -> str:
    return STEP.format(*line.split())


@pytest.mark.heavy
async def test_the_table_is_proved(discorder: Command) -> None:
    """Statically, and by a search; both say how much they saw."""
    outcome = await discorder("verify")
    assert outcome.code == 0, outcome.err
    static, searched = outcome.out.splitlines()
    assert static.startswith(f"static    holds: {len(State)} states × {len(Name)} triggers;")
    assert searched.startswith("search    holds: ")


async def test_a_recorded_run_is_possible(
    discorder: Command, sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """What the bus and the log say of a start, a resume and a stop, with the default settings and `log.level=debug`."""
    log = tmp_path / "run.log"
    clock = FakeClock()
    stage = start_stage(sim, f"log.file={log}", clock=clock)
    await stage.ready()
    await sim.drop()
    await stage.ready(generation=2)
    await stage.stop()
    outcome = await discorder("verify", "--trace", str(log))
    assert outcome.code == 0, outcome.err
    assert "shard 0, run 1: " in outcome.out
    assert "transitions, all possible" in outcome.out


async def test_an_impossible_run_is_refused(discorder: Command, tmp_path: Path) -> None:
    """Exit code 1, the first impossible step, and what would have been possible."""
    path = tmp_path / "states.json"
    path.write_text(document("Disconnected start Connecting 1") + document("Connecting hello Ready 1"))
    outcome = await discorder("verify", "--trace", str(path))
    assert outcome.code == 1
    assert "step 2 of 2 is impossible (states.json:2)" in outcome.err
    assert "Connecting --hello--> Resuming" in outcome.err


async def test_a_file_without_transitions_says_how_to_record_them(discorder: Command, tmp_path: Path) -> None:
    """One line and the exit code of an unusable file."""
    path = tmp_path / "empty"
    path.write_text("nothing\n")
    outcome = await discorder("verify", "--trace", str(path))
    assert outcome.code == 74
    assert "discorder tail --type DISCORDER_STATE --json" in outcome.err


async def test_an_unknown_liveness_property_is_refused_with_the_known_ones(discorder: Command) -> None:
    """As is a selection without a run of spin."""
    outcome = await discorder("verify", "--liveness", "--only", "recover")
    assert outcome.code == 2
    assert "recovery" in outcome.err
    assert "no liveness property is named recover;" in " ".join(outcome.err.replace("│", "").split())
    outcome = await discorder("verify", "--only", "recovery")
    assert outcome.code == 2
    assert "--liveness" in outcome.err
