"""The fan-out: order, bounds, policies, isolation, retries, parking, adding and removing publishers. The test moves the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import ConfigError, NotRunning, PublisherError
from discorder.publishers.channel import ChannelEventPublisher
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherHealth, PublisherState
from discorder.publishers.options import EventSelection, Overflow
from discorder.wire import Event

MakeEvent = Callable[..., Event]


class Recorder:
    """A publisher that never waits, keeps everything, and fails while ``failing`` is set."""

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
        """Return the seq of each accepted event; None for a record."""
        return [event.seq for event in self.everything]

    async def close(self) -> None:
        self.closed += 1


class Hanging(Recorder):
    """A publisher whose publish returns only once it is released."""

    def __init__(self, name: str = "hanging") -> None:
        super().__init__(name)
        self.released = asyncio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        await self.released.wait()
        await super().publish(events)


class HangingOpen(Recorder):
    """A publisher whose open returns only once it is released."""

    def __init__(self, name: str = "hanging") -> None:
        super().__init__(name)
        self.released = asyncio.Event()

    async def open(self) -> None:
        await self.released.wait()
        await super().open()


class Unkillable(Recorder):
    """A publisher that ignores its cancellation, both in publish and in close."""

    async def publish(self, events: Sequence[Event]) -> None:
        await ignore_cancellation(0.03)

    async def close(self) -> None:
        await ignore_cancellation(0.03)


class InLine(Recorder):
    """A publisher with `publish_nowait`."""

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.batches.append(len(events))
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
        fan_out.shard(0).hand_over([make_event(seq) for seq in range(start, start + 9)])
    assert in_line.seqs == list(range(1, 1000)), "in line means before hand_over returns"
    await settle_loop()
    assert waiting.seqs == list(range(1, 1000))
    for health in fan_out.health:
        assert (health.accepted, health.in_flight, health.queued_events) == (999, 0, 0)
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
    fan_out.shard(0).hand_over([make_event(1)])
    await settle_loop()
    fan_out.shard(0).hand_over([make_event(seq) for seq in range(2, 17)])
    health = health_of(fan_out, "hanging")
    assert (health.in_flight, health.queued_events, health.dropped) == (1, 5, 10)
    hanging.released.set()
    await settle_loop()
    assert hanging.seqs == kept, "the gap record stands where the events are missing"


async def test_bytes_are_bounded_too_but_one_large_event_always_fits(fan_out: FanOut, make_event: MakeEvent) -> None:
    hanging = Hanging()
    fan_out.add(hanging, DeliveryOptions(max_bytes=100))
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(seq, data=b"x" * 40) for seq in range(1, 6)])
    assert (health_of(fan_out, "hanging").queued_bytes, health_of(fan_out, "hanging").dropped) == (80, 3)
    fan_out.shard(0).hand_over([make_event(6, data=b"x" * 500)])
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
        fan_out.shard(0).hand_over([make_event(seq)])
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
    fan_out.shard(0).hand_over([make_event(1), make_event(2)])
    await settle_loop()
    assert health_of(fan_out, "recorder").state is PublisherState.RETRYING
    assert health_of(fan_out, "recorder").last_error == "OSError: broken pipe"
    fan_out.shard(0).hand_over([make_event(3)])
    publisher.failing = None
    fan_out.shard(0).hand_over([make_event(4)])
    assert publisher.seqs == [], "a publisher that works again must not be given later events first"
    await clock.advance(6.0)
    fan_out.shard(0).hand_over([make_event(5)])
    assert publisher.seqs == [1, 2, 3, 4, 5]
    assert health_of(fan_out, "recorder").state is PublisherState.HEALTHY
    assert health_of(fan_out, "recorder").dropped == 0


async def test_a_publisher_that_keeps_failing_is_parked_probed_with_the_gap_and_taken_back(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "discorder.publishers")
    publisher = Recorder()
    publisher.failing = OSError("down")
    fan_out.add(publisher, DeliveryOptions(give_up_after=30))
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1), make_event(2)])
    await clock.advance(29.0)
    assert health_of(fan_out, "recorder").state is PublisherState.RETRYING
    await clock.advance(7.0)
    assert health_of(fan_out, "recorder").state is PublisherState.PARKED
    assert (health_of(fan_out, "recorder").dropped, health_of(fan_out, "recorder").in_flight) == (2, 0)
    fan_out.shard(0).hand_over([make_event(seq) for seq in (3, 4, 5)])
    publisher.batches.clear()
    failures = health_of(fan_out, "recorder").failures
    await clock.advance(31.0)
    assert publisher.batches == [1], "the probe offers the gap record, and risks no event"
    assert health_of(fan_out, "recorder").failures == failures + 1
    assert health_of(fan_out, "recorder").dropped == 2
    publisher.failing = None
    await clock.advance(31.0)
    assert publisher.seqs == [None, 3, 4, 5]
    assert health_of(fan_out, "recorder").state is PublisherState.HEALTHY
    parked = "Publisher recorder is parked after 30 s of failures, looked at every 30 s: OSError: down"
    assert [record.getMessage() for record in caplog.records][1:] == [parked, "Publisher recorder works again"]


async def test_while_a_parked_publisher_is_looked_at_its_state_says_so(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    hanging, late = Hanging(), HangingOpen("late")
    fan_out.add(hanging)
    await fan_out.open()
    fan_out.add(late)
    hanging.released.set()
    late.released.set()
    hanging.failing = late.refusing_to_open = OSError("down")
    fan_out.shard(0).hand_over([make_event(1)])
    await clock.advance(40.0)
    assert [health.state for health in fan_out.health] == [PublisherState.PARKED] * 2
    hanging.released.clear()
    late.released.clear()
    await clock.advance(31.0)
    assert [health.state for health in fan_out.health] == [PublisherState.PROBING] * 2


async def test_what_publish_nowait_did_not_take_is_counted_as_dropped(fan_out: FanOut, make_event: MakeEvent) -> None:
    channel = ChannelEventPublisher(3, overflow="drop_newest")
    fan_out.add(channel)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(seq) for seq in range(1, 6)])
    assert health_of(fan_out, "channel").dropped == 2
    assert [(await channel.get()).seq for _ in range(4)] == [1, 2, 3, None]


async def test_what_a_channel_drops_by_itself_shows_in_its_health(fan_out: FanOut, make_event: MakeEvent) -> None:
    channel = ChannelEventPublisher(3)
    fan_out.add(channel)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(seq) for seq in range(1, 6)])
    assert health_of(fan_out, "channel").dropped == 2
    assert [(await channel.get()).seq for _ in range(4)] == [None, 3, 4, 5]


async def test_a_nonsensical_count_is_a_failure_of_the_publisher(fan_out: FanOut, make_event: MakeEvent) -> None:
    class Liar(InLine):
        def publish_nowait(self, events: Sequence[Event]) -> int:
            return len(events) + 1

    liar = Liar()
    fan_out.add(liar)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    assert health_of(fan_out, "recorder").failures == 1


async def test_a_publisher_that_is_closed_is_not_called_in_line_any_more(
    fan_out: FanOut, make_event: MakeEvent
) -> None:
    """Events that come after the close are not passed on."""
    publisher = InLine()
    fan_out.add(publisher)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    await fan_out.close()
    fan_out.shard(0).hand_over([make_event(2)])
    assert publisher.seqs == [1]


async def test_a_publisher_gets_only_the_events_it_selected(fan_out: FanOut, make_event: MakeEvent) -> None:
    waiting, in_line = Recorder("waiting"), InLine("in line")
    selection = EventSelection(include=("MESSAGE_*", "ready"), exclude=("*_DELETE*",))
    fan_out.add(waiting, DeliveryOptions(events=selection))
    fan_out.add(in_line, DeliveryOptions(events=selection))
    readies = Recorder("readies")
    fan_out.add(readies, DeliveryOptions(events=EventSelection(include=("READY",))))
    await fan_out.open()
    names = ["READY", "MESSAGE_CREATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK", "GUILD_CREATE", "MESSAGE_CREATE"]
    fan_out.shard(0).hand_over([make_event(seq, kind) for seq, kind in enumerate(names, 1)])
    await settle_loop()
    fan_out.shard(0).hand_over([make_event(7, "GUILD_CREATE")])
    await settle_loop()
    for publisher in (waiting, in_line):
        assert publisher.seqs == [1, 2, 6]
        assert publisher.batches == [3], "nobody is bothered with nothing"
    assert readies.seqs == [1]


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
        fan_out.shard(0).hand_over([make_event(first)])
        await settle_loop()
        fan_out.shard(0).hand_over([make_event(seq) for seq in range(first + 1, first + 9)])
        assert len(caplog.records) == 2 * run, "80 % is not above 80 %"
        for seq in range(first + 9, first + 29):
            fan_out.shard(0).hand_over([make_event(seq)])
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
    fan_out.add(HangingOpen("recorder"), DeliveryOptions(give_up_after=30))
    opening = asyncio.create_task(fan_out.open())
    await clock.advance(31.0)
    with pytest.raises(PublisherError, match="recorder did not open within 30 s"):
        await opening


async def test_one_added_at_run_time_is_opened_in_the_background_and_keeps_what_came_meanwhile(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    await fan_out.open()
    late = InLine("late")
    late.refusing_to_open = PublisherError("not yet")
    fan_out.add(late, name="renamed")
    fan_out.shard(0).hand_over([make_event(1)])
    assert late.seqs == [], "it is not open yet"
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
    fan_out.shard(0).hand_over([make_event(1)])
    fan_out.remove("removed")
    fan_out.shard(0).hand_over([make_event(2)])
    await settle_loop()
    assert (removed.seqs, removed.closed, kept.seqs) == ([1], 1, [1, 2])
    assert fan_out.publishers == (kept,)


async def test_a_removed_publisher_that_is_slow_has_a_moment_in_which_to_accept_what_waits(
    fan_out: FanOut, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Hanging("slow")
    fan_out.add(slow)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    fan_out.remove("slow")
    await settle_loop()
    assert slow.closed == 0
    slow.released.set()
    await settle_loop()
    assert (slow.seqs, slow.closed) == ([1], 1)
    assert caplog.records == []


async def test_one_added_while_the_others_are_opened_is_opened_too(fan_out: FanOut, make_event: MakeEvent) -> None:
    first, late = HangingOpen("first"), Recorder("late")
    fan_out.add(first)
    opening = asyncio.create_task(fan_out.open())
    await settle_loop()
    fan_out.add(late)
    first.released.set()
    await opening
    fan_out.shard(0).hand_over([make_event(1)])
    await settle_loop()
    assert (first.opened, first.seqs, late.opened, late.seqs) == (1, [1], 1, [1])


@pytest.mark.parametrize("fails", [False, True])
async def test_one_removed_while_the_others_are_opened_is_closed(fan_out: FanOut, *, fails: bool) -> None:
    """This holds whether its own turn has come or not, and if another one fails to open. No one else could close it."""
    early, slow, late = Recorder("early"), HangingOpen("slow"), Recorder("late")
    if fails:
        slow.refusing_to_open = PublisherError("no")
    for publisher in (early, slow, late):
        fan_out.add(publisher)
    opening = asyncio.create_task(fan_out.open())
    await settle_loop()
    fan_out.remove("early")
    fan_out.remove("late")
    slow.released.set()
    if fails:
        with pytest.raises(PublisherError, match="no"):
            await opening
    else:
        await opening
        await settle_loop()
    assert (early.closed, late.closed, slow.closed) == (1, 1, int(fails))


async def test_publishers_are_added_and_removed_from_any_thread(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    """A second publisher of the same name is refused in the calling thread, and the first is added when the call returns."""
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
    fan_out.shard(0).hand_over([make_event(1)])
    await settle_loop()
    there = [publisher for publisher in publishers if publisher in fan_out.publishers]
    assert [(publisher.opened, publisher.seqs) for publisher in there] == [(1, [1])] * 4
    await asyncio.to_thread(fan_out.remove, "recorder 2")
    assert len(fan_out.publishers) == 3
    await settle_loop()
    assert sorted(publisher.closed for publisher in there) == [0, 0, 0, 1]


async def test_what_another_thread_asked_for_just_before_the_end_is_over_with_it(clock: FakeClock) -> None:
    """The request is queued on the loop and has not run yet."""
    fan_out, removed, added = FanOut(clock), Recorder("removed"), Recorder("added")
    fan_out.add(removed)
    await fan_out.open()
    for ask in (lambda: fan_out.remove("removed"), lambda: fan_out.add(added)):
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
    await fan_out.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await settle_loop()
    assert (removed.closed, added.closed, added.opened) == (1, 1, 0)


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
    fan_out.shard(0).hand_over([make_event(seq) for seq in range(1, 11)])
    assert (fan_out.dropped, fan_out.gaps) == (5, 1)
    fan_out.remove("hanging")
    assert (fan_out.dropped, fan_out.gaps) == (5, 1)
    await clock.advance(2.0)
    assert (fan_out.dropped, fan_out.gaps) == (10, 1), "what still waited for it after a second is dropped too"


async def test_health_can_be_read_from_another_thread_while_events_pour_in(
    fan_out: FanOut, make_event: MakeEvent
) -> None:
    """The queues change while their health is read."""
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
        fan_out.shard(0).hand_over([make_event(seq := seq + 1) for _ in range(20)])
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
    fan_out.shard(0).hand_over([make_event(1)])
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
    fan_out.shard(0).hand_over([make_event(1)])
    await settle_loop()
    closing = asyncio.create_task(fan_out.close())
    await clock.advance(1.0)
    assert closing.done()
    assert other.closed == 1
    assert "stubborn ignores its cancellation" in caplog.text
    await closing
    assert "stubborn did not close" in caplog.text
    await asyncio.sleep(0.04)  # let the stubborn publisher end
    assert [health.state for health in fan_out.health] == [PublisherState.CLOSED] * 2, "that it works is no news"


async def test_what_does_not_close_in_time_is_cancelled_and_what_fails_to_close_is_logged(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class HangingClose(Recorder):
        async def close(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.closed += 1

    class FailingClose(Recorder):
        async def close(self) -> None:
            raise OSError("the disk is away")

    fan_out = FanOut(clock)
    hanging = HangingClose("hanging")
    for publisher in (hanging, FailingClose("failing"), Recorder("well-behaved")):
        fan_out.add(publisher)
    await fan_out.open()
    closing = asyncio.create_task(fan_out.close())
    await clock.advance(1.0)
    assert closing.done()
    await closing
    assert hanging.closed == 1
    assert len(asyncio.all_tasks()) == 1
    assert sorted(record.getMessage() for record in caplog.records) == [
        "Publisher failing failed to close: OSError: the disk is away",
        "Publisher hanging did not close within 0.3 s",
    ]


async def test_a_fan_out_that_is_closed_twice_closes_each_publisher_once(clock: FakeClock) -> None:
    fan_out = FanOut(clock)
    publisher = Recorder()
    fan_out.add(publisher)
    await fan_out.open()
    await fan_out.close()
    await fan_out.close()
    assert publisher.closed == 1


async def test_close_does_not_wait_for_one_that_is_being_removed(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    hanging = Hanging()
    fan_out.add(hanging)
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    fan_out.remove("hanging")
    await settle_loop()
    await asyncio.wait_for(fan_out.close(), 5.0)  # the clock does not move
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (hanging.closed, fan_out.dropped) == (1, 1)


async def test_publishers_that_answer_their_readers_are_given_the_bus_api(clock: FakeClock) -> None:
    class Answering(Recorder):
        def answer_from(self, bus_api: object) -> None:
            given.append(bus_api)

        def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None: ...

    class Counter:
        feed = None

        async def command(
            self, name: str, d: object, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
        ) -> dict[str, object]:
            return {}

        def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
            pytest.fail(f"nobody reports, as {door} did")

        def last_ready(self, shard: int) -> None: ...

    given: list[object] = []
    bus_api = Counter()
    FanOut(clock).add(Answering())
    fan_out = FanOut(clock, bus_api)
    fan_out.add(Answering())
    fan_out.add(Recorder("plain"))
    assert given == [bus_api]


async def test_opening_in_the_background_is_given_up_after_its_time(fan_out: FanOut, clock: FakeClock) -> None:
    """Draining does not wait for it, because it has no events yet."""
    await fan_out.open()
    late = HangingOpen("late")
    fan_out.add(late, DeliveryOptions(give_up_after=30))
    draining = asyncio.create_task(fan_out.drain(5.0))
    await settle_loop()
    assert draining.done()
    await clock.advance(29.5)
    assert health_of(fan_out, "late").state is PublisherState.OPENING
    await clock.advance(0.5)
    assert health_of(fan_out, "late").state is PublisherState.PARKED
    assert health_of(fan_out, "late").last_error == "PublisherError: publisher late did not open within 30 s"


async def test_whoever_drains_is_released_by_close(fan_out: FanOut, clock: FakeClock, make_event: MakeEvent) -> None:
    fan_out.add(Hanging())
    await fan_out.open()
    fan_out.shard(0).hand_over([make_event(1)])
    draining = asyncio.create_task(fan_out.drain(60.0))
    await settle_loop()
    await fan_out.close()
    await settle_loop()
    assert draining.done()


async def test_lag_is_the_age_of_the_oldest_event_that_is_not_accepted(
    fan_out: FanOut, clock: FakeClock, make_event: MakeEvent
) -> None:
    fan_out.add(Hanging())
    await fan_out.open()
    assert health_of(fan_out, "hanging").lag == 0.0
    fan_out.shard(0).hand_over([make_event(1)])  # received when the clock started
    await clock.advance(12.0)
    assert health_of(fan_out, "hanging").lag == pytest.approx(12.0)
