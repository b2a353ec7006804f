"""What a driver reports to its tracker, its sender, its publishers and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from discorder.clock import settle_loop
from discorder.errors import CommandRateLimited
from discorder.logs import logger
from discorder.statemachine import Session, ShardMachine, State, Task
from discorder.statemachine.send_window import PLAIN, PRESENCE
from discorder.wire import Op

if TYPE_CHECKING:
    from tests.shard.conftest import Drive, Driven

STORED = Session("stored", "ws://resume.test")
OP_9 = {"op": Op.INVALID_SESSION, "d": False}
COMMAND = b'{"op":31,"d":null}'
HIDDEN = b'{"op":3,"d":{"status":"invisible"}}'


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Return the logged messages, from INFO on."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="INFO")
    yield messages
    logger.remove(sink)


# ---------------------------------------------------------------- the tracker


async def test_the_session_of_an_earlier_process_is_seen_before_the_first_dial(drive: Drive) -> None:
    """Session, sequence and READY come from the store."""
    driven = drive(ShardMachine(session=STORED))
    tracker = driven.tracker
    assert (tracker.state, tracker.session, tracker.seq) == (State.DISCONNECTED, STORED, 7)
    assert tracker.ready is not None
    assert tracker.ready.data == b'{"stored":true}'
    assert tracker.ready.received_at == driven.clock.now()


def session_of(driven: Driven) -> tuple[object, ...]:
    """Return the session that the tracker shows."""
    return driven.tracker.seq, driven.tracker.ready, driven.tracker.session


def connection_of(driven: Driven) -> tuple[object, ...]:
    """Return the connection that the tracker shows."""
    tracker = driven.tracker
    return tracker.websocket, set(tracker.tasks), tracker.failures, tracker.restart_due_at, tracker.pulse


async def test_the_tracker_shows_the_session_that_was_opened_and_forgets_one_that_was_given_up(driven: Driven) -> None:
    """READY is the one that opened the session, with the time of its arrival."""
    assert session_of(driven) == (None, None, None)
    opened_at = driven.clock.now()
    line = await driven.is_ready()
    await driven.clock.advance(2.0)
    assert session_of(driven) == (1, driven.events[0], Session("s1", "ws://resume.test"))
    assert driven.events[0].received_at == opened_at
    assert driven.tracker.ages.last_dispatch == 2.0
    line.feed(OP_9)
    await settle_loop()
    assert session_of(driven) == (None, None, None)
    await driven.dials_again()
    assert driven.tracker.ages.last_dispatch is None, "of another connection"


async def test_the_tracker_shows_one_connection_at_a_time(driven: Driven) -> None:
    """The old connection is no longer shown once the next is dialled. Until then the tracker shows when that will be."""
    await driven.is_ready()
    driven.driver.throw_to(Task.HEARTBEAT, RuntimeError("simulated failure"))
    await settle_loop()
    tracker = driven.tracker
    assert tracker.state is State.RESTARTING
    assert tracker.websocket is driven.exchange.lines[0]
    assert list(tracker.failures) == [Task.HEARTBEAT]
    assert tracker.restart_due_at == driven.clock.now() + timedelta(seconds=driven.clock.next_due() or 0.0)
    assert (driven.clock.next_due() or 0.0) > 0.0
    line = await driven.dials_again()
    assert connection_of(driven) == (line, {Task.MASTER, Task.PROCESSOR, Task.DOCTOR}, {}, None, None)


async def test_every_step_is_told_to_who_watches(driven: Driven) -> None:
    """A step that changes nothing is not reported."""
    assert driven.changes == len(driven.tracker.transitions) == 1
    line = await driven.is_ready()
    assert driven.changes == len(driven.tracker.transitions) == 4
    line.ack()
    await settle_loop()
    assert driven.changes == 4


# ---------------------------------------------------------------- the sender


async def test_commands_go_out_only_while_the_shard_is_ready(driven: Driven) -> None:
    """Commands sent earlier wait, and commands sent after Ready was lost wait for the next session."""
    outbox, may_go = driven.driver.sender.outbox, list[bool]()
    sending = asyncio.ensure_future(outbox.send(COMMAND, PLAIN))
    line = await driven.identifies()
    may_go.append(outbox.is_open)
    line.ready()
    await settle_loop()
    assert sending.done()
    may_go.append(outbox.is_open)
    line.lose()
    await settle_loop()
    may_go.append(outbox.is_open)
    sending = asyncio.ensure_future(outbox.send(COMMAND, PLAIN))
    second = await driven.resumes()
    assert sending.done()
    assert may_go == [False, True, False]
    assert [len(one.ops(Op.REQUEST_SOUNDBOARD_SOUNDS)) for one in (line, second)] == [1, 1]


async def test_the_presence_is_sent_again_in_a_new_session_and_not_in_one_that_goes_on(driven: Driven) -> None:
    """Discord keeps the presence for the life of a session."""
    line = await driven.is_ready()
    await driven.driver.sender.outbox.send(HIDDEN, PRESENCE)
    line.lose()
    second = await driven.resumes()
    assert second.ops(Op.PRESENCE_UPDATE) == []
    second.feed(OP_9)
    await driven.dials_again()
    third = await driven.is_ready()
    assert third.ops(Op.PRESENCE_UPDATE) == [{"status": "invisible"}]


async def commands_at_once(driven: Driven) -> int:
    """Return how many commands are sent before one is refused."""
    count = 0
    while True:
        try:
            await driven.driver.sender.outbox.send(COMMAND, PLAIN, timeout=0.0)
        except CommandRateLimited:
            return count
        count += 1


async def test_after_a_close_for_sending_too_fast_half_as_many_commands_go_out(driven: Driven) -> None:
    """4008 means that our send rate was too high."""
    line = await driven.is_ready()
    before = await commands_at_once(driven)
    line.lose(4008)
    await driven.resumes()
    assert await commands_at_once(driven) == pytest.approx(before / 2, abs=1)


# ---------------------------------------------------------------- publishers


async def test_publishers_that_must_not_lose_hear_of_each_connection(driven: Driven) -> None:
    """A publisher gets what it refused again on the new connection."""
    assert driven.audit.connections == 1
    driven.line.lose()
    await driven.dials_again()
    assert driven.audit.connections == 2


async def test_a_shard_that_waits_for_a_publisher_says_so_once(driven: Driven, told: list[str]) -> None:
    """Later checks are not logged."""
    await driven.is_ready()
    driven.audit.full = True
    driven.delivery.congested("audit")
    await driven.clock.advance(10.0)
    assert driven.tracker.state is State.RESTARTING
    assert driven.tracker.read_holding() == ["audit"]
    assert len(driven.tracker.transitions) > 6
    assert told.count("Sleeping before restart") == 1
    driven.audit.full = False
    await driven.dials_again()
    assert driven.tracker.read_holding() == []


# ---------------------------------------------------------------- a probe


async def test_a_probe_is_missed_after_five_seconds_even_if_the_heartbeat_hangs_in_a_write(driven: Driven) -> None:
    """The doctor counts from the moment of the clock jump, whatever the socket does."""
    line = driven.line
    line.hello(600_000)
    await settle_loop()
    line.ready()
    line.writes.clear()
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await settle_loop()
    driven.driver.probe()
    before = len(driven.tracker.transitions)
    await driven.clock.advance(4.9)
    assert (driven.tracker.state, len(driven.tracker.transitions)) == (State.READY, before)
    await driven.clock.advance(0.2)
    assert len(driven.tracker.transitions) > before
    assert "since the clocks jumped" in (driven.tracker.cause or "")


async def test_a_connection_that_is_given_up_is_not_probed(drive: Drive) -> None:
    """There is no connection before the first dial, and in Restarting the last heartbeat no longer counts."""
    driven = drive()
    driven.driver.probe()
    await settle_loop()
    (await driven.is_ready()).lose()
    await settle_loop()
    driven.driver.probe()
    assert driven.tracker.state is State.RESTARTING
    assert driven.tracker.ages.unanswered_probe is None
