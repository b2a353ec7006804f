"""The fan-out: order, bounds, policies, isolation, retries, parking, and publishers that come and go. Time is the test's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import ConfigError, NotRunning, PublisherError
from discorder.publishers.channel import ChannelEventPublisher
from discorder.publishers.fanout import DeliveryOptions, FanOut, PublisherHealth, PublisherState
from discorder.publishers.options import EventSelection, Overflow
from discorder.wire import Event

MakeEvent = Callable[..., Event]


class Recorder:
    """Waits for nothing, remembers everything, and fails as long as it is told to."""

    durable = False

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.everything: list[Event] = []
        self.batches: list[int] = []
        self.opened = self.closed = 0
        self.failing: BaseException | None = None
        self.refusing_to_open: Exception | None = None

    async def open(self) -> None:
        if self.refusing_to_open:
            raise self.refusing_to_open
        self.opened += 1

    async def publish(self, events: Sequence[Event]) -> None:
        self.batches.append(len(events))
        if self.failing:
            raise self.failing
        self.everything.extend(events)

    @property
    def seqs(self) -> list[int | None]:
        """Of what was accepted; None for a record."""
        return [event.seq for event in self.everything]

    async def close(self) -> None:
        self.closed += 1


class Hanging(Recorder):
    """Its publish returns only once it is released."""

    def __init__(self, name: str = "hanging") -> None:
        super().__init__(name)
        self.released = asyncio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        await self.released.wait()
        await super().publish(events)


class Unkillable(Recorder):
    """Ignores its cancellation, both in publish and in close."""

    async def publish(self, events: Sequence[Event]) -> None:
        await ignore_cancellation(0.03)

    async def close(self) -> None:
        await ignore_cancellation(0.03)


class InLine(Recorder):
    """May be called in line."""

    def publish_nowait(self, events: Sequence[Event]) -> int:
        if self.failing:
            raise self.failing
        self.everything.extend(events)
        return len(events)


async def ignore_cancellation(seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            continue


def health_of(fan_out: FanOut, name: str) -> PublisherHealth:
    return next(health for health in fan_out.health if health.name == name)


async def test_every_publisher_gets_every_event_in_order(fan_out: FanOut, make_event: MakeEvent) -> None:
    waiting, in_line = Recorder("waiting"), InLine("in line")
    fan_out.add(waiting)
    fan_out.add(in_line)
    await fan_out.open()
    for start in range(1, 1000, 9):
        fan_out.hand_over([make_event(seq) for seq in range(start, start + 9)])
    assert in_line.seqs == list(range(1, 1000)), "in line means before hand_over returns"
    await settle_loop()
    assert waiting.seqs == list(range(1, 1000))
    assert health_of(fan_out, "waiting").accepted == health_of(fan_out, "in line").accepted == 999
    assert max(waiting.batches) > 9, "what piled up goes out in larger batches"


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [(Overflow.DROP_OLDEST, [1, None, *range(12, 17)]), (Overflow.DROP_NEWEST, [1, *range(2, 7), None])],
)
async def test_a_full_queue_drops_by_its_policy_and_counts(
    fan_out: FanOut, make_event: MakeEvent, overflow: Overflow, kept: list[int]
) -> None:
    hanging = Hanging()
    fan_out.add(hanging, DeliveryOptions(max_events=5, overflow=overflow))
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    await settle_loop()
    fan_out.hand_over([make_event(seq) for seq in range(2, 17)])
    health = health_of(fan_out, "hanging")
    assert (health.in_flight, health.queued_events, health.dropped) == (1, 5, 10)
    hanging.released.set()
    await settle_loop()
    assert hanging.seqs == kept, "the gap record stands where the events are missing"


async def test_bytes_are_bounded_too_but_one_large_event_always_fits(fan_out: FanOut, make_event: MakeEvent) -> None:
    hanging = Hanging()
    fan_out.add(hanging, DeliveryOptions(max_bytes=100))
    await fan_out.open()
    fan_out.hand_over([make_event(seq, data=b"x" * 40) for seq in range(1, 6)])
    assert (health_of(fan_out, "hanging").queued_bytes, health_of(fan_out, "hanging").dropped) == (80, 3)
    fan_out.hand_over([make_event(6, data=b"x" * 500)])
    assert (health_of(fan_out, "hanging").queued_events, health_of(fan_out, "hanging").queued_bytes) == (1, 500)


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_raising_and_hanging_publishers_do_not_touch_the_others(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    raising, raising_in_line, healthy = Recorder("raising"), InLine("raising in line"), Recorder("healthy")
    raising.failing = raising_in_line.failing = error
    for publisher in (raising, raising_in_line, Hanging(), healthy):
        fan_out.add(publisher)
    await fan_out.open()
    for seq in range(1, 101):
        fan_out.hand_over([make_event(seq)])
        await clock.advance(1.0)
    assert healthy.seqs == list(range(1, 101))
    assert health_of(fan_out, "healthy").failures == 0
    assert health_of(fan_out, "raising").failures > 3
    assert health_of(fan_out, "raising in line").failures > 3


async def test_a_failed_batch_is_offered_again_as_a_whole_and_order_is_kept(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    publisher = InLine()
    fan_out.add(publisher)
    await fan_out.open()
    publisher.failing = OSError("broken pipe")
    fan_out.hand_over([make_event(1), make_event(2)])
    await settle_loop()
    assert health_of(fan_out, "recorder").state is PublisherState.RETRYING
    assert health_of(fan_out, "recorder").last_error == "OSError: broken pipe"
    fan_out.hand_over([make_event(3)])
    publisher.failing = None
    fan_out.hand_over([make_event(4)])
    assert publisher.seqs == [], "a publisher that works again must not be given later events first"
    await clock.advance(6.0)
    fan_out.hand_over([make_event(5)])
    assert publisher.seqs == [1, 2, 3, 4, 5]
    assert health_of(fan_out, "recorder").state is PublisherState.HEALTHY
    assert health_of(fan_out, "recorder").dropped == 0


async def test_a_publisher_that_keeps_failing_is_parked_probed_with_the_gap_and_taken_back(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    publisher = Recorder()
    publisher.failing = OSError("down")
    fan_out.add(publisher, DeliveryOptions(give_up_after=30))
    await fan_out.open()
    fan_out.hand_over([make_event(1), make_event(2)])
    await clock.advance(29.0)
    assert health_of(fan_out, "recorder").state is PublisherState.RETRYING
    await clock.advance(7.0)
    assert health_of(fan_out, "recorder").state is PublisherState.PARKED
    assert health_of(fan_out, "recorder").dropped == 2
    fan_out.hand_over([make_event(seq) for seq in (3, 4, 5)])
    publisher.batches.clear()
    await clock.advance(31.0)
    assert publisher.batches == [1], "the probe offers the gap record, and risks no event"
    assert health_of(fan_out, "recorder").dropped == 2
    publisher.failing = None
    await clock.advance(31.0)
    assert publisher.seqs == [None, 3, 4, 5]
    assert health_of(fan_out, "recorder").state is PublisherState.HEALTHY


async def test_what_publish_nowait_did_not_take_is_counted_as_dropped(fan_out: FanOut, make_event: MakeEvent) -> None:
    channel = ChannelEventPublisher(3, overflow="drop_newest")
    fan_out.add(channel)
    await fan_out.open()
    fan_out.hand_over([make_event(seq) for seq in range(1, 6)])
    assert health_of(fan_out, "channel").dropped == 2
    assert [(await channel.get()).seq for _ in range(4)] == [1, 2, 3, None]


async def test_what_a_channel_drops_by_itself_shows_in_its_health(fan_out: FanOut, make_event: MakeEvent) -> None:
    channel = ChannelEventPublisher(3)
    fan_out.add(channel)
    await fan_out.open()
    fan_out.hand_over([make_event(seq) for seq in range(1, 6)])
    assert health_of(fan_out, "channel").dropped == 2
    assert [(await channel.get()).seq for _ in range(4)] == [None, 3, 4, 5]


async def test_a_nonsensical_count_is_a_failure_of_the_publisher(fan_out: FanOut, make_event: MakeEvent) -> None:
    class Liar(InLine):
        def publish_nowait(self, events: Sequence[Event]) -> int:
            return len(events) + 1

    liar = Liar()
    fan_out.add(liar)
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    assert health_of(fan_out, "recorder").failures == 1


async def test_a_publisher_that_is_closed_is_not_called_in_line_any_more(
    fan_out: FanOut, make_event: MakeEvent
) -> None:
    """What is handed over after the end stays out."""
    publisher = InLine()
    fan_out.add(publisher)
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    await fan_out.close()
    fan_out.hand_over([make_event(2)])
    assert publisher.seqs == [1]


async def test_a_publisher_gets_only_the_events_it_selected(fan_out: FanOut, make_event: MakeEvent) -> None:
    publisher = InLine()
    selection = EventSelection(include=("MESSAGE_*", "ready"), exclude=("*_DELETE*",))
    fan_out.add(publisher, DeliveryOptions(events=selection))
    await fan_out.open()
    names = ["READY", "MESSAGE_CREATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK", "GUILD_CREATE", "MESSAGE_CREATE"]
    fan_out.hand_over([make_event(seq, kind) for seq, kind in enumerate(names, 1)])
    assert publisher.seqs == [1, 2, 6]


async def test_filling_up_warns_once_per_run_and_says_when_it_is_over(
    fan_out: FanOut, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "discorder.publishers")
    hanging = Hanging()
    fan_out.add(hanging, DeliveryOptions(max_events=10))
    await fan_out.open()
    for run in range(2):
        first = 100 * run + 1
        hanging.released.clear()
        fan_out.hand_over([make_event(first)])
        await settle_loop()
        fan_out.hand_over([make_event(seq) for seq in range(first + 1, first + 9)])
        assert len(caplog.records) == 2 * run, "80 % is not above 80 %"
        for seq in range(first + 9, first + 29):
            fan_out.hand_over([make_event(seq)])
        hanging.released.set()
        await settle_loop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    warning = caplog.records[0].getMessage()
    assert all(part in warning for part in ("hanging", "90 %", "drop_oldest", "the oldest events are dropped"))


async def test_open_closes_what_it_opened_when_a_later_one_fails(clock: FakeClock) -> None:
    first, second = Recorder("first"), Recorder("second")
    second.refusing_to_open = PublisherError("no such broker")
    fan_out = FanOut(clock)
    fan_out.add(first)
    fan_out.add(second)
    with pytest.raises(PublisherError, match="no such broker"):
        await fan_out.open()
    assert (first.opened, first.closed) == (1, 1)
    assert len(asyncio.all_tasks()) == 1


async def test_a_publisher_that_never_opens_is_an_error_not_a_silence(fan_out: FanOut, clock: FakeClock) -> None:
    class NeverOpens(Recorder):
        async def open(self) -> None:
            await asyncio.Event().wait()

    fan_out.add(NeverOpens(), DeliveryOptions(give_up_after=30))
    opening = asyncio.create_task(fan_out.open())
    await clock.advance(31.0)
    with pytest.raises(PublisherError, match="recorder did not open within 30 s"):
        await opening


async def test_one_added_at_run_time_is_opened_in_the_background_and_keeps_what_came_meanwhile(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    await fan_out.open()
    late = Recorder("late")
    late.refusing_to_open = PublisherError("not yet")
    fan_out.add(late, name="renamed")
    fan_out.hand_over([make_event(1)])
    await clock.advance(40.0)
    assert health_of(fan_out, "renamed").state is PublisherState.PARKED
    assert health_of(fan_out, "renamed").last_error == "PublisherError: not yet"
    late.refusing_to_open = None
    await clock.advance(31.0)
    assert (late.opened, late.seqs) == (1, [1])
    assert health_of(fan_out, "renamed").state is PublisherState.HEALTHY


async def test_a_removed_publisher_gets_what_waits_for_it_and_is_closed(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    removed, kept = Recorder("removed"), Recorder("kept")
    fan_out.add(removed)
    fan_out.add(kept)
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    fan_out.remove("removed")
    fan_out.hand_over([make_event(2)])
    await settle_loop()
    assert (removed.seqs, removed.closed, kept.seqs) == ([1], 1, [1, 2])
    assert fan_out.publishers == (kept,)


async def test_publishers_are_added_and_removed_from_any_thread(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    """At once: who comes second is refused in its own thread, and what was added is there when the call returns."""
    await fan_out.open()
    publishers = [Recorder(f"recorder {number % 4}") for number in range(32)]
    outcomes: list[str] = []

    def add(publisher: Recorder) -> None:
        try:
            fan_out.add(publisher)
            outcomes.append("added" if publisher in fan_out.publishers else "lost")
        except ValueError:
            outcomes.append("refused")

    await asyncio.gather(*(asyncio.to_thread(add, publisher) for publisher in publishers))
    assert sorted(outcomes) == ["added"] * 4 + ["refused"] * 28
    fan_out.hand_over([make_event(1)])
    await settle_loop()
    there = [publisher for publisher in publishers if publisher in fan_out.publishers]
    assert [(publisher.opened, publisher.seqs) for publisher in there] == [(1, [1])] * 4
    await asyncio.to_thread(fan_out.remove, "recorder 2")
    assert len(fan_out.publishers) == 3
    await settle_loop()
    assert sorted(publisher.closed for publisher in there) == [0, 0, 0, 1]


async def test_after_the_end_nobody_is_added_or_removed(clock: FakeClock) -> None:
    fan_out = FanOut(clock)
    fan_out.add(Recorder())
    await fan_out.open()
    await fan_out.close()
    with pytest.raises(NotRunning):
        fan_out.add(Recorder("late"))
    with pytest.raises(NotRunning):
        fan_out.remove("recorder")


async def test_what_was_dropped_stays_counted_when_its_publisher_is_removed(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    hanging = Hanging()
    fan_out.add(hanging, DeliveryOptions(max_events=5))
    await fan_out.open()
    fan_out.hand_over([make_event(seq) for seq in range(1, 11)])
    assert (fan_out.dropped, fan_out.gaps) == (5, 1)
    fan_out.remove("hanging")
    assert (fan_out.dropped, fan_out.gaps) == (5, 1)
    await clock.advance(2.0)
    assert (fan_out.dropped, fan_out.gaps) == (10, 1), "what still waited for it after a second is dropped too"


async def test_health_can_be_read_from_another_thread_while_events_pour_in(
    fan_out: FanOut, make_event: MakeEvent
) -> None:
    """It walks through queues that change under it."""
    fan_out.add(Hanging(), DeliveryOptions(max_events=50))
    fan_out.add(Recorder("blocks"), DeliveryOptions(overflow=Overflow.BLOCK))
    await fan_out.open()
    read = 0

    def watch() -> None:
        nonlocal read
        while read < 200:
            assert len(fan_out.health) == 2
            read += 1

    watching = asyncio.ensure_future(asyncio.to_thread(watch))
    seq = 0
    while not watching.done():
        fan_out.hand_over([make_event(seq := seq + 1) for _ in range(20)])
        await asyncio.sleep(0)
    await watching


async def test_wrong_names_and_things_that_are_no_publishers_are_refused(fan_out: FanOut) -> None:
    recorder = Recorder()
    fan_out.add(recorder)
    with pytest.raises(ValueError, match="named 'recorder' already"):
        fan_out.add(Recorder())
    with pytest.raises(ValueError, match="Recorder was added already"):
        fan_out.add(recorder, name="again")
    with pytest.raises(ValueError, match="no publisher named 'nobody'; there are: recorder"):
        fan_out.remove("nobody")
    with pytest.raises(TypeError, match="int is no publisher: it has no name"):
        fan_out.add(42)  # type: ignore[arg-type]  # what a user might do in a REPL


async def test_a_promise_that_cannot_be_kept_is_refused(fan_out: FanOut) -> None:
    with pytest.raises(ConfigError, match=r"publishers\.recorder\.required: .*delimited_file"):
        fan_out.add(Recorder(), DeliveryOptions(required=True))
    with pytest.raises(ConfigError, match=r"publishers\.recorder\.overflow: .*contradicts required"):
        fan_out.add(Recorder(), DeliveryOptions(required=True, overflow=Overflow.DROP_NEWEST))


async def test_drain_waits_for_the_slow_but_not_for_ever(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = Hanging()
    fan_out.add(hanging)
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    draining = asyncio.create_task(fan_out.drain(0.5))
    await clock.advance(0.4)
    assert not draining.done()
    await clock.advance(0.2)
    await draining
    assert "hanging (1 events)" in caplog.text
    draining = asyncio.create_task(fan_out.drain(0.5))
    hanging.released.set()
    await settle_loop()
    assert draining.done()
    assert hanging.seqs == [1]


async def test_close_ends_within_a_second_even_if_a_publisher_ignores_its_cancellation(
    clock: FakeClock, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    fan_out = FanOut(clock)
    stubborn, other = Unkillable("stubborn"), Recorder("other")
    fan_out.add(stubborn)
    fan_out.add(other)
    await fan_out.open()
    fan_out.hand_over([make_event(1)])
    await settle_loop()
    closing = asyncio.create_task(fan_out.close())
    await clock.advance(1.0)
    assert closing.done()
    assert other.closed == 1
    assert "stubborn ignores its cancellation" in caplog.text
    assert "stubborn did not close" in caplog.text
    await asyncio.sleep(0.04)  # let the stubborn one run out


async def test_lag_is_the_age_of_the_oldest_event_that_is_not_accepted(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    fan_out.add(Hanging())
    await fan_out.open()
    assert health_of(fan_out, "hanging").lag == 0.0
    fan_out.hand_over([make_event(1)])  # received when the clock started
    await clock.advance(12.0)
    assert health_of(fan_out, "hanging").lag == pytest.approx(12.0)
