"""How a driver ends: what `run` raises or returns, which callers are notified, and that nothing is leaked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

from discorder.clock import settle_loop
from discorder.errors import AttemptsExhausted, Closed, FatalCloseError, ShardNotReady
from discorder.statemachine import Session, ShardMachine, State, Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.life_cycle import LIFE_CYCLE
from discorder.statemachine.send_window import PLAIN
from discorder.wire import Op
from tests.harness import Line

if TYPE_CHECKING:
    from tests.harness import Exchange
    from tests.shard.conftest import Drive, Driven

STORED = Session("stored", "ws://resume.test")
OP_9 = {"op": Op.INVALID_SESSION, "d": False}


# ---------------------------------------------------------------- what it raises


async def test_after_the_last_attempt_the_number_of_them_and_the_last_failure_are_raised(drive: Drive) -> None:
    """The failure is the ``__cause__`` of the raised exception, so that a traceback shows both."""
    driven = drive(ShardMachine(max_attempts=2))
    await settle_loop()
    driven.line.lose(4000)
    (await driven.dials_again()).lose(4001)
    error = await driven.ends()
    assert isinstance(error, AttemptsExhausted)
    assert error.attempts == 2
    assert isinstance(error.__cause__, Closed)
    assert error.__cause__.code == 4001


async def test_under_fail_on_error_the_failure_itself_is_raised(drive: Drive) -> None:
    """Under fail_on_error the caller gets the failure, not a count of attempts."""
    driven = drive(ShardMachine(fail_on_error=True, max_attempts=1))
    await settle_loop()
    driven.line.lose(4000)
    assert isinstance(await driven.ends(), Closed)


async def test_a_fatal_close_is_raised_as_such(driven: Driven) -> None:
    """Raise it even if attempts are left."""
    driven.line.lose(4004)
    error = await driven.ends()
    assert isinstance(error, FatalCloseError)
    assert error.code == 4004


# ---------------------------------------------------------------- a stop


async def test_a_stop_before_the_first_dial_is_over_at_once(drive: Drive) -> None:
    """There is no connection to close and nothing to wait for."""
    driven = drive()
    driven.driver.stop(goodbye=False)
    await settle_loop()
    assert driven.task.done()
    assert driven.exchange.lines == []


async def test_a_stop_without_a_connection_closes_nothing(driven: Driven) -> None:
    """In Restarting the old socket is closed already."""
    driven.line.lose()
    await settle_loop()
    driven.driver.stop(goodbye=False)
    await settle_loop()
    assert driven.task.done()
    assert driven.exchange.lines[0].close_codes == []


async def test_a_peer_that_does_not_answer_the_close_of_a_stop_is_dropped_after_a_quarter_of_a_second(
    driven: Driven,
) -> None:
    """The state's own deadline, half a second, is for a socket whose close ignores its cancellation."""
    line = await driven.is_ready()
    line.answers_close = False
    driven.driver.stop(goodbye=False)
    await driven.clock.advance(0.2)
    assert (driven.task.done(), line.aborted) == (False, False)
    await driven.clock.advance(0.1)
    assert (driven.task.done(), line.aborted) == (True, True)


class Deaf(Line):
    """A connection whose ``close`` ignores the first cancellation."""

    async def close(self, code: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()


async def test_a_close_that_hangs_and_ignores_its_cancellation_does_not_spoil_a_stop(
    drive: Drive, exchange: Exchange
) -> None:
    """`run` returns after half a second, the deadline of Stopping."""
    exchange.prepare(Deaf())
    driven = drive()
    await settle_loop()
    driven.driver.stop(goodbye=False)
    assert await driven.ends() is None
    assert driven.line.aborted


async def test_a_stop_is_seen_in_the_tracker_as_soon_as_it_is_asked_for(driven: Driven) -> None:
    """Discorder.jl's ``terminate_flag``."""
    assert not driven.tracker.terminate_flag
    driven.driver.stop(goodbye=False)
    assert driven.tracker.terminate_flag


# ---------------------------------------------------------------- the end of a connection


async def test_a_connection_that_has_failed_is_closed_with_a_code_that_keeps_the_session(driven: Driven) -> None:
    """The verdict follows. A socket that the peer has closed is not closed again."""
    line = await driven.is_ready()
    driven.driver.throw_to(Task.PROCESSOR, RuntimeError("simulated failure"))
    await settle_loop()
    assert (line.close_codes, line.aborted) == ([4000], False)
    assert driven.tracker.state is State.RESTARTING
    line = await driven.dials_again()
    line.lose()
    await settle_loop()
    assert (line.close_codes, driven.tracker.state) == ([], State.RESTARTING)


class Unclosable(Line):
    """A socket whose close raises."""

    async def close(self, code: int) -> None:
        raise OSError(9, "Bad file descriptor")


async def test_a_socket_that_cannot_be_closed_is_dropped_and_the_verdict_follows_at_once(
    drive: Drive, exchange: Exchange
) -> None:
    """The driver does not wait for the deadline of Unhealthy."""
    exchange.prepare(Unclosable())
    driven = drive()
    await settle_loop()
    line = await driven.is_ready()
    driven.driver.throw_to(Task.PROCESSOR, RuntimeError("simulated failure"))
    await settle_loop()
    assert line.aborted
    assert driven.tracker.state is State.RESTARTING


async def test_a_close_that_ignores_its_time_limit_is_dropped_by_the_deadline(drive: Drive, exchange: Exchange) -> None:
    """The limit is six seconds. When the old close ends later, the next connection is not affected."""
    exchange.prepare(Deaf())
    driven = drive()
    await settle_loop()
    line = await driven.is_ready()
    driven.driver.throw_to(Task.PROCESSOR, RuntimeError("simulated failure"))
    await driven.clock.advance(5.9)
    assert (driven.tracker.state, line.aborted) == (State.UNHEALTHY, False)
    await driven.clock.advance(0.2)
    assert (driven.tracker.state, line.aborted) == (State.RESTARTING, True)


# ---------------------------------------------------------------- notifications


async def test_who_waits_with_a_command_is_told_that_the_shard_has_ended(driven: Driven) -> None:
    """Without this the caller would wait forever."""
    command = asyncio.ensure_future(driven.driver.sender.outbox.send(b"{}", PLAIN))
    await settle_loop()
    driven.driver.stop(goodbye=False)
    await settle_loop()
    with pytest.raises(ShardNotReady, match="has ended"):
        await command


async def test_a_session_that_is_lost_and_followed_by_none_is_told_of_at_the_end(drive: Drive) -> None:
    """Publish one gap without an end; the session persistence may then write what is left."""
    driven = drive(ShardMachine(session=STORED))
    await settle_loop()
    driven.line.hello()
    await settle_loop()
    driven.line.feed(OP_9)
    await settle_loop()
    assert [record for record in driven.audit.records if record.type == "DISCORDER_GAP"] == []
    assert driven.kept.finished == 0
    driven.driver.stop(goodbye=False)
    await settle_loop()
    (gap,) = [msgspec.json.decode(one.data) for one in driven.audit.records if one.type == "DISCORDER_GAP"]
    assert (gap["from_seq"], gap["end"]) == (8, None)
    assert driven.kept.finished == 1


# ---------------------------------------------------------------- nothing is left


async def in_connecting(driven: Driven) -> None:
    """Three tasks, and the timers of the doctor and the dial."""
    driven.exchange.lines[0].accepts.clear()


async def in_identifying(driven: Driven) -> None:
    """The gate delays the request."""
    driven.admits.clear()
    driven.line.hello()


async def in_ready(driven: Driven) -> None:
    """A command cannot be written."""
    line = await driven.is_ready()
    line.writes.clear()
    driven.driver.sender.outbox.open(line.send, lambda _: None, new_session=False)


async def in_restarting(driven: Driven) -> None:
    """The back-off timer runs."""
    driven.line.lose()


async def in_stopping(driven: Driven) -> None:
    """The peer does not answer the close."""
    driven.line.answers_close = False
    driven.driver.stop(goodbye=False)


@pytest.mark.parametrize("somewhere", [in_connecting, in_identifying, in_ready, in_restarting, in_stopping])
async def test_a_driver_that_is_cancelled_leaves_nothing_behind(
    drive: Drive, somewhere: Callable[[Driven], Awaitable[None]]
) -> None:
    """No task, socket or timer is left, no request in the gate's queue, and no model on the shared machine."""
    before = asyncio.all_tasks()
    driven = drive()
    await settle_loop()
    await somewhere(driven)
    await settle_loop()
    driven.task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await driven.task
    assert asyncio.all_tasks() == before
    assert driven.exchange.lines[0].closed
    assert driven.clock.next_due() is None
    assert driven.waiting == 0
    assert driven.machine not in LIFE_CYCLE.models
    assert not driven.driver.sender.outbox.is_open


class Stubborn(Line):
    """A connection whose ``wait_closed``, once cancelled, ends only when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.lets_go = asyncio.Event()

    async def wait_closed(self) -> None:
        try:
            await super().wait_closed()
        except asyncio.CancelledError:
            await self.lets_go.wait()
            raise


async def test_the_gate_is_not_kept_waiting_by_a_task_that_does_not_end(drive: Drive, exchange: Exchange) -> None:
    """On cancellation, withdraw the request first and wait for the tasks afterwards."""
    line = Stubborn()
    exchange.prepare(line)
    driven = drive()
    await settle_loop()
    driven.admits.clear()
    line.hello()
    await settle_loop()
    assert driven.waiting == 1
    driven.task.cancel()
    await settle_loop()
    assert (driven.waiting, driven.task.done()) == (0, False)
    line.lets_go.set()
    await settle_loop()
    assert driven.task.cancelled()
    assert driven.tracker.state is State.IDENTIFYING


async def test_a_session_that_is_stored_is_not_told_of_as_lost_by_a_stop(drive: Drive) -> None:
    """The next process resumes it."""
    driven = drive(ShardMachine(session=STORED))
    await settle_loop()
    driven.driver.post(trigger.Stop(goodbye=False))
    await settle_loop()
    assert [record.type for record in driven.audit.records if record.type == "DISCORDER_GAP"] == []
