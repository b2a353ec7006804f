"""Any exception of a publisher, from any call, is retried and shown in its health, and affects no other publisher."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import PublisherError
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherHealth, PublisherState
from discorder.publishers.delivery.isolation import MAX_ERROR_TEXT
from discorder.publishers.options import EventSelection
from discorder.wire import Event

MakeEvent = Callable[..., Event]


class Panic(BaseException):
    """An exception that is no `Exception`, such as the one that a Rust extension raises when it panics."""


class Mute(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        msg = "not even this"
        raise Panic(msg)


RAISED = [
    Panic("called `Option::unwrap()` on a `None` value"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
    StopIteration(1),
    StopAsyncIteration(),
    BaseExceptionGroup("several", [Panic("a"), SystemExit(1)]),
    Mute(),
    TimeoutError(),
    MemoryError(),
]
each_error = pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
each_kind = pytest.mark.parametrize("required", [False, True], ids=["best effort", "required"])


class Sink:
    """Raises ``error`` in the calls named in ``failing``, at most ``times`` times, and keeps what it accepted."""

    durable = True

    def __init__(self, error: BaseException, *failing: str, times: int = 1, name: str = "rusty") -> None:
        self.name = name
        self.error = error
        self.failing = failing
        self.left = times
        self.calls: list[str] = []
        self.taken: list[int | None] = []

    def fail(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing and self.left:
            self.left -= 1
            raise self.error

    async def open(self) -> None:
        self.fail("open")

    async def publish(self, events: Sequence[Event]) -> None:
        self.fail("publish")
        self.taken += [event.seq for event in events]

    async def close(self) -> None:
        self.fail("close")


class InLine(Sink):
    """A publisher with `publish_nowait`."""

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.fail("publish_nowait")
        self.taken += [event.seq for event in events]
        return len(events)


class Buffering(Sink):
    """A publisher with a buffer of its own whose counters fail."""

    @property
    def dropped(self) -> int:
        self.fail("dropped")
        return 4

    @property
    def gaps(self) -> int:
        return 2


class Answering(Sink):
    """A publisher that answers requests of its readers."""

    def answer_from(self, bus_api: object) -> None: ...

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        self.fail("goes_on")


def health_of(fan_out: FanOut, name: str = "rusty") -> PublisherHealth:
    return next(health for health in fan_out.health if health.name == name)


async def hand_over_each(fan_out: FanOut, clock: FakeClock, events: Sequence[Event]) -> None:
    for event in events:
        fan_out.shard(0).hand_over([event])
        await clock.advance(0.1)


@each_kind
@each_error
async def test_what_publish_raises_once_costs_no_event(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException, *, required: bool
) -> None:
    sink, other = Sink(error, "publish"), Sink(error, name="other")
    fan_out.add(sink, DeliveryOptions(required=required))
    fan_out.add(other)
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(seq) for seq in range(1, 21)])
    await clock.advance(5.0)
    health = health_of(fan_out)
    assert sink.taken == other.taken == list(range(1, 21))
    assert (health.state, health.failures, health.accepted, health.dropped) == (PublisherState.HEALTHY, 1, 20, 0)
    assert health.last_error
    assert (health_of(fan_out, "other").failures, health_of(fan_out, "other").last_error) == (0, "")


@each_error
async def test_what_publish_keeps_raising_is_retried_shown_and_parked(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    fan_out.add(Sink(error, "publish", times=10_000), DeliveryOptions(give_up_after=10))
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1)])
    assert health_of(fan_out).state is PublisherState.RETRYING
    await clock.advance(20.0)
    health = health_of(fan_out)
    assert (health.state, health.dropped) == (PublisherState.PARKED, 1)
    assert health.failures > 3


@each_error
async def test_what_publish_nowait_raises_leaves_the_caller_alone(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    sink = InLine(error, "publish_nowait", times=3)
    fan_out.add(sink)
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(seq) for seq in range(1, 21)])
    await clock.advance(5.0)
    health = health_of(fan_out)
    assert sink.taken == list(range(1, 21))
    assert (health.state, health.failures, health.dropped) == (PublisherState.HEALTHY, 3, 0)


@pytest.mark.parametrize("count", [None, 0.5, "1", -1, 2, float("nan"), []], ids=repr)
async def test_a_count_that_is_none_leaves_the_caller_alone(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, count: object
) -> None:
    class Miscounting(InLine):
        def publish_nowait(self, events: Sequence[Event]) -> int:
            return count  # type: ignore[return-value]  # what the test is about

    sink = Miscounting(Panic())
    fan_out.add(sink)
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1)])
    assert sink.taken == [1], "it is offered to publish instead"
    assert health_of(fan_out).failures == 1


@each_kind
async def test_one_that_changes_its_batch_changes_no_account(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, *, required: bool
) -> None:
    """If it emptied a list, the events would be neither accepted nor dropped, and the resume point would never move."""

    class Emptying(Sink):
        async def publish(self, events: Sequence[Event]) -> None:
            await super().publish(events)
            if isinstance(events, list):
                events.clear()

    class EmptyingInLine(InLine):
        def publish_nowait(self, events: Sequence[Event]) -> int:
            count = super().publish_nowait(events)
            if isinstance(events, list):
                events.clear()
            return count

    events = EventSelection(exclude=("TYPING_*",))
    fan_out.add(Emptying(Panic()), DeliveryOptions(required=required, events=events))
    fan_out.add(EmptyingInLine(Panic(), name="in line"), DeliveryOptions(events=events))
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1, kind="TYPING_START"), make_event(2), make_event(3)])
    await clock.advance(1.0)
    assert [health.accepted for health in fan_out.health] == [2, 2]
    assert fan_out.shard(0).delivered("0123456789abcdef") == 3


@each_error
async def test_what_open_raises_at_run_time_is_retried(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    await fan_out.open()
    sink = Sink(error, "open", times=2)
    fan_out.add(sink)
    fan_out.shard(0).hand_over([make_event(1)])
    await clock.advance(10.0)
    health = health_of(fan_out)
    assert (sink.taken, health.state, health.failures) == ([1], PublisherState.HEALTHY, 2)


@each_error
async def test_what_open_raises_at_the_start_names_the_publisher(clock: FakeClock, error: BaseException) -> None:
    fan_out = FanOut(clock)
    first = Sink(error, name="first")
    fan_out.add(first)
    fan_out.add(Sink(error, "open"))
    with pytest.raises(PublisherError, match="publisher rusty"):
        await fan_out.open()
    assert first.calls == ["open", "close"]
    assert len(asyncio.all_tasks()) == 1


@each_error
async def test_what_close_raises_is_logged(
    clock: FakeClock, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    fan_out = FanOut(clock)
    other = Sink(error, name="other")
    fan_out.add(Sink(error, "close"))
    fan_out.add(other)
    await fan_out.open()
    await fan_out.close()
    assert other.calls == ["open", "close"]
    assert "Publisher rusty failed to close: " in caplog.text
    assert len(asyncio.all_tasks()) == 1


@each_error
async def test_a_buffer_that_cannot_say_what_it_dropped_breaks_nobodys_health(
    fan_out: FanOut, error: BaseException
) -> None:
    fan_out.add(Buffering(error, "dropped"))
    fan_out.add(Sink(error, name="other"))
    await fan_out.open()
    first, _ = fan_out.health
    assert (first.dropped, first.gaps) == (0, 0)
    assert first.last_error
    assert (health_of(fan_out).dropped, health_of(fan_out).gaps, fan_out.dropped) == (4, 2, 4)


@each_error
async def test_one_that_cannot_take_the_news_of_an_old_session_stops_no_shard(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    sink = Answering(error, "goes_on")
    fan_out.add(sink)
    await fan_out.open()
    fan_out.shard(0).adopt((0, 1), "0123456789abcdef", 5, clock.now())
    assert health_of(fan_out).failures == 1
    await hand_over_each(fan_out, clock, [make_event(6)])
    assert (sink.taken, health_of(fan_out).state) == ([6], PublisherState.HEALTHY)


# ---------------------------------------------------------------- the delivery task


class SelfCancelling(Sink):
    """Cancels the task that calls it, ``times`` times; then it waits, or accepts the events nevertheless."""

    def __init__(self, *, times: int, waits: bool) -> None:
        super().__init__(Panic(), times=times)
        self._waits = waits

    async def publish(self, events: Sequence[Event]) -> None:
        if self.left:
            self.left -= 1
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if self._waits:
                await asyncio.sleep(0)
        await super().publish(events)


@pytest.mark.parametrize("then", ["waits", "accepts"])
@each_kind
async def test_one_that_cancels_its_delivery_task_is_started_again_with_what_was_in_hand(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, then: str, *, required: bool
) -> None:
    sink = SelfCancelling(times=2, waits=then == "waits")
    fan_out.add(sink, DeliveryOptions(required=required))
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(seq) for seq in range(1, 6)])
    await clock.advance(5.0)
    fan_out.shard(0).hand_over([make_event(6)])
    await clock.advance(1.0)
    health = health_of(fan_out)
    assert sink.taken == [1, 2, 3, 4, 5, 6]
    assert (health.state, health.failures, health.in_flight) == (PublisherState.HEALTHY, 2, 0)
    assert health.last_error == "PublisherError: publisher rusty cancelled itself"


async def test_one_that_cancels_its_delivery_task_each_time_is_parked_and_probed(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    sink = SelfCancelling(times=10_000, waits=True)
    fan_out.add(sink, DeliveryOptions(give_up_after=10))
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1)])
    await clock.advance(15.0)
    assert (health_of(fan_out).state, health_of(fan_out).dropped) == (PublisherState.PARKED, 1)
    await clock.advance(40.0)
    assert health_of(fan_out).state is PublisherState.PARKED, "the probe ended the task as well"
    sink.left = 0
    await clock.advance(40.0)
    assert (health_of(fan_out).state, sink.taken) == (PublisherState.HEALTHY, [None])


async def test_a_delivery_task_that_somebody_else_cancels_while_it_waits_goes_on(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    sink = Sink(Panic())
    fan_out.add(sink)
    await fan_out.open()
    await settle_loop()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "publisher rusty")
    task.cancel()
    await hand_over_each(fan_out, clock, [make_event(1)])
    assert (health_of(fan_out).state, health_of(fan_out).failures) == (PublisherState.RETRYING, 1)
    await clock.advance(1.0)
    assert (sink.taken, health_of(fan_out).state) == ([1], PublisherState.HEALTHY)


@each_error
async def test_one_that_answers_its_cancellation_with_an_error_is_not_called_after_the_end(
    clock: FakeClock, make_event: MakeEvent, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Sulking(Sink):
        async def publish(self, events: Sequence[Event]) -> None:
            self.calls.append("publish")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise self.error from None

    sink = Sulking(error)
    fan_out = FanOut(clock)
    fan_out.add(sink)
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1)])
    await fan_out.close()
    await clock.advance(60.0)
    assert sink.calls == ["open", "publish", "close"]
    assert len(asyncio.all_tasks()) == 1
    assert "ignores its cancellation" not in caplog.text


async def test_one_that_takes_its_cancellation_for_success_is_not_called_after_the_end(
    clock: FakeClock, make_event: MakeEvent
) -> None:
    class Deaf(Sink):
        async def publish(self, events: Sequence[Event]) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await super().publish(events)

    fan_out = FanOut(clock)
    sink = Deaf(Panic())
    fan_out.add(sink)
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1), make_event(2)])
    await fan_out.close()
    await settle_loop()
    assert sink.taken == [1]
    assert len(asyncio.all_tasks()) == 1


async def test_an_open_that_ignores_its_cancellation_is_not_called_twice_at_a_time(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    class Stubborn(Sink):
        async def open(self) -> None:
            self.calls.append("open")
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

    released = asyncio.Event()
    await fan_out.open()
    sink = Stubborn(Panic())
    fan_out.add(sink, DeliveryOptions(give_up_after=5))
    fan_out.shard(0).hand_over([make_event(1)])
    await clock.advance(60.0)
    assert sink.calls == ["open"]
    assert health_of(fan_out).last_error == "PublisherError: publisher rusty did not open within 5 s"
    released.set()
    await clock.advance(60.0)
    assert sink.taken == [1]
    assert sink.calls == ["open", "publish"]


async def test_an_error_as_long_as_a_page_is_shown_in_one_bounded_line(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fan_out.add(Sink(ValueError("<html>\n" + "x" * 1_000_000), "publish"))
    await fan_out.open()
    await hand_over_each(fan_out, clock, [make_event(1)])
    text = health_of(fan_out).last_error
    assert text.startswith("ValueError: <html> xxx")
    assert text.endswith("(1,000,007 characters)")
    assert len(text) < MAX_ERROR_TEXT + 100
    assert len(caplog.text) < 1_000


# ---------------------------------------------------------------- tasks of its own


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def in_a_group(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(error))
        group.create_task(asyncio.sleep(0.001))


HELPERS = {
    "gather": lambda error: asyncio.gather(fail(error), asyncio.sleep(0)),
    "wait_for": lambda error: asyncio.wait_for(fail(error), 5),
    "group": in_a_group,
    "task of a task": lambda error: asyncio.create_task(in_a_group(error)),
}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Panic("none")], ids=repr)
@pytest.mark.parametrize("helper", HELPERS.values(), ids=HELPERS.keys())
async def test_what_its_own_tasks_raise_ends_no_loop(
    fan_out: FanOut,
    clock: FakeClock,
    make_event: MakeEvent,
    helper: Callable[[BaseException], Awaitable[object]],
    error: BaseException,
) -> None:
    class Grouping(Sink):
        async def publish(self, events: Sequence[Event]) -> None:
            if self.left:
                self.left -= 1
                await helper(self.error)
            await super().publish(events)

    sink = Grouping(error)
    fan_out.add(sink)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    await asyncio.sleep(0.01)
    await clock.advance(5.0)
    assert (sink.taken, health_of(fan_out).failures) == ([1], 1)


async def test_a_task_that_publish_nowait_starts_ends_no_loop(fan_out: FanOut, make_event: MakeEvent) -> None:
    class FireAndForget(Sink):
        def publish_nowait(self, events: Sequence[Event]) -> int:
            tasks.append(asyncio.create_task(fail(self.error), name="sending"))
            return len(events)

    tasks: list[asyncio.Task[None]] = []
    fan_out.add(FireAndForget(SystemExit(3)))
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    (outcome,) = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcome, PublisherError)
    assert str(outcome) == "publisher rusty raised SystemExit: 3"
    assert tasks[0].get_name() == "sending"


async def test_tasks_of_others_and_what_a_task_returns_are_as_they_were(fan_out: FanOut, make_event: MakeEvent) -> None:
    class Asking(Sink):
        async def publish(self, events: Sequence[Event]) -> None:
            task = asyncio.create_task(answer(5))
            cancelled = asyncio.create_task(answer(6))
            cancelled.cancel()
            self.taken.append(await task)
            await asyncio.wait({cancelled})
            assert cancelled.cancelled()
            finished.set()

    async def answer(number: int) -> int:
        async with asyncio.timeout(60):
            await asyncio.sleep(0.001)
        return number

    sink, finished = Asking(Panic()), asyncio.Event()
    loop = asyncio.get_running_loop()
    made: list[object] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)
    fan_out.add(sink)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    await asyncio.wait_for(finished.wait(), 10)
    assert loop.get_task_factory() is factory, "it is the caller's loop"
    assert (sink.taken, health_of(fan_out).failures) == ([5], 0)
    assert len(made) >= 2
    loop.set_task_factory(None)
