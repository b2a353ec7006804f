"""The doctor's periodic checks: clocks that jump, a blocked event loop, and the effect on the verdict."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from discorder import diagnose
from discorder.clock import FakeClock, SystemClock
from discorder.logs import logger
from discorder.runtime.watchdog import LoopLag, Watchdog
from discorder.shard.liveness import LivenessMonitor
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.table import DEADLINES, READY_DEADLINE
from discorder.statemachine.triggers import Timeout, Trigger, Zombie
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Event, Op

if TYPE_CHECKING:
    from tests.harness import Exchange, StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]
Heard = Callable[[], list[str]]


@pytest.fixture
def warnings() -> Iterator[Heard]:
    """Return every warning logged so far, with its fields."""
    heard: list[str] = []
    sink = logger.add(lambda message: heard.append(str(message)), level="WARNING", format="{message} {extra}")
    yield lambda: list(heard)
    logger.remove(sink)


# ---------------------------------------------------------------- deadlines


async def test_a_deadline_that_replaces_one_is_kept_although_the_first_has_just_passed(exchange: Exchange) -> None:
    """A ticket that comes just as its deadline passes still gives READY its 60 s.

    Found by spin: the late timeout is dropped as one of an older visit, and a silent gateway held Identifying forever.
    """
    clock, posted = FakeClock(), list[Trigger]()
    tracker = ShardTracker(0, 1, clock)
    tracker.entered(State.IDENTIFYING)
    doctor = LivenessMonitor(tracker=tracker, clock=clock, post=posted.append)
    task = asyncio.ensure_future(doctor.run())
    doctor.arm(DEADLINES[State.IDENTIFYING], 1)
    await clock.advance(66.0)
    doctor.arm(READY_DEADLINE, 2)
    await clock.advance(59.0)
    assert [timeout.visit for timeout in posted if isinstance(timeout, Timeout)] == [1]
    await clock.advance(2.0)
    assert [timeout.visit for timeout in posted if isinstance(timeout, Timeout)] == [1, 2]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("overtaken", [False, True])
async def test_what_was_due_in_one_state_does_not_blind_the_doctor_in_the_next(
    exchange: Exchange, *, overtaken: bool
) -> None:
    """A dead socket is noticed even if a handshake deadline is still armed, or if RESUMED was processed before its report."""
    clock, posted = FakeClock(), list[Trigger]()
    tracker = ShardTracker(0, 1, clock)
    tracker.entered(State.RESUMING)
    tracker.pulse = Pulse(40.0, clock.monotonic())
    doctor = LivenessMonitor(tracker=tracker, clock=clock, post=posted.append)
    task = asyncio.ensure_future(doctor.run())
    doctor.arm(DEADLINES[State.RESUMING], 1)
    await clock.advance(31.0 if overtaken else 1.0)
    tracker.entered(State.READY)
    doctor.state_entered()
    await clock.advance(50.0)
    assert [type(one) for one in posted] == [Timeout] * overtaken, "the deadline of a state that was left"
    tracker.pulse.sent(clock.monotonic())
    doctor.beating()
    await clock.advance(21.0)
    assert [type(one) for one in posted] == [Timeout] * overtaken + [Zombie], "nothing came for half an interval"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------- clock jumps


async def test_every_live_shard_is_probed_and_one_that_dials_is_not(start_memory_stage: StartMemoryStage) -> None:
    """Connecting has no heartbeat and is covered by its deadline."""
    stage = start_memory_stage()
    line = await stage.line()
    await stage.in_state(State.CONNECTING)
    stage.fake.jump_wall(600.0)
    await stage.fake.advance(2.0)
    assert line.sent == []
    line.hello(600_000)
    await stage.until(lambda: line.ops(Op.IDENTIFY))
    stage.fake.jump_wall(600.0)
    await stage.until(lambda: line.ops(Op.HEARTBEAT), within=1.5)
    await stage.until(lambda: stage.tracker.state is not State.IDENTIFYING, within=5.5)
    assert "since the clocks jumped" in str(stage.tracker.shards[0].cause)


# ---------------------------------------------------------------- the loop


async def until(predicate: Callable[[], object]) -> None:
    """Let the loop run until ``predicate()``, for at most five seconds."""
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110  # what is waited for happens in a thread
            await asyncio.sleep(0.002)


def a_guilty_function(until_set: threading.Event) -> None:
    """Block the loop until the watchdog has seen it."""
    until_set.wait(10.0)


def release_when(predicate: Callable[[], bool], event: threading.Event) -> None:
    """Set ``event`` once ``predicate`` holds, or after ten seconds."""
    end = time.monotonic() + 10.0
    while not predicate() and time.monotonic() < end:
        time.sleep(0.002)
    event.set()


async def test_what_holds_up_the_loop_is_in_the_log_with_its_place(warnings: Heard) -> None:
    """The stack is taken during the delay, so that the blocking function is on it. The whole delay is logged afterwards."""

    def guilty() -> list[str]:
        return [warning for warning in warnings() if "in a_guilty_function: until_set.wait(10.0)" in warning]

    watchdog = Watchdog(every=0.005, late_after=0.02)
    watchdog.start()
    try:
        for _ in range(20):  # on a busy machine the loop may be late already, and the watchdog may have asked before
            seen = threading.Event()
            threading.Thread(target=release_when, args=(lambda: guilty() != [], seen)).start()
            a_guilty_function(seen)
            await until(lambda: watchdog.lag.waiting == 0.0)
            if guilty():
                break
    finally:
        watchdog.stop()
    (held_up,) = guilty()
    assert held_up.startswith("The event loop is held up")
    assert "test_liveness.py:" in held_up
    assert "asyncio/base_events.py" not in held_up, "the loop's own machinery is no news"
    over = warnings()[warnings().index(held_up) + 1]
    assert over.startswith("The event loop was held up")
    assert watchdog.lag.worst >= 0.02


async def test_the_lag_of_a_loop_that_does_not_come_round_can_be_read_from_another_thread() -> None:
    """The lag is the age of the unanswered ping, and grows while the loop is blocked."""
    watchdog = Watchdog(every=0.005, late_after=5.0)
    assert watchdog.lag == LoopLag()
    watchdog.start()
    ages: list[float] = []

    def look(done: threading.Event) -> None:
        release_when(lambda: watchdog.lag.waiting > 0.03, done)
        ages.append(watchdog.lag.now)

    try:
        done = threading.Event()
        thread = threading.Thread(target=look, args=(done,))
        thread.start()
        done.wait(5.0)
        thread.join()
    finally:
        watchdog.stop()
    assert ages[0] > 0.03
    assert watchdog.lag.worst >= watchdog.lag.last


async def test_the_watchdogs_thread_is_gone_when_it_is_stopped() -> None:
    """The thread ends even while a ping is unanswered. A second stop does nothing."""
    watchdog = Watchdog(every=0.001, late_after=0.001)
    watchdog.start()
    time.sleep(0.02)  # noqa: ASYNC251  # the loop is held up on purpose
    watchdog.stop()
    watchdog.stop()
    assert "discorder-watchdog" not in {thread.name for thread in threading.enumerate()}


async def test_a_stop_that_falls_between_two_questions_is_not_forgotten() -> None:
    """The thread is about to ping: it must not wait for an answer of the loop, because the loop waits for the thread."""
    asks, stopped = threading.Event(), threading.Event()

    class Overtaken(threading.Event):
        """An event that is cleared only after the stop has set it."""

        def clear(self) -> None:
            asks.set()
            stopped.wait(5.0)
            super().clear()

        def set(self) -> None:
            super().set()
            stopped.set()

    watchdog = Watchdog(every=0.001, late_after=0.001)
    watchdog._ran = Overtaken()  # noqa: SLF001  # the moment between its two looks is reachable no other way
    watchdog.start()
    assert asks.wait(5.0)
    stopper = threading.Thread(target=watchdog.stop)
    stopper.start()
    stopper.join(5.0)  # the loop is blocked meanwhile, as by a stop of its own
    assert not stopper.is_alive()


async def test_a_plane_watches_its_loop_and_shows_the_lag(sim: Simulator, start_stage: StartStage) -> None:
    """`tracker.loop_lag` and the ages of the verdict show it. The thread ends with the plane."""
    stage = start_stage(sim, clock=SystemClock())
    tracker = await stage.ready()
    assert any(thread.name == "discorder-watchdog" for thread in threading.enumerate())
    assert isinstance(tracker.loop_lag, LoopLag)
    assert diagnose(tracker).ages.loop_lag == pytest.approx(tracker.loop_lag.now, abs=1.0)
    await stage.stop()
    assert not any(thread.name == "discorder-watchdog" for thread in threading.enumerate())


# ---------------------------------------------------------------- how delivery affects the verdict


class Refusing:
    """A durable publisher that is down."""

    name = "audit"
    durable = True

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        raise OSError(28, "No space left on device")

    async def close(self) -> None: ...


async def test_a_required_publisher_that_takes_nothing_is_a_note_and_no_fault_of_the_session(
    start_memory_stage: StartMemoryStage,
) -> None:
    """The session goes on. The note says that the resume point does not move."""
    stage = start_memory_stage()
    await stage.identified(600_000)
    stage.tracker.add_publisher(Refusing(), required=True)
    stage.exchange.lines[0].feed(stage.exchange.lines[0].dispatched("MESSAGE_CREATE"))
    await stage.fake.advance(9.0)
    assert diagnose(stage.tracker).notes == ()
    await stage.fake.advance(3.0)
    verdict = diagnose(stage.tracker)
    assert verdict.healthy
    (note,) = verdict.notes
    assert note.startswith("publisher audit (retrying) has not accepted an event for 12 s, last error: OSError: ")
    assert note.endswith("it is required, so the resume point waits for it")


async def test_a_best_effort_publisher_that_is_parked_is_a_note(start_memory_stage: StartMemoryStage) -> None:
    """The session is healthy; the note says that events are dropped, why, and what to do."""
    stage = start_memory_stage()
    await stage.identified(600_000)
    stage.tracker.add_publisher(Refusing())
    stage.exchange.lines[0].feed(stage.exchange.lines[0].dispatched("MESSAGE_CREATE"))
    await stage.fake.advance(40.0)
    verdict = diagnose(stage.tracker)
    assert verdict.healthy
    (note,) = verdict.notes
    assert note.startswith("publisher audit is parked, last error: OSError: ")


def test_a_shard_that_waits_for_a_congested_publisher_says_for_which_and_how_long() -> None:
    """Restarting is not a back-off here: Discord's replay buffer keeps the events meanwhile."""
    shard = ShardTracker(0, 1, FakeClock())
    shard.entered(State.RESTARTING)
    shard.cause = "a publisher that must not lose is full: audit"
    shard.read_holding = lambda: ["audit"]
    (reason,) = shard.diagnose().reasons
    assert reason.endswith(
        "is full: audit; reconnects when audit has room again, at the latest after its hold_off; Discord keeps the events"
    )


async def test_a_ticker_that_breaks_ends_the_plane_and_says_why(
    start_memory_stage: StartMemoryStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the ticker there are no checkpoints and no clock-jump checks, so its failure must not be silent."""
    stage = start_memory_stage()
    await stage.identified()

    def break_once() -> datetime:
        monkeypatch.undo()
        raise OSError(22, "no such clock")

    monkeypatch.setattr(stage.fake, "now", break_once)
    assert str(await stage.end()) == "[Errno 22] no such clock"
