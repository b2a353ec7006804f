"""A paused shard in the status document: no start that lasts for ever, no next step, and the command that ends the pause."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from discorder.clock import FakeClock
from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.status.conftest import Watch

if TYPE_CHECKING:
    from tests.harness import StartStage


async def test_a_paused_shard_is_named_and_has_no_next_step(
    sim: Simulator, start_stage: StartStage, watch: Watch
) -> None:
    stage = start_stage(sim)
    watched = watch(stage)
    tracker = await stage.ready()
    tracker.pause_shard(0)
    assert "nothing until the shard is unpaused" in watched.shard["next"]["text"]
    await stage.in_state(State.RESTARTING)
    await stage.spend(5.0)
    shown = watched.document
    assert (shown["verdict"]["level"], shown["verdict"]["headline"]) == ("down", "Not well: the shard is paused")
    assert shown["verdict"]["detail"] == (
        "An operator has paused it. Discord keeps a session for some minutes only: "
        "after a longer pause, events are lost and an IDENTIFY is needed."
    )
    assert "goes on with `discorder shards unpause 0`" in shown["verdict"]["reasons"][0]
    assert (watched.shard["state"], watched.shard["next"]) == ("Restarting", None)
    assert watched.shard["paused"]
    assert "goes on with `discorder shards unpause 0`" in watched.shard["cause"]
    tracker.unpause_shard(0)
    await stage.ready(generation=2)
    await stage.spend(2.0)
    assert watched.document["verdict"]["level"] == "well"
    await stage.stop()


async def test_a_shard_that_begins_paused_is_not_starting(
    sim: Simulator, start_stage: StartStage, watch: Watch, tmp_path: Path
) -> None:
    clock, store = FakeClock(), f"session.store={tmp_path / 'sessions.sqlite3'}"
    first = start_stage(sim, store, clock=clock)
    (await first.ready()).pause_shard(0)
    await first.stop()
    second = start_stage(sim, store, clock=clock)
    watched = watch(second)
    await second.in_state(State.RESTARTING)
    await second.spend(2.0)
    assert watched.document["verdict"]["headline"] == "Not well: the shard is paused"
    await second.stop()
