"""A bot that loses events, is away or is restarted, on real sockets: it gets each event or a gap."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from discorder.bot import replays
from discorder.bot.cursor import dump
from discorder.bot.positions import Gap, SavedPosition
from discorder.bot.subscriber import Decoded, Subscription, subscribe
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.subscriptions import connections
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event, ReceivedEvent

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 30.0
SECOND = timedelta(seconds=1)
LARGE = b'"' + b"x" * 20_000 + b'"'


class Source:
    """A session that numbers its events and knows what came before each."""

    def __init__(self, session: str = "0123456789abcdef", shard: tuple[int, int] = (0, 1)) -> None:
        self.session = session
        self.shard = shard
        self.seq = 0
        self._previous: dict[str, int | None] = {}

    def events(self, count: int, kind: str = "MESSAGE_CREATE", data: bytes = b"{}") -> list[Event]:
        made = []
        for _ in range(count):
            self.seq += 1
            prev = self._previous.get(kind, 0)
            made.append(Event(kind, self.shard, self.seq, prev, self.session, MOMENT, data))
            self._previous[kind] = self.seq
        return made

    def resumed_by_a_new_process(self) -> None:
        """Forget which event preceded the next one of each type, as a new process does."""
        self._previous = dict.fromkeys(self._previous)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    """A bus whose pipes are short, and whose ring is not."""
    made = ZmqPublisher("tcp://127.0.0.1:*", hwm=100)
    await made.open()
    yield made
    await made.close()


async def subscribed(bus: ZmqPublisher, count: int) -> None:
    async with asyncio.timeout(SECONDS):
        while bus.subscriptions < count:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.005)


async def take(events: Subscription[Any], count: int) -> list[Any]:
    """Sequences of events; (from, to) of gaps."""
    async with asyncio.timeout(SECONDS):
        return [shown(await anext(events)) for _ in range(count)]


def shown(item: ReceivedEvent | Gap) -> Any:
    return (item.from_seq, item.to_seq) if isinstance(item, Gap) else item.seq


async def take_upto(events: Subscription[Any], last: int) -> list[Any]:
    """Everything until the event ``last`` has come, and its gap if it comes behind it."""
    seen = []
    async with asyncio.timeout(SECONDS):
        while last not in seen:
            seen += await take(events, 1)
    return seen


def reach(bus: ZmqPublisher) -> str:
    return bus.endpoints[0]


# ---------------------------------------------------------------- slow


async def test_who_stops_reading_loses_nothing_within_the_ring_and_nobody_else_notices(
    bus: ZmqPublisher, source: Source
) -> None:
    """Fault case 30. Far more than all the pipes together hold; ZeroMQ drops it without a word."""
    async with subscribe(reach(bus)) as stalled, subscribe(reach(bus)) as awake:
        async with asyncio.timeout(SECONDS):
            while len(connections(bus.endpoints)) < 2:  # noqa: ASYNC110  # the kernel reports them only when asked
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # for the second subscription to the same topic, which ZeroMQ does not report
        bus.publish_nowait(source.events(1))
        assert await take(stalled, 1) == await take(awake, 1) == [1]
        for _ in range(100):
            bus.publish_nowait(source.events(20, data=LARGE))
            last = source.seq
            assert await take(awake, 20) == list(range(last - 19, last + 1))
        bus.publish_nowait(source.events(1))
        assert await take(stalled, 2_001) == list(range(2, 2_003))


async def test_who_stops_reading_for_longer_than_the_ring_is_told_what_is_missing(source: Source) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:*", hwm=100, ring_bytes=2_000_000)
    await bus.open()
    async with subscribe(reach(bus)) as stalled:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(1))
        assert await take(stalled, 1) == [1]
        for _ in range(1_000):
            bus.publish_nowait(source.events(2, data=LARGE))
            await asyncio.sleep(0)
        seen = await take_upto(stalled, 2_001)
        while not any(isinstance(one, tuple) for one in seen):
            seen += await take(stalled, 1)
    numbers = {one for one in seen if isinstance(one, int)}
    covered = {seq for one in seen if isinstance(one, tuple) for seq in range(one[0], one[1] + 1)}
    assert numbers | covered == set(range(2, 2_002))
    assert len(numbers) < 2_000
    await bus.close()


async def test_a_lost_event_that_no_other_of_its_type_follows_is_replayed(bus: ZmqPublisher, source: Source) -> None:
    """The position shows it: there is no later event with its ``prev``."""
    async with subscribe(reach(bus), types=["MESSAGE_CREATE"]) as events:
        await subscribed(bus, 3)
        bus.publish_nowait(source.events(1))
        assert await take(events, 1) == [1]
        (lost,) = source.events(1)
        bus._ring.append([lost], [lost.document], 0.0)  # noqa: SLF001  # as if the pipe had dropped it
        assert await take(events, 1) == [2]


# ---------------------------------------------------------------- away


async def test_a_bot_that_was_restarted_gets_what_it_missed(bus: ZmqPublisher, source: Source, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    async with subscribe(reach(bus), cursor=cursor) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(10))
        assert await take(events, 10) == list(range(1, 11))
        await events.commit()
    bus.publish_nowait(source.events(10))
    async with subscribe(reach(bus), cursor=cursor) as events:
        assert await take(events, 10) == list(range(11, 21))
        bus.publish_nowait(source.events(1))
        assert await take(events, 1) == [21]
    assert cursor.stat().st_mode & 0o077 == 0


async def test_an_item_is_processed_when_the_next_is_requested_or_commit_is_called(
    bus: ZmqPublisher, source: Source, tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor"
    async with subscribe(reach(bus), cursor=cursor) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(3))
        assert await take(events, 3) == [1, 2, 3]
    for _ in range(2):
        async with subscribe(reach(bus), cursor=cursor) as events:
            assert await take(events, 1) == [3], "its handler may have failed"
    async with subscribe(reach(bus), cursor=cursor) as events:
        assert await take(events, 1) == [3]
        await events.commit()
    bus.publish_nowait(source.events(1))
    async with subscribe(reach(bus), cursor=cursor) as events:
        assert await take(events, 1) == [4]


async def test_a_cursor_is_written_while_the_bot_runs(bus: ZmqPublisher, source: Source, tmp_path: Path) -> None:
    """A bot that is killed repeats the last second, not everything."""
    cursor = tmp_path / "cursor"
    async with subscribe(reach(bus), cursor=cursor) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(2))
        assert await take(events, 2) == [1, 2]
        waiting = asyncio.create_task(anext(events))
        async with asyncio.timeout(SECONDS):
            while not cursor.exists() or b'"seq":2' not in cursor.read_bytes():  # noqa: ASYNC110  # a file is looked at
                await asyncio.sleep(0.02)
        waiting.cancel()


async def test_a_bot_that_was_away_for_longer_than_the_ring_is_told(source: Source, tmp_path: Path) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:*", ring_bytes=3_000)
    await bus.open()
    cursor = tmp_path / "cursor"
    async with subscribe(reach(bus), cursor=cursor) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(2))
        assert await take(events, 2) == [1, 2]
    bus.publish_nowait(source.events(100))
    async with subscribe(reach(bus), cursor=cursor) as events:
        seen = await take_upto(events, 102)
        seen += await take(events, 1)
    first = min(one for one in seen if isinstance(one, int))
    assert seen == [*range(first, 103), (2, first - 1)]
    await bus.close()


async def test_shards_without_an_answer_do_not_delay_the_others(bus: ZmqPublisher, tmp_path: Path) -> None:
    """The cursor knows twelve shards; this control plane has published of the last two only."""
    cursor = tmp_path / "cursor"
    places = tuple(SavedPosition((shard, 12), f"session {shard}", 1) for shard in range(12))
    cursor.write_bytes(dump(places))
    for shard in (10, 11):
        bus.publish_nowait(Source(f"session {shard}", (shard, 12)).events(3))
    async with subscribe(reach(bus), cursor=cursor) as events:
        assert sorted(await take(events, 4)) == [2, 2, 3, 3]


async def test_a_custom_cursor(bus: ZmqPublisher, source: Source) -> None:
    class Row:
        state: bytes | None = None

        def load(self) -> bytes | None:
            return self.state

        def save(self, state: bytes) -> None:
            self.state = state

    row = Row()
    for first in (1, 3):
        bus.publish_nowait(source.events(2))
        async with subscribe(reach(bus), cursor=row, start="oldest") as events:
            assert await take(events, 2) == [first, first + 1]
            await events.commit()


async def test_a_cursor_that_cannot_be_read_starts_at_the_oldest_event(
    bus: ZmqPublisher, source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cursor = tmp_path / "cursor"
    cursor.write_text("not ours")
    bus.publish_nowait(source.events(3))
    async with subscribe(reach(bus), cursor=cursor) as events:
        assert await take(events, 3) == [1, 2, 3]
    assert "The cursor cannot be read" in caplog.text


async def test_the_oldest_event_can_be_asked_for(bus: ZmqPublisher, source: Source) -> None:
    source.seq = 40  # the ring begins in the middle of a session: that is nothing that was missed
    bus.publish_nowait([*source.events(3), *source.events(1, "READY")])
    async with subscribe(reach(bus), types="READY", start="oldest") as events:
        assert await take(events, 1) == [44]


# ---------------------------------------------------------------- the control plane is restarted


async def test_a_control_plane_that_is_restarted_and_resumes_leaves_no_gap(source: Source) -> None:
    first = ZmqPublisher("tcp://127.0.0.1:*")
    await first.open()
    address = reach(first)
    async with subscribe(address) as all_events, subscribe(address, types="READY") as some:
        await subscribed(first, 4)
        first.publish_nowait([*source.events(1, "READY"), *source.events(9)])
        assert await take(all_events, 10) == list(range(1, 11))
        assert await take(some, 1) == [1]
        reading = asyncio.create_task(take(all_events, 10)), asyncio.create_task(take(some, 1))
        await first.close()  # publishes its position
        await asyncio.sleep(0.05)
        source.resumed_by_a_new_process()
        second = ZmqPublisher(address)
        await second.open()
        await subscribed(second, 4)
        second.publish_nowait([*source.events(9), *source.events(1, "READY")])
        assert await reading[0] == list(range(11, 21))
        assert await reading[1] == [20]
        await second.close()


async def test_events_of_a_restarted_control_plane_before_the_subscription_are_replayed(source: Source) -> None:
    first = ZmqPublisher("tcp://127.0.0.1:*")
    await first.open()
    address = reach(first)
    async with subscribe(address) as events:
        await subscribed(first, 1)
        first.publish_nowait(source.events(10))
        assert await take(events, 10) == list(range(1, 11))
        await first.close()
        source.resumed_by_a_new_process()
        second = ZmqPublisher(address)
        await second.open()
        second.publish_nowait(source.events(10))  # the subscription has not come yet
        assert await take(events, 10) == list(range(11, 21))
        await second.close()


async def test_a_new_session_is_a_gap(bus: ZmqPublisher, source: Source) -> None:
    async with subscribe(reach(bus)) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(5))
        bus.publish_nowait(Source("another").events(2))
        assert await take(events, 8) == [1, 2, 3, 4, 5, (6, None), 1, 2]


# ---------------------------------------------------------------- without replay


async def test_a_live_only_bot_is_told_of_its_holes(bus: ZmqPublisher, source: Source) -> None:
    async with subscribe(reach(bus), live_only=True) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(2))
        source.events(3)
        bus.publish_nowait(source.events(1))
        assert await take(events, 4) == [1, 2, (3, 5), 6]


async def test_a_bus_without_replay_does_not_delay_events(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "GIVE_UP", 0.2)
    bus = ZmqPublisher("tcp://127.0.0.1:*", replay="")
    await bus.open()
    async with subscribe(reach(bus)) as events:
        await subscribed(bus, 1)
        bus.publish_nowait(source.events(2))
        source.events(3)
        bus.publish_nowait(source.events(1))
        assert await take(events, 4) == [1, 2, (3, 5), 6]
        source.events(1)
        bus.publish_nowait(source.events(1))
        assert await take(events, 2) == [(7, 7), 8]
    await bus.close()


# ---------------------------------------------------------------- what it is made of


class Message(msgspec.Struct):
    content: str


async def test_data_is_decoded_by_the_type_of_each_name(bus: ZmqPublisher, source: Source) -> None:
    async with subscribe(reach(bus), decode={"MESSAGE_CREATE": Message}) as events:
        assert events.types == frozenset(["MESSAGE_CREATE"])
        await subscribed(bus, 3)
        bus.publish_nowait(source.events(1, data=b'{"content":"hi"}'))
        bus.publish_nowait(source.events(1, data=b'{"content":1}'))
        bus.publish_nowait(source.events(1, data=b'{"content":"there"}'))
        async with asyncio.timeout(SECONDS):
            first = await anext(events)
            assert isinstance(first, Decoded)
            assert (first.value, first.seq, first.data) == (Message("hi"), 1, b'{"content":"hi"}')
            with pytest.raises(msgspec.ValidationError, match="MESSAGE_CREATE seq 2 of shard 0: Expected `str`"):
                await anext(events)
            third = await anext(events)
            assert isinstance(third, Decoded)
            assert third.value == Message("there")


async def test_one_decode_type_for_all_names(bus: ZmqPublisher, source: Source) -> None:
    async with subscribe(reach(bus), types="MESSAGE_CREATE", decode=Message) as events:
        await subscribed(bus, 3)
        bus.publish_nowait(source.events(1, data=b'{"content":"hi"}'))
        async with asyncio.timeout(SECONDS):
            received = await anext(events)
        assert isinstance(received, Decoded)
        assert received.value.content == "hi"


def imported_with(module: str) -> Sequence[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("module", ["discorder.bot.subscriber", "discorder.bot.commands"])
def test_a_bot_needs_nothing_of_the_control_plane(module: str) -> None:
    names = imported_with(module)
    ours = {name for name in names if name.startswith("discorder.")}
    assert {name.split(".")[1] for name in ours} <= {"bot", "wire", "errors", "curve", "lenient_json", "paths"}
    foreign = {"aiohttp", "transitions", "tenacity", "loguru", "tomli", "typer", "rich", "platformdirs"}
    assert not foreign & set(names)


# ---------------------------------------------------------------- records


def state_of(source: Source, number: int, at: datetime = MOMENT) -> Event:
    return Event("DISCORDER_STATE", source.shard, None, None, source.session, at, b'{"number":%d}' % number)


def end_of(source: Source) -> Event:
    """The record of the end of a session; another one follows."""
    lost = LostEvents(LossKind.SESSION, None, source.seq + 1, None, "invalid session", MOMENT, MOMENT)
    return gap_record(source.shard, source.session, MOMENT, lost)


def three_sessions() -> list[Event]:
    """Two sessions that ended and the start of a third, with records of the same moment between their events."""
    first, second, third = (Source(session * 16) for session in "abc")
    return [
        *(*first.events(1, "READY"), state_of(first, 0), state_of(first, 1), *first.events(1), end_of(first)),
        *(*second.events(1, "READY"), state_of(second, 2), end_of(second)),
        *(*third.events(1, "READY"), state_of(third, 3), *third.events(1, "GUILD_CREATE")),
    ]


def named(item: ReceivedEvent | Gap) -> Any:
    if isinstance(item, Gap):
        return item.session and item.session[0], item.from_seq, item.to_seq
    return item.json()["number"] if item.seq is None else item.type


GAPS = [("a", 3, None), ("b", 2, None)]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["DISCORDER_GAP"], GAPS),
        (["DISCORDER_GAP", "DISCORDER_STATE"], [0, 1, GAPS[0], 2, GAPS[1], 3]),
        (["DISCORDER_STATE", "GUILD_CREATE"], [0, 1, GAPS[0], 2, GAPS[1], 3, "GUILD_CREATE"]),
        (None, ["READY", 0, 1, "MESSAGE_CREATE", GAPS[0], "READY", 2, GAPS[1], "READY", 3, "GUILD_CREATE"]),
    ],
)
async def test_the_oldest_start_has_the_held_records_in_their_place_once_each(
    bus: ZmqPublisher, types: list[str] | None, expected: list[Any]
) -> None:
    """Whether or not an event with a sequence comes before them, or at all."""
    bus.publish_nowait(three_sessions())
    late = Source("c" * 16)
    late.events(2)
    async with subscribe(reach(bus), types, start="oldest") as events, asyncio.timeout(SECONDS):
        assert [named(await anext(events)) for _ in expected] == expected
        bus.publish_nowait([state_of(late, 4), end_of(late)])  # nothing of the above comes again before it
        last = ("c", 3, None)
        assert named(await anext(events)) == (4 if types != ["DISCORDER_GAP"] else last)


async def test_the_oldest_start_has_records_that_come_before_the_replay_in_their_place(bus: ZmqPublisher) -> None:
    """They are read from the bus before the list of shards has come, and the replay has them too."""
    types = ["DISCORDER_GAP", "DISCORDER_STATE"]
    async with subscribe(reach(bus), types, start="oldest") as events, asyncio.timeout(SECONDS):
        await subscribed(bus, 3)
        bus.publish_nowait(three_sessions())
        await asyncio.sleep(0.1)  # they wait in the bot's socket before it asks for anything
        assert [named(await anext(events)) for _ in range(6)] == [0, 1, GAPS[0], 2, GAPS[1], 3]


async def test_records_that_come_while_the_held_ones_are_requested_come_once() -> None:
    source, count = Source(), 300
    bus = ZmqPublisher("tcp://127.0.0.1:*")
    await bus.open()
    bus.publish_nowait(source.events(1, "READY"))
    async with subscribe(reach(bus), ["DISCORDER_STATE"], start="oldest") as events:
        await subscribed(bus, 3)
        # they come live, and in the replay
        bus.publish_nowait([state_of(source, number, MOMENT + number * SECOND) for number in range(count)])
        async with asyncio.timeout(SECONDS):
            assert [named(await anext(events)) for _ in range(count)] == list(range(count))
    await bus.close()
