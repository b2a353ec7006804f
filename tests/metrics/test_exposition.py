"""The metrics: formats, names, bounds, and values that agree with what happened."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics

from discorder import is_operational
from discorder.metrics import Exposition
from discorder.metrics.catalogue import PER_SHARD, PROCESS
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Event, Op
from tests.metrics.scrapes import fallen, key, promtool, scrape

if TYPE_CHECKING:
    from tests.harness import StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"


# ---------------------------------------------------------------- formats


async def test_promtool_has_no_complaint_about_a_scrape(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    await stage.identified()
    text = Exposition(stage.tracker).page().body.decode()
    assert promtool("check", "metrics", given=text) == ""


async def test_the_format_is_the_one_that_the_client_asks_for(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    await stage.identified()
    exposition = Exposition(stage.tracker)
    plain, asked = exposition.page(), exposition.page(OPEN_METRICS, packed=True)
    assert plain.content_type.startswith("text/plain")
    assert (plain.encoding, asked.encoding) == ("", "gzip")
    assert asked.content_type.startswith("application/openmetrics-text")
    text = gzip.decompress(asked.body).decode()
    families = list(parse_open_metrics(text))  # type: ignore[no-untyped-call]  # raises ValueError for a wrong line
    restarts = next(family for family in families if family.name == "discorder_shard_restarts")
    assert (restarts.type, restarts.samples[0].name) == ("counter", "discorder_shard_restarts_total")


async def test_every_metric_of_the_catalogue_is_in_a_scrape_and_no_other(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    await stage.identified()
    text = Exposition(stage.tracker).page().body.decode()
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert sorted(name for name in types if name.startswith("discorder_")) == sorted(
        family.name for family in (*PROCESS, *PER_SHARD)
    )
    assert {name for name in types if name.startswith("process_")} >= {"process_open_fds", "process_cpu_seconds_total"}


def test_a_shard_has_at_most_four_families_and_its_id_as_the_only_label() -> None:
    assert len(PER_SHARD) <= 4
    assert {family.labels for family in PER_SHARD} == {("shard",)}
    assert [family.name for family in PROCESS if "shard" in family.labels] == []


# ---------------------------------------------------------------- values


async def test_the_values_are_those_of_the_tracker(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(*(line.dispatched("MESSAGE_CREATE") for _ in range(3)), line.dispatched("TYPING_START"))
    await stage.until(lambda: len(stage.recorder.events) == 5)
    now = scrape(Exposition(stage.tracker))
    assert now[key("discorder_events_total", type="MESSAGE_CREATE")] == 3
    assert now[key("discorder_shard_events_total", shard="0")] == 5
    assert now[key("discorder_frames_total")] == 5
    assert now[key("discorder_ready")] == now[key("discorder_shard_ready", shard="0")] == 1
    assert now[key("discorder_shards", state="Ready")] == 1
    assert now[key("discorder_transitions_total", state="Ready")] == 1
    assert now[key("discorder_identifies_total")] == 1
    assert now[key("discorder_identify_remaining")] == 999
    assert now[key("discorder_store_state", state="in memory")] == 1
    assert now[key("discorder_publisher_accepted_events_total", publisher="recorder")] == 5
    assert now[key("discorder_publisher_state", publisher="recorder", state="healthy")] == 1


async def test_the_latency_of_each_answered_heartbeat_is_counted_once(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    line = await stage.identified(interval_ms=10_000)
    exposition = Exposition(stage.tracker)
    assert key("discorder_shard_ack_age_seconds", shard="0") not in scrape(exposition), "no ACK yet"
    await stage.until(lambda: line.ops(Op.HEARTBEAT))
    await stage.spend(0.3)
    line.ack()
    line.ack()  # for no heartbeat
    await stage.until(lambda: stage.tracker.stats.heartbeat_received_count == 2)
    now = scrape(exposition)
    latency = "discorder_heartbeat_latency_seconds"
    assert now[key(f"{latency}_count")] == 1
    assert now[key(f"{latency}_bucket", le="0.25")] == 0
    assert now[key(f"{latency}_bucket", le="0.5")] == now[key(f"{latency}_bucket", le="+Inf")] == 1
    assert now[key(f"{latency}_sum")] == pytest.approx(0.3, abs=0.15)
    assert now[key("discorder_shard_ack_age_seconds", shard="0")] < 1.0


async def test_a_lost_connection_shows_in_states_and_counters(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    line = await stage.identified()
    exposition = Exposition(stage.tracker)
    line.lose()
    await stage.in_state(State.RESTARTING)
    during = scrape(exposition)
    assert during[key("discorder_ready")] == during[key("discorder_shard_ready", shard="0")] == 0
    assert not is_operational(stage.tracker)
    assert during[key("discorder_shards", state="Restarting")] == 1
    (await stage.resuming(2)).feed(line.dispatched("RESUMED"))
    await stage.ready(2)
    after = scrape(exposition)
    assert after[key("discorder_ready")] == is_operational(stage.tracker) == 1
    assert after[key("discorder_resumes_total")] == after[key("discorder_restarts_total")] == 1
    assert after[key("discorder_shard_restarts_total", shard="0")] == 1
    assert after[key("discorder_transitions_total", state="Restarting")] == 1
    assert fallen(during, after) == []


async def test_a_trigger_that_the_table_rejects_is_counted(start_memory_stage: StartMemoryStage) -> None:
    """Op 9 before Hello."""
    stage = start_memory_stage()
    line = await stage.line()
    line.feed({"op": Op.INVALID_SESSION, "d": False})
    await stage.in_state(State.RESTARTING)
    assert scrape(Exposition(stage.tracker))[key("discorder_rejected_triggers_total")] == 1


# ---------------------------------------------------------------- bounds


async def test_a_gateway_that_invents_event_types_fills_neither_memory_nor_page(
    start_memory_stage: StartMemoryStage,
) -> None:
    stage = start_memory_stage()
    line = await stage.identified()
    exposition = Exposition(stage.tracker)
    odd = ["lower", 'QUOTE"', "NEW\nLINE", "X" * 100_000]
    line.feed(*(line.dispatched(kind) for kind in [*odd, *(f"TYPE_{number:03}" for number in range(300))]))
    await stage.until(lambda: len(stage.recorder.events) == 305)
    first = scrape(exposition)
    line.feed(line.dispatched("TYPE_000"), line.dispatched("TYPE_299"), line.dispatched("ABOVE_ALL"))
    await stage.until(lambda: len(stage.recorder.events) == 308)
    then = scrape(exposition)
    types = [dict(labels)["type"] for name, labels in then if name == "discorder_events_total"]
    assert len(types) == 129
    assert not {*odd, "TYPE_299", "ABOVE_ALL"} & set(types)
    assert then[key("discorder_events_total", type="TYPE_000")] == 2
    assert sum(value for (name, _), value in then.items() if name == "discorder_events_total") == 308
    assert fallen(first, then) == []
    assert len(exposition.page().body) < 40_000


async def test_neither_token_nor_session_nor_content_is_in_a_scrape(
    start_simulator: Start, start_stage: StartStage
) -> None:
    sim = await start_simulator()
    stage = start_stage(sim)
    tracker = await stage.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1", "content": "a-private-remark"})
    await stage.until(lambda: tracker.stats.events_by_type["MESSAGE_CREATE"] == 1)
    session = tracker.session
    text = Exposition(tracker).page().body.decode()
    assert session is not None
    secrets = [sim.token, sim.token[:8], session.session_id, "a-private-remark"]
    assert [secret for secret in secrets if secret in text] == []


# ---------------------------------------------------------------- counters never fall


class Stuck:
    """A publisher that never accepts anything."""

    durable = False
    name = "stuck"

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        raise OSError("disk full")

    async def close(self) -> None: ...


async def test_no_counter_falls_when_a_publisher_is_removed(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage()
    line = await stage.identified()
    tracker, exposition = stage.tracker, Exposition(stage.tracker)
    tracker.add_publisher(Stuck())
    line.feed(*(line.dispatched("MESSAGE_CREATE") for _ in range(12_000)))
    await stage.until(lambda: tracker.stats.drop_count)
    before = scrape(exposition)
    assert before[key("discorder_publisher_dropped_events_total", publisher="stuck")] > 0
    removing = threading.Thread(target=tracker.remove_publisher, args=("stuck",))
    removing.start()
    removing.join()
    for _ in range(40):  # right after the call, while its queue is given up, and later
        after = scrape(exposition)
        assert fallen(before, after, ignoring=["stuck"]) == []
        before = after
        await stage.pass_time()
    assert key("discorder_publisher_lag_seconds", publisher="stuck") not in before


async def test_no_counter_falls_when_the_look_up_brings_more_shards(
    start_simulator: Start, start_stage: StartStage
) -> None:
    sim = await start_simulator(shards=4, max_concurrency=4)
    asked: list[Exposition] = []
    before: list[Any] = []

    async def look_up() -> GatewayInfo:
        before.append(scrape(asked[0]))
        limit = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=86_400_000, max_concurrency=4)
        return GatewayInfo(url=sim.gateway_url, shards=4, session_start_limit=limit)

    stage = start_stage(sim, "gateway.shards=auto", look_up=look_up)
    stage.ref.on_fill = lambda tracker: asked.append(Exposition(tracker))
    await stage.until(lambda: before and len(stage.tracker.shards) == 4)
    assert fallen(before[0], scrape(asked[0])) == []
    await stage.until(lambda: all(shard.state is State.READY for shard in stage.tracker.shards))
    now = scrape(asked[0])
    assert fallen(before[0], now) == []
    assert [now[key("discorder_shard_ready", shard=str(shard))] for shard in range(4)] == [1, 1, 1, 1]


async def test_a_publisher_s_name_controls_no_terminal(start_memory_stage: StartMemoryStage) -> None:
    """It is a key of the configuration, and may be anything."""
    named = Stuck()
    named.name = "log\x1b[2J\u202e"
    stage = start_memory_stage(publishers=[named])
    await stage.identified()
    text = Exposition(stage.tracker).page().body.decode()
    assert all(line.isprintable() for line in text.splitlines())
    assert r'publisher="log\\x1b[2J\\u202e"' in text
