"""The tasks and writes of one generation: how each may end, who hears of it, and what it leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from discorder.clock import settle_loop
from discorder.errors import Closed, CommandRateLimited
from discorder.logs import logger
from discorder.statemachine import Session, State, Task
from discorder.statemachine.send_window import PLAIN
from discorder.statemachine.table import Name
from discorder.wire import Event, Op
from tests.stage import Line

if TYPE_CHECKING:
    from tests.shard.conftest import Drive, Driven
    from tests.stage import Exchange

COMMAND = b'{"op":31,"d":null}'
FAILURE = RuntimeError("simulated failure")


@pytest.fixture
def stopped() -> Iterator[list[tuple[str, str]]]:
    """Name and reason of each task that the log says has stopped."""
    heard: list[tuple[str, str]] = []

    def note(message: object) -> None:
        record = message.record  # type: ignore[attr-defined]
        if record["message"] == "Stopped task":
            heard.append((record["extra"]["name"], record["extra"]["reason"]))

    sink = logger.add(note, level="INFO")
    yield heard
    logger.remove(sink)


# ---------------------------------------------------------------- tasks


async def test_the_log_says_of_each_task_why_it_stopped(driven: Driven, stopped: list[tuple[str, str]]) -> None:
    """The one that failed, and those that were dismissed for it."""
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, FAILURE)
    await settle_loop()
    assert stopped == [("heartbeat", repr(FAILURE)), ("processor", "dismissed")]
    assert driven.tracker.failures == {Task.HEARTBEAT: FAILURE}
    assert driven.tracker.stats.stale_count == 0


async def test_what_is_thrown_to_a_heartbeat_is_its_failure_even_if_it_looks_like_a_closed_socket(
    driven: Driven,
) -> None:
    """Only its own `Closed` is left to the processor; into a task that is not there nothing is thrown."""
    driven.driver.throw_to(Task.HEARTBEAT, FAILURE)
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, Closed(None, "network"))
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING


async def test_a_beat_that_meets_a_closed_socket_is_in_the_log(driven: Driven, stopped: list[tuple[str, str]]) -> None:
    """What it means is the processor's to say."""
    line = await driven.is_ready()
    line.write_error = Closed(None, "network")
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await settle_loop()
    assert [name for name, _ in stopped] == ["heartbeat"]
    assert driven.tracker.state is State.READY


class Awkward(Line):
    """Its reader, cancelled, does ``at_the_end`` instead of going."""

    def __init__(self, at_the_end: BaseException | list[bytes]) -> None:
        super().__init__()
        self._at_the_end = at_the_end

    async def receive(self) -> list[bytes]:
        try:
            return await super().receive()
        except asyncio.CancelledError:
            if isinstance(self._at_the_end, BaseException):
                raise self._at_the_end from None
            return self._at_the_end


EVENT = b'{"op":0,"t":"A","s":2,"d":{}}'


@pytest.mark.parametrize("at_the_end", [OSError(9, "Bad file descriptor"), [EVENT]])
async def test_what_a_dismissed_reader_still_has_to_say_is_dropped_and_counted(
    drive: Drive, exchange: Exchange, at_the_end: BaseException | list[bytes]
) -> None:
    """Neither a failure nor an event: this connection is given up, and Discord replays what it had."""
    exchange.prepare(Awkward(at_the_end))
    driven = drive()
    await settle_loop()
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, FAILURE)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert driven.tracker.stats.stale_count == 1
    assert driven.tracker.failures == {Task.HEARTBEAT: FAILURE}
    assert [event.type for event in driven.events] == ["READY"]
    after = [step.trigger for step in driven.tracker.transitions if step.source is State.UNHEALTHY]
    assert (after, driven.tracker.stats.unexpected_count) == ([Name.DIAGNOSED], 0), "no report of it reached the driver"


# ---------------------------------------------------------------- the driver's turn


class Scripted(Line):
    """Hands over the batches of its script one after the other, without a turn of the loop in between."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[list[bytes]] = []

    async def receive(self) -> list[bytes]:
        if self.script:
            self.feed(*self.script.pop(0))
        return await super().receive()


async def test_a_session_is_stored_before_the_burst_behind_its_ready_is_read(drive: Drive, exchange: Exchange) -> None:
    """The loop has a turn after each batch that brought news for the driver, and after no other."""
    line = Scripted()
    exchange.prepare(line)
    driven = drive()
    await settle_loop()
    await driven.identifies()
    kept: dict[str, list[Session]] = {}

    def note(event: Event) -> None:
        kept[event.type] = list(driven.kept.sessions)

    driven.reception.watch(note)
    ready = b'{"op":0,"t":"READY","s":1,"d":{"session_id":"s1","resume_gateway_url":"ws://resume.test"}}'
    line.script = [[ready], [EVENT]]
    line.ack()
    await settle_loop()
    assert kept == {"READY": [], "A": [Session("s1", "ws://resume.test")]}


async def test_a_batch_without_news_for_the_driver_costs_no_turn_of_the_loop(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are read as fast as they come."""
    slept: list[float] = []
    sleep = driven.clock.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(driven.clock, "sleep", note)
    driven.line.ack()
    await settle_loop()
    assert slept == []
    line = await driven.is_ready()
    assert slept == [0, 0], "Hello and READY"
    line.feed(EVENT)
    await settle_loop()
    assert slept == [0, 0]


# ---------------------------------------------------------------- writes


async def test_an_identify_that_cannot_be_written_ends_the_connection(driven: Driven) -> None:
    """The socket is not closed, and of no use."""
    driven.line.write_error = OSError(32, "Broken pipe")
    driven.line.hello()
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "Broken pipe" in (driven.tracker.cause or "")
    assert (driven.spent, driven.refunds, driven.tracker.stats.identify_count) == (1, 0, 1)


class Late(Line):
    """A write of it, cancelled, fails."""

    async def send(self, data: bytes) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError(32, "Broken pipe") from None


@pytest.mark.parametrize("line", [Line, Late])
async def test_a_write_that_hangs_is_given_up_with_its_connection(
    drive: Drive, exchange: Exchange, line: type[Line]
) -> None:
    """Without another word."""
    exchange.prepare(line()).writes.clear()
    driven = drive()
    await settle_loop()
    driven.line.hello()
    await settle_loop()
    assert "write-1" in {task.get_name() for task in asyncio.all_tasks()}
    driven.line.lose()
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "write-1" not in {task.get_name() for task in asyncio.all_tasks()}
    assert driven.tracker.stats.unexpected_count == 0


async def commands_at_once(driven: Driven) -> int:
    """How many go out until one is refused."""
    for count in range(200):
        try:
            await driven.driver.sender.outbox.send(COMMAND, PLAIN, timeout=0.0)
        except CommandRateLimited:
            return count
    pytest.fail("no limit")


async def test_what_a_connection_says_for_itself_is_counted_against_its_commands(driven: Driven) -> None:
    """120 in a minute: an IDENTIFY and a hundred beats leave nineteen."""
    line = await driven.is_ready()
    for _ in range(100):
        line.feed({"op": Op.HEARTBEAT, "d": None})
        await settle_loop(10)
        line.ack()
    assert len(line.ops(Op.HEARTBEAT)) == 100
    assert await commands_at_once(driven) == 19


async def test_a_connection_that_beats_often_keeps_more_room_for_its_beats(driven: Driven) -> None:
    """One beat a second: half of the window."""
    driven.line.hello(1_000)
    await settle_loop()
    driven.line.ready()
    await settle_loop()
    assert await commands_at_once(driven) == 60
