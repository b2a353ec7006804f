"""The status document in every state: it fits its schema, keeps causes, and says what comes next.

Each document that these tests read is checked for the schema, secrets and units (`conftest.checked`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from discorder.errors import FatalCloseError
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Event, Op
from tests.harness import Exchange, MemoryStage, Recorder, Stage
from tests.status.conftest import Document, Watch, moment, opened

if TYPE_CHECKING:
    from tests.harness import StartMemoryStage, StartStage

RESUME_FREE = {"purpose": "resume", "identifies": 0}


def seconds_until(document: Document) -> float:
    """Return the seconds until the next step of the only shard."""
    return (moment(document["shards"][0]["next"]["at"]) - moment(document["at"])).total_seconds()


def part_of(shown: Document | None, expected: Document) -> Document:
    assert shown is not None
    return {key: shown[key] for key in expected}


async def test_a_plane_against_the_simulator(sim: Simulator, start_stage: StartStage, watch: Watch) -> None:
    stage = start_stage(sim)
    watched = watch(stage)
    await stage.ready()
    await sim.drop()
    await stage.ready(generation=2)
    await stage.spend(3.0)
    shown = watched.document
    assert (shown["verdict"]["level"], shown["verdict"]["healthy"]) == ("well", True)
    assert part_of(
        shown["shards"][0], {"state": 0, "healthy": 0, "cause": 0, "next": 0, "guilds": 0, "reasons": 0}
    ) == {
        "state": "Ready",
        "healthy": True,
        "cause": None,
        "next": None,
        "guilds": 2,
        "reasons": [],
    }
    assert shown["shards"][0]["counts"] == {"restarts": 1, "resumes": 1, "identifies": 1}
    assert (shown["budget"]["spent_here"], shown["sessions"]["held"], shown["totals"]["resumes"]) == (1, 1, 1)
    assert shown["transitions"][0]["trigger"] == "resumed"
    assert shown["transitions"][-1]["source"] == "Disconnected"
    assert {record["message"] for record in shown["log"]} >= {"Sending RESUME", "Control plane started"}


async def test_before_the_look_up_it_says_so(
    start_memory_stage: StartMemoryStage, exchange: Exchange, watch: Watch
) -> None:
    exchange.answers.clear()
    stage = start_memory_stage("gateway.shards=auto")
    watched = watch(stage)
    await stage.spend(2.0)
    shown = watched.document
    assert (shown["verdict"]["level"], shown["verdict"]["headline"]) == (
        "starting",
        "Starting: the shard looks up the gateway",
    )
    assert part_of(shown["shards"][0]["next"], {"kind": 0, "action": 0}) == {"kind": "estimate", "action": "look_up"}
    assert shown["budget"]["total"] is None
    assert shown["budget"]["cold_start"] == {"identifies": 1, "seconds": None}
    exchange.answers.set()
    await opened(stage)
    assert watched.document["verdict"]["level"] == "well"


async def test_the_steps_of_a_start(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage()
    watched = watch(stage)
    line = await stage.line()
    await stage.in_state(State.CONNECTING)
    expected = {"kind": "deadline", "action": "hello", "purpose": "identify", "host": "main", "identifies": 1}
    assert part_of(watched.shard["next"], expected) == expected
    assert watched.shard["next"]["text"] == "Hello, then IDENTIFY"
    assert 14.0 < seconds_until(watched.document) <= 15.0
    line.hello()
    await stage.until(lambda: line.ops(Op.IDENTIFY))
    assert part_of(watched.shard["next"], {"action": 0, "identifies": 0}) == {"action": "ready", "identifies": 0}
    assert watched.document["verdict"]["headline"] == "Starting: the shard identifies"


async def test_a_cut_connection_shows_why_until_ready_and_each_step_on_the_way(
    start_memory_stage: StartMemoryStage, exchange: Exchange, watch: Watch
) -> None:
    stage = start_memory_stage()
    watched = watch(stage)
    line = await opened(stage)
    exchange.prepare().accepts.clear()
    line.lose()
    await stage.in_state(State.RESTARTING)
    shown, cause = watched.document, watched.shard["cause"]
    assert cause.startswith("closed: ")
    assert shown["verdict"]["reasons"] == [cause]
    assert shown["verdict"]["headline"] == "Not well: the shard waits to connect again"
    expected = {"kind": "planned", "action": "dial", "host": "resume", "attempt": 1, **RESUME_FREE}
    assert part_of(watched.shard["next"], expected) == expected
    assert watched.shard["next"]["text"] == "RESUME on the resume host"
    assert watched.shard["next"]["backoff_s"] == pytest.approx(seconds_until(shown), abs=0.1)

    await stage.in_state(State.CONNECTING)
    assert (watched.shard["cause"], watched.shard["next"]["text"]) == (cause, "Hello, then RESUME")
    exchange.lines[1].accepts.set()
    line = await stage.resuming(2)
    assert watched.shard["cause"] == cause
    expected = {"kind": "deadline", "action": "resumed", "host": "resume", **RESUME_FREE}
    assert part_of(watched.shard["next"], expected) == expected
    line.feed(line.dispatched("RESUMED"))
    await stage.ready(generation=2)
    assert (watched.shard["cause"], watched.shard["next"], watched.shard["reasons"]) == (None, None, [])


async def test_hosts_alternate_and_attempts_count(
    start_memory_stage: StartMemoryStage, exchange: Exchange, watch: Watch
) -> None:
    """The resume host fails without a count, because the main host was not tried; then the main host fails."""
    stage = start_memory_stage()
    watched = watch(stage)
    (await opened(stage)).lose()
    for number in (2, 3):
        line = await stage.line(number)
        await stage.in_state(State.CONNECTING, generation=number)
        line.lose()
        await stage.in_state(State.RESTARTING)
        host = ("main", "resume")[number - 2]
        assert (watched.shard["next"]["host"], watched.shard["next"]["text"]) == (host, f"RESUME on the {host} host")
        assert watched.shard["next"]["attempt"] == number - 1
    assert watched.shard["attempt"] == 2


async def test_an_unanswered_heartbeat_shows_when_the_connection_is_given_up(
    start_memory_stage: StartMemoryStage, watch: Watch
) -> None:
    stage = start_memory_stage()
    watched = watch(stage)
    line = await opened(stage)
    stage.stride = 0.5
    await stage.until(lambda: line.ops(Op.HEARTBEAT), within=50.0)
    assert watched.shard["next"] is None
    await stage.spend(6.0)
    shown = watched.document
    expected = {"kind": "deadline", "action": "beat", **RESUME_FREE}
    assert part_of(watched.shard["next"], expected) == expected
    left = seconds_until(shown)
    assert 14.0 < left < 15.0, "half an interval without a frame, less 6 s"
    await stage.until(lambda: stage.tracker.state is not State.READY, within=left + 1.0)
    described = [one["shards"][0] for one in watched.at_transitions]
    (unhealthy,) = [one for one in described if one["state"] == "Unhealthy"]
    assert unhealthy["cause"].startswith("zombie: ")
    assert (unhealthy["next"]["action"], unhealthy["next"]["text"]) == ("verdict", "The socket is closed, then RESUME")
    assert unhealthy["heartbeat"]["interval_s"] == 41.25


class Stuck(Recorder):
    """A publisher that accepts nothing until ``free`` is set."""

    durable = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.free = asyncio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        await self.free.wait()

    def publish_nowait(self, events: Sequence[Event]) -> int:
        return super().publish_nowait(events) if self.free.is_set() else 0


class Poor(Exchange):
    """A gateway whose identify budget is spent down to the reserve."""

    async def look_up(self) -> GatewayInfo:
        limit = SessionStartLimit(total=1000, remaining=100, reset_after_ms=3_600_000, max_concurrency=1)
        return GatewayInfo(url=self.url, shards=1, session_start_limit=limit)


async def test_a_parked_shard_says_that_the_budget_is_spent(stages: list[Stage], watch: Watch) -> None:
    stage = MemoryStage(Poor())
    stages.append(stage)
    watched = watch(stage)
    line = await stage.line()
    line.hello()
    await stage.in_state(State.RESTARTING)
    shown = watched.document
    assert watched.shard["parked"]
    assert "the identify budget is spent" in watched.shard["cause"]
    assert shown["verdict"]["headline"] == "Not well: the shard is parked"
    expected = {"kind": "planned", "purpose": "identify", "identifies": 1, "attempt": None}
    assert part_of(watched.shard["next"], expected) == expected
    assert watched.shard["next"]["text"] == "IDENTIFY on the main host, if the identify gate grants one then"
    assert 3_000.0 < seconds_until(shown) <= 3_600.0
    assert (shown["budget"]["spendable"], shown["budget"]["reserve"]) == (0, 100)
    assert [(note["kind"], note["title"]) for note in shown["notes"]] == [("budget", "Few IDENTIFYs may be spent")]


async def test_a_publisher_that_is_full_is_named(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    """A congested required publisher ends the connection; the next one waits until it has room."""
    stuck = Stuck("audit")
    stage = start_memory_stage()
    watched = watch(stage)
    line = await opened(stage)
    stage.tracker.add_publisher(stuck, required=True)
    await stage.spend(1.0)
    for _ in range(12_000 // 100):
        line.feed(*[line.dispatched("TYPING_START", {"n": 1}) for _ in range(100)])
        await stage.pass_time()
    await stage.in_state(State.RESTARTING, within=60.0)
    await stage.spend(2.0)
    assert watched.shard["next"]["kind"] == "estimate"
    assert watched.shard["next"]["text"] == "RESUME on the resume host, once publisher audit has room again"
    assert watched.shard["cause"] == "a publisher that must not lose is full: audit"
    (audit,) = [one for one in watched.document["publishers"] if one["name"] == "audit"]
    assert (audit["required"], audit["overflow"]) == (True, "block")
    assert audit["queued_events"] > 0
    assert audit["lag_s"] > 1.0
    stuck.free.set()


async def test_a_stop_and_a_fatal_end_are_described_at_each_step(
    start_memory_stage: StartMemoryStage, exchange: Exchange, watch: Watch
) -> None:
    stage = start_memory_stage()
    watched = watch(stage)
    line = await opened(stage)
    line.answers_close = False
    await stage.stop()
    last = watched.at_transitions[-2:]
    assert [shown["shards"][0]["state"] for shown in last] == ["Stopping", "Exited"]
    assert [shown["verdict"]["level"] for shown in last] == ["stopping", "stopping"]
    stopping = last[0]["shards"][0]["next"]
    assert part_of(stopping, {"kind": 0, "action": 0, "purpose": 0}) == {
        "kind": "deadline",
        "action": "stop",
        "purpose": None,
    }
    assert last[1]["shards"][0]["next"] is None


async def test_a_fatal_close_code_leaves_no_next_step(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage()
    watched = watch(stage)
    (await opened(stage)).lose(4004)
    assert isinstance(await stage.end(), FatalCloseError)
    shown = watched.at_transitions[-1]
    assert shown["verdict"]["headline"] == "Not well: the shard has ended"
    assert shown["shards"][0]["next"] is None
    assert shown["shards"][0]["cause"].startswith("closed: ")


async def test_each_state_of_the_table_has_been_described(
    start_memory_stage: StartMemoryStage, exchange: Exchange, watch: Watch
) -> None:
    """A run through every state: each transition's document fits (`Watched`) and shows the state that was entered."""
    exchange.answers.clear()
    stage = start_memory_stage("gateway.shards=auto")
    watched = watch(stage)
    await stage.spend(0.5)
    seen = {watched.shard["state"]}
    exchange.answers.set()
    (await opened(stage)).lose()
    line = await stage.resuming(2)
    line.feed(line.dispatched("RESUMED"))
    await stage.ready(generation=2)
    await stage.stop()
    for shown in watched.at_transitions:
        newest = shown["transitions"][0]
        assert shown["shards"][0]["state"] == newest["target"]
        assert shown["verdict"]["shards"]["by_state"][newest["target"]] == 1
        seen.add(newest["target"])
    assert seen == set(State)
