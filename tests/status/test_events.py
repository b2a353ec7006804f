"""The events for readers: the whole document first, then its changes; a reader that is too slow begins anew."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from discorder.logs import logger
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.status.board import Board
from discorder.wire import Op
from tests.harness import MemoryStage, Stage
from tests.status.conftest import CONTENT, SESSION_ID, Document, Watch, checked, opened
from tests.status.fleet import Fleet, all_ready

if TYPE_CHECKING:
    from tests.harness import StartMemoryStage, StartStage

AS_OF_THE_MOMENT = ("at", "process")


class Reader:
    """A program that follows the events as docs/status.md says."""

    def __init__(self, board: Board) -> None:
        self.listener = board.listen()
        self.events: list[tuple[str, Document]] = []
        self.document: Document = {}
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for event, body in self.listener:
            assert SESSION_ID not in body.decode()
            assert CONTENT not in body.decode()
            data = json.loads(body)
            self.events.append((event, data))
            self._apply(event, data)

    def _apply(self, event: str, data: Document) -> None:
        shown = self.document
        match event:
            case "status":
                self.document = checked(json.dumps(data).encode())
            case "shards":
                place = {shard["id"]: number for number, shard in enumerate(shown["shards"])}
                for shard in data["shards"]:
                    shown["shards"][place[shard["id"]]] = shard
            case "transition":
                shown["transitions"] = [data["transition"], *shown["transitions"]][:96]
            case "log":
                shown["log"] = [*data["log"], *shown["log"]][:60]
            case "flow":
                self._flow(shown["flows"], data)
                shown["totals"]["events"] = data["total"]
                shown["event_types"] = data["event_types"]
            case _:
                shown |= data

    @staticmethod
    def _flow(flows: Document, data: Document) -> None:
        for values, key in (
            (flows["events_per_s"], "events_per_s"),
            (flows["latency_s"]["median"], "median"),
            (flows["latency_s"]["worst"], "worst"),
        ):
            if data["append"]:
                del values[0]
                values.append(data[key])
            else:
                values[-1] = data[key]
        for key in ("from", "not_serving", "step_s"):
            flows[key] = data[key]

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]

    def of(self, event: str) -> list[Document]:
        return [data for name, data in self.events if name == event]


def without_ages(document: Document) -> Document:
    """Return the document without what changes by itself."""
    kept = {key: value for key, value in document.items() if key not in AS_OF_THE_MOMENT}
    return {**kept, "shards": [{**shard, "ages_s": None} for shard in kept["shards"]]}


async def followed(stage: Stage, board: Board, reader: Reader) -> None:
    """Let a second pass, and compare what the reader has put together with the document itself."""
    await stage.spend(1.0)
    for _ in range(40):
        if without_ages(reader.document) == without_ages(json.loads(board.encoded())):
            return
        await stage.pass_time()
    assert without_ages(reader.document) == without_ages(json.loads(board.encoded()))


async def test_a_reader_that_applies_the_events_has_the_document(
    sim: Simulator, start_stage: StartStage, watch: Watch
) -> None:
    """Through a resume, a lost session, and the change to wider points of the flows after three minutes."""
    stage = start_stage(sim)
    stage.stride = 0.5
    board = watch(stage)
    await stage.ready()
    reader = Reader(board.board)
    await followed(stage, board.board, reader)
    await sim.dispatch("MESSAGE_CREATE", {"id": "1", "content": CONTENT})
    await sim.drop()
    await stage.ready(generation=2)
    await followed(stage, board.board, reader)
    await sim.invalidate()
    await stage.ready(generation=3, within=60.0)
    await followed(stage, board.board, reader)
    await stage.spend(180.0)
    await followed(stage, board.board, reader)
    assert reader.names[0] == "status"
    assert reader.document["flows"]["step_s"] == 5
    assert len(reader.of("status")) == 2, "a new one with the wider points"
    assert [step["transition"]["target"] for step in reader.of("transition")][:3] == [
        "Unhealthy",
        "Restarting",
        "Connecting",
    ]
    moments = [data["at"] for _, data in reader.events]
    assert moments == sorted(moments)
    assert all(next(iter(data)) == "at" for event, data in reader.events if event != "status")


async def test_an_idle_plane_sends_a_beat_every_second(sim: Simulator, start_stage: StartStage, watch: Watch) -> None:
    stage = start_stage(sim)
    board = watch(stage)
    await stage.ready()
    stage.strict, stage.stride = False, 1.0
    await stage.spend(185.0)  # the points of the flows are five seconds wide then
    reader = Reader(board.board)
    await stage.spend(2.0)
    count = len(reader.events)
    await stage.spend(10.0)
    later = Counter(reader.names[count:])
    assert later["beat"] + later["flow"] == pytest.approx(10, abs=1)
    assert later["beat"] >= 1
    assert set(later) <= {"beat", "flow", "shards"}  # shards: a heartbeat was answered


async def test_a_reader_sees_that_an_answer_is_late(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage()
    board = watch(stage)
    line = await opened(stage)
    reader = Reader(board.board)
    stage.stride = 0.5
    await stage.until(lambda: line.ops(Op.HEARTBEAT), within=50.0)
    await stage.spend(7.0)
    (shard,) = reader.document["shards"]
    assert (shard["state"], shard["next"]["action"]) == ("Ready", "beat")


async def test_a_slow_reader_begins_anew_and_holds_nobody_up(
    start_memory_stage: StartMemoryStage, watch: Watch
) -> None:
    stage = start_memory_stage()
    board = watch(stage)
    line = await opened(stage)
    slow, quick = board.board.listen(), Reader(board.board)
    stage.strict, stage.stride = False, 1.0
    assert (await anext(slow))[0] == "status"
    for _ in range(300):
        logger.info("Something happened")
        line.feed(line.dispatched("TYPING_START", {"n": 1}))
        await stage.spend(1.0)
        line.ack()
    event, body = await anext(slow)
    assert event == "status"
    assert json.loads(body)["totals"]["events"] == stage.tracker.stats.published_event_count
    assert len(quick.of("status")) == 2, "the second for the wider points"
    assert len(quick.events) > 600
    slow.close()
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    slow.close()


async def test_each_log_record_comes_once_and_no_event_line(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage("publishers.log.kind=log")
    board = watch(stage)
    await opened(stage)
    reader = Reader(board.board)
    for number in range(5):
        logger.info("Counted", number=number)
        Reader(board.board)  # its document has the record; the first reader gets it once all the same
        await stage.spend(0.6)
    await stage.spend(1.0)
    counted = [one["fields"]["number"] for one in reader.document["log"] if one["message"] == "Counted"]
    assert counted == [4, 3, 2, 1, 0]
    assert all(CONTENT not in json.dumps(one) for one in reader.document["log"])


async def test_the_events_end_with_the_board(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage()
    board = watch(stage)
    await stage.identified()
    reader = Reader(board.board)
    await stage.spend(0.5)
    board.close()
    await asyncio.wait_for(reader.task, 1.0)


async def test_many_shards_that_change_at_once_come_in_few_events(stages: list[Stage], watch: Watch) -> None:
    """At most four times a second, and the look-up's shards come in a new document."""
    fleet = Fleet(40)
    fleet.answers.clear()
    stage = MemoryStage(fleet, "gateway.shards=auto")
    stages.append(stage)
    board = watch(stage)
    await stage.spend(0.2)
    reader = Reader(board.board)
    await stage.spend(0.2)
    assert len(reader.document["shards"]) == 1
    fleet.answers.set()
    await all_ready(stage, fleet)
    await followed(stage, board.board, reader)
    assert len(reader.document["shards"]) == 40
    assert reader.document["verdict"]["headline"] == "Well: all 40 shards serve"
    begun, seen = stage.clock.monotonic(), len(reader.events)
    for line in fleet.by_shard.values():
        line.lose()
        await stage.spend(0.05)
    await stage.spend(1.0)
    seconds = stage.clock.monotonic() - begun
    sent = [name for name in reader.names[seen:] if name == "shards"]
    assert 0 < len(sent) <= 4 * seconds + 1 + seconds  # a second's own refresh is one more
    assert reader.document["verdict"]["level"] in {"impaired", "down"}
    assert len(reader.document["verdict"]["reasons"]) == 24
    assert reader.document["verdict"]["shards"]["by_state"][State.READY] < 40


async def test_a_reader_that_left_gets_nothing(start_memory_stage: StartMemoryStage, watch: Watch) -> None:
    stage = start_memory_stage()
    board = watch(stage)
    line = await stage.identified()
    listener = board.board.listen()
    await anext(listener)
    listener.close()
    line.lose()
    await stage.in_state(State.RESTARTING)
    with pytest.raises(StopAsyncIteration):
        await anext(listener)
