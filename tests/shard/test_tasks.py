"""The tasks and writes of one generation: how each may end, which task reports it, and what is left afterwards."""

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
from tests.harness import Line

if TYPE_CHECKING:
    from tests.harness import Exchange
    from tests.shard.conftest import Drive, Driven

COMMAND = b'{"op":31,"d":null}'
FAILURE = RuntimeError("simulated failure")


@pytest.fixture
def stopped() -> Iterator[list[tuple[str, str]]]:
    """Return the name and reason of each task that is logged as stopped."""
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
    """The log names the failed task and the tasks that were cancelled because of it."""
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, FAILURE)
    await settle_loop()
    assert stopped == [("heartbeat", repr(FAILURE)), ("doctor", "dismissed"), ("processor", "dismissed")]
    assert driven.tracker.failures == {Task.HEARTBEAT: FAILURE}
    assert driven.tracker.stats.stale_count == 0


async def test_what_is_thrown_to_a_heartbeat_is_its_failure_even_if_it_looks_like_a_closed_socket(
    driven: Driven,
) -> None:
    """Only the heartbeat's own `Closed` is left to the processor. A throw to a task that does not exist does nothing."""
    driven.driver.throw_to(Task.HEARTBEAT, FAILURE)
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, Closed(None, "network"))
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING


async def test_a_beat_that_meets_a_closed_socket_is_in_the_log(driven: Driven, stopped: list[tuple[str, str]]) -> None:
    """The processor reports what it means."""
    line = await driven.is_ready()
    line.write_error = Closed(None, "network")
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await settle_loop()
    assert [name for name, _ in stopped] == ["heartbeat"]
    assert driven.tracker.state is State.READY


EVENT = b'{"op":0,"t":"A","s":2,"d":{}}'


class Awkward(Line):
    """A task that is interrupted by something else when its processor is cancelled."""

    def __init__(self, last_words: BaseException | list[bytes]) -> None:
        super().__init__()
        self._last_words = last_words

    async def wait_closed(self) -> None:
        try:
            await super().wait_closed()
        except asyncio.CancelledError:
            if isinstance(self._last_words, BaseException):
                raise self._last_words from None
            self.feed(*self._last_words)
            self.hand_over()
            raise


@pytest.mark.parametrize("last_words", [OSError(9, "Bad file descriptor"), [EVENT]])
async def test_what_comes_from_a_connection_whose_processor_is_dismissed_is_dropped_and_counted(
    drive: Drive, exchange: Exchange, last_words: BaseException | list[bytes]
) -> None:
    """Such a frame is neither a failure nor an event. The connection is ending, and Discord replays its events."""
    exchange.prepare(Awkward(last_words))
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

READY = b'{"op":0,"t":"READY","s":1,"d":{"session_id":"s1","resume_gateway_url":"ws://resume.test"}}'


@pytest.mark.parametrize("together", [True, False])
async def test_a_session_is_stored_before_the_burst_behind_its_ready_is_published(
    driven: Driven, together: bool
) -> None:
    """This holds even if one read brings both. Later frames keep their order."""
    line = await driven.identifies()
    kept: dict[str, list[Session]] = {}

    def note(event: Event) -> None:
        kept[event.type] = list(driven.kept.sessions)

    driven.receiver.watch(note)
    line.feed(READY)
    if not together:
        line.hand_over()
    line.feed(EVENT)
    line.hand_over()
    line.feed(b'{"op":0,"t":"B","s":3,"d":{}}')
    line.hand_over()
    assert list(kept) == ["READY"]
    await settle_loop()
    stored = [Session("s1", "ws://resume.test")]
    assert kept == {"READY": [], "A": stored, "B": stored}
    assert [event.seq for event in driven.events] == [1, 2, 3]


async def test_events_are_published_in_the_call_that_delivers_them(driven: Driven) -> None:
    """If the driver has no trigger to process, a batch takes no turn of the loop."""
    line = await driven.is_ready()
    line.feed(EVENT, b'{"op":11}', b'{"op":0,"t":"B","s":3,"d":{}}')
    line.hand_over()
    assert [event.seq for event in driven.events] == [1, 2, 3]


async def test_the_end_of_a_connection_is_told_after_the_burst_behind_its_ready(driven: Driven) -> None:
    """The server sends READY and an event, and closes."""
    line = await driven.identifies()
    line.feed(READY, EVENT)
    line.lose(4000)
    line.hand_over()
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert [event.seq for event in driven.events] == [1, 2]


async def test_a_breach_behind_ready_is_the_processors_failure(driven: Driven) -> None:
    """It is found after the driver's turn, outside any call of the transport."""
    line = await driven.identifies()
    line.feed(READY, EVENT, b"garbage", b'{"op":0,"t":"B","s":3,"d":{}}')
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert list(driven.tracker.failures) == [Task.PROCESSOR]
    assert [event.seq for event in driven.events] == [1, 2]


async def test_a_burst_behind_ready_is_dropped_where_the_connection_is_given_up_meanwhile(driven: Driven) -> None:
    """Discord replays these events."""
    line = await driven.identifies()
    line.feed(READY, EVENT)
    line.hand_over()
    driven.driver.throw_to(Task.PROCESSOR, FAILURE)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert [event.seq for event in driven.events] == [1]
    assert driven.tracker.stats.stale_count == 1


# ---------------------------------------------------------------- writes


async def test_an_identify_that_cannot_be_written_ends_the_connection(driven: Driven) -> None:
    """The socket is open but unusable."""
    driven.line.write_error = OSError(32, "Broken pipe")
    driven.line.hello()
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "Broken pipe" in (driven.tracker.cause or "")
    assert (driven.spent, driven.refunds, driven.tracker.stats.identify_count) == (1, 0, 1)


class Late(Line):
    """A connection whose write fails when it is cancelled."""

    async def send(self, data: bytes) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError(32, "Broken pipe") from None


@pytest.mark.parametrize("line", [Line, Late])
async def test_a_write_that_hangs_is_given_up_with_its_connection(
    drive: Drive, exchange: Exchange, line: type[Line]
) -> None:
    """Nothing more is logged."""
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
    """Return how many commands are sent before one is refused."""
    for count in range(200):
        try:
            await driven.driver.sender.outbox.send(COMMAND, PLAIN, timeout=0.0)
        except CommandRateLimited:
            return count
    pytest.fail("no limit")


async def test_what_a_connection_says_for_itself_is_counted_against_its_commands(driven: Driven) -> None:
    """The limit is 120 in a minute: an IDENTIFY and a hundred beats leave nineteen."""
    line = await driven.is_ready()
    for _ in range(100):
        line.feed({"op": Op.HEARTBEAT, "d": None})
        await settle_loop(10)
        line.ack()
    assert len(line.ops(Op.HEARTBEAT)) == 100
    assert await commands_at_once(driven) == 19


async def test_a_connection_that_beats_often_keeps_more_room_for_its_beats(driven: Driven) -> None:
    """One beat a second reserves half of the window."""
    driven.line.hello(1_000)
    await settle_loop()
    driven.line.ready()
    await settle_loop()
    assert await commands_at_once(driven) == 60
