"""The verdict and the flows of several shards."""

from __future__ import annotations

import pytest

from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.harness import MemoryStage, Stage, StartStage
from tests.status.conftest import Document, Watch, Watched
from tests.status.fleet import Fleet, all_ready


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(3)


@pytest.fixture
def watched(fleet: Fleet, stages: list[Stage], watch: Watch) -> Watched:
    """Three shards that are not Ready yet, and their board."""
    stage = MemoryStage(fleet, "gateway.shards=3")
    stages.append(stage)
    return watch(stage)


def verdict_of(shown: Document) -> tuple[str, str]:
    return shown["verdict"]["level"], shown["verdict"]["headline"]


async def test_the_verdict_follows_the_shards(fleet: Fleet, watched: Watched) -> None:
    stage = watched.stage
    await stage.until(lambda: len(fleet.by_shard) == 3)
    shown = watched.document
    assert verdict_of(shown) == ("starting", "Starting: 0 of 3 shards serve")
    assert shown["verdict"]["detail"] == "3 identify, at most 3 at a time, 5.25 s apart."
    await all_ready(stage, fleet)
    shown = watched.document
    assert verdict_of(shown) == ("well", "Well: all 3 shards serve")
    assert [shard["guilds"] for shard in shown["shards"]] == [1000, 1000, 1000]
    assert shown["verdict"]["since"] == max(shard["since"] for shard in shown["shards"])

    await stage.spend(3.0)
    for line in fleet.by_shard.values():
        line.accepts.set()
    fleet.by_shard[1].lose()
    await stage.until(lambda: stage.tracker.shards[1].state is State.RESTARTING)
    shown = watched.document
    assert verdict_of(shown) == ("impaired", "Not well: 1 of 3 shards does not serve")
    assert shown["verdict"]["detail"].startswith("Its session is kept: ")
    assert shown["verdict"]["detail"].endswith(". The other 2 serve.")
    assert shown["verdict"]["reasons"] == [f"shard 1: {shown['shards'][1]['cause']}"]
    assert shown["verdict"]["since"] == shown["transitions"][1]["at"], "when it left Ready"
    began = shown["verdict"]["since"]
    assert shown["flows"]["not_serving"][-1]["to"] is not None, "two still serve"

    fleet.by_shard[0].lose()
    fleet.by_shard[2].lose()
    await stage.until(lambda: all(shard.state is not State.READY for shard in stage.tracker.shards))
    shown = watched.document
    assert verdict_of(shown) == ("down", "Not well: none of the 3 shards serves")
    assert shown["verdict"]["since"] == began, "one trouble with one beginning"
    assert shown["flows"]["not_serving"][-1]["to"] is None
    assert shown["verdict"]["shards"]["ready"] == 0


async def test_shards_that_wait_for_their_turn_show_when_it_comes(stages: list[Stage], watch: Watch) -> None:
    fleet = Fleet(3, concurrency=1)
    stage = MemoryStage(fleet, "gateway.shards=3")
    stages.append(stage)
    watched = watch(stage)
    await stage.until(lambda: len(fleet.by_shard) == 3)
    for line in fleet.by_shard.values():
        line.hello()
    await stage.until(lambda: any(shard["next"]["action"] == "ready" for shard in watched.document["shards"]))
    await stage.spend(0.5)
    shown = watched.document
    waiting = [shard for shard in shown["shards"] if shard["next"]["action"] == "identify"]
    assert [shard["id"] for shard in waiting] == [1, 2]
    assert [shard["next"]["kind"] for shard in waiting] == ["estimate", "estimate"]
    assert waiting[0]["next"]["at"] < waiting[1]["next"]["at"] == shown["budget"]["last_turn_at"]
    assert shown["budget"]["waiting"] == 2
    assert shown["budget"]["cold_start"] == {"identifies": 3, "seconds": 10.5}
    assert shown["verdict"]["headline"] == "Starting: 0 of 3 shards serve"


async def test_flows_hold_rates_and_latencies(sim: Simulator, start_stage: StartStage, watch: Watch) -> None:
    """Ten events in the second before the sample; heartbeats that are answered; later one point for five seconds."""
    stage = start_stage(sim)
    watched = watch(stage)
    await stage.ready()
    await stage.spend(10.0)
    for number in range(10):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await stage.until(lambda: stage.tracker.stats.published_event_count == 13)
    await stage.spend(1.0)
    shown = watched.document
    assert max(value or 0.0 for value in shown["flows"]["events_per_s"]) == pytest.approx(10.0, rel=0.2)
    assert sum(value or 0.0 for value in shown["flows"]["events_per_s"]) == pytest.approx(13.0, abs=0.5)
    assert {one["type"]: one["total"] for one in shown["event_types"]}["MESSAGE_CREATE"] == 10
    stage.stride = 1.0
    await stage.until(lambda: watched.shard["heartbeat"]["latency_s"] is not None, within=50.0)
    await stage.spend(2.0)
    assert watched.document["flows"]["latency_s"]["median"][-1] == watched.shard["heartbeat"]["latency_s"]
    await stage.spend(180.0)
    wide = watched.document["flows"]
    assert wide["step_s"] == 5
    assert len(wide["events_per_s"]) == len(wide["latency_s"]["median"]) == len(wide["latency_s"]["worst"]) == 180
    assert sum(value or 0.0 for value in wide["events_per_s"]) * 5 == pytest.approx(13.0, abs=0.6)
    await stage.spend(30.0)
    assert wide["from"] < watched.document["flows"]["from"]


async def test_a_paused_shard_among_others_is_told_from_those_that_come_back(fleet: Fleet, watched: Watched) -> None:
    stage = watched.stage
    await all_ready(stage, fleet)
    stage.tracker.pause_shard(0)
    await stage.until(lambda: stage.tracker.shards[0].state is State.RESTARTING)
    assert watched.document["verdict"]["detail"] == (
        "An operator has paused it. Discord keeps a session for some minutes only: "
        "after a longer pause, events are lost and an IDENTIFY is needed. The other 2 serve."
    )
    fleet.by_shard[1].lose()
    await stage.until(lambda: stage.tracker.shards[1].state is State.RESTARTING)
    detail = watched.document["verdict"]["detail"]
    assert detail.startswith("Of those that are not paused, each keeps its session: ")
    assert "An operator has paused 1 of them." in detail
