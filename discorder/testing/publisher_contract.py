"""What every publisher must do, whatever it carries events with.

A publisher tests itself with a rig, which reads back what was accepted, and a subclass of the suite::

    class TestMySink(PublisherContract):
        @pytest.fixture
        def rig(self, tmp_path):
            return MyRig(tmp_path)

Must not: know a publisher, or need a plug-in of pytest. Each test runs on a loop of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from discorder.errors import PublisherError
from discorder.publishers.protocol import NonBlockingPublisher, Publisher
from discorder.records import Gap, GapKind, gap_record
from discorder.wire import Event

MEGABYTE = 1_000_000
PATIENCE = 10.0  # seconds; only a publisher that hangs takes so long

Received = tuple[str, int | None, bytes]  # type, seq and data of an event
SESSION = "0123456789abcdef"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class PublisherRig(Protocol):
    """A publisher and a way to see what came out of it. Nothing is open when it is made.

    ``must_be_open``: whether the publisher refuses events while it is closed; False for one that has nothing to open.
    """

    @property
    def publisher(self) -> Publisher: ...

    @property
    def must_be_open(self) -> bool: ...

    async def ready(self) -> None:
        """Called after each `open`: return once what is published from now on will be seen."""
        ...

    async def received(self, count: int) -> Sequence[Received]:
        """The next ``count`` events that came out, in order."""
        ...

    async def close(self) -> None:
        """Give back what the rig itself holds. The publisher is closed before."""
        ...


Scenario = Callable[[PublisherRig], Coroutine[Any, Any, None]]


class PublisherContract:
    """The suite. A subclass, whose name begins with Test, overrides the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> PublisherRig:
        """The publisher under test."""
        msg = f"{type(self).__name__} must override the fixture `rig`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def play(self, rig: PublisherRig) -> Callable[[Scenario], None]:
        """Runs a scenario with the rig and closes both afterwards."""

        async def run(scenario: Scenario) -> None:
            try:
                await asyncio.wait_for(scenario(rig), PATIENCE)
            finally:
                await rig.publisher.close()
                await rig.close()

        return lambda scenario: asyncio.run(run(scenario))

    # ---------------------------------------------------------------- what comes out

    def test_batches_arrive_whole_and_in_order(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            await _open(rig)
            events = [event(seq) for seq in range(1, 101)]
            for start in range(0, 100, 7):
                await rig.publisher.publish(events[start : start + 7])
            await _expect(rig, events)

        play(scenario)

    def test_data_arrives_byte_for_byte(self, play: Callable[[Scenario], None]) -> None:
        events = [
            event(1, '{"content":"نمر 🐾 \\u0000 \\"quoted\\"\\t"}'.encode()),
            event(2, b'{"n":123456789012345678901234567890,"f":1.0e+2,  "spaced" : null}'),
            event(3, b'{"blob":"' + b"x" * MEGABYTE + b'"}', kind="GUILD_CREATE"),
            event(4, b"null", kind="RESUMED"),
        ]

        async def scenario(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish(events)
            await _expect(rig, events)

        play(scenario)

    def test_a_record_of_the_control_plane_has_no_seq_and_arrives_in_its_place(
        self, play: Callable[[Scenario], None]
    ) -> None:
        gap = Gap(GapKind.SESSION, None, 2, None, "op 9", MOMENT, None)
        batch = [event(1), gap_record((0, 1), SESSION, MOMENT, gap), event(2)]

        async def scenario(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish(batch)
            await _expect(rig, batch)

        play(scenario)

    def test_an_empty_batch_is_accepted_and_publishes_nothing(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish([])
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])

        play(scenario)

    def test_publish_nowait_takes_an_ordinary_batch_whole(self, play: Callable[[Scenario], None]) -> None:
        """A publisher that can be called in line counts what it accepted. One that waits need not offer it."""

        async def scenario(rig: PublisherRig) -> None:
            await _open(rig)
            events = [event(1), event(2), event(3)]
            if isinstance(rig.publisher, NonBlockingPublisher):
                assert rig.publisher.publish_nowait(events) == 3
                assert rig.publisher.publish_nowait([]) == 0
            else:
                await rig.publisher.publish(events)
            await _expect(rig, events)

        play(scenario)

    # ---------------------------------------------------------------- opening and closing

    def test_it_can_be_closed_twice_and_opened_again(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            await rig.publisher.close()
            await _open(rig)
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])
            await rig.publisher.close()
            await rig.publisher.close()
            await _open(rig)
            await rig.publisher.publish([event(2)])
            await _expect(rig, [event(2)])

        play(scenario)

    def test_what_needs_opening_refuses_events_while_it_is_closed(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            if not rig.must_be_open:
                await rig.publisher.publish([event(1)])
                return
            with pytest.raises(PublisherError):
                await rig.publisher.publish([event(1)])
            await rig.publisher.open()
            await rig.publisher.close()
            with pytest.raises(PublisherError):
                await rig.publisher.publish([event(1)])

        play(scenario)

    def test_closing_leaves_no_thread_task_or_descriptor(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            await rig.publisher.open()  # what is made once for all, such as a library's own thread, does not count
            await rig.publisher.publish([event(1)])
            await rig.publisher.close()
            before = threading.active_count(), len(asyncio.all_tasks()), open_descriptors()
            for _ in range(3):
                await rig.publisher.open()
                await rig.publisher.publish([event(1)])
                await rig.publisher.close()
            assert (threading.active_count(), len(asyncio.all_tasks()), open_descriptors()) == before

        play(scenario)

    def test_a_publish_that_is_cancelled_can_be_closed_and_opened_again(self, play: Callable[[Scenario], None]) -> None:
        """The control plane cancels what still runs when it ends."""

        async def scenario(rig: PublisherRig) -> None:
            await rig.publisher.open()
            publishing = asyncio.ensure_future(rig.publisher.publish([event(1, b'"' + b"x" * MEGABYTE + b'"')] * 4))
            await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await asyncio.wait_for(rig.publisher.close(), PATIENCE / 2)
            await rig.publisher.open()
            await rig.publisher.publish([event(2)])

        play(scenario)

    def test_it_says_who_it_is(self, play: Callable[[Scenario], None]) -> None:
        async def scenario(rig: PublisherRig) -> None:
            assert isinstance(rig.publisher.name, str)
            assert rig.publisher.name
            assert isinstance(rig.publisher.durable, bool)

        play(scenario)


def event(seq: int, data: bytes = b'{"id":"1"}', kind: str = "MESSAGE_CREATE") -> Event:
    """An event of one session of shard 0."""
    return Event(kind, (0, 1), seq, None, SESSION, MOMENT, data)


def open_descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


async def _open(rig: PublisherRig) -> None:
    await rig.publisher.open()
    await rig.ready()


async def _expect(rig: PublisherRig, events: Sequence[Event]) -> None:
    received = list(await rig.received(len(events)))
    assert received == [(sent.type, sent.seq, sent.data) for sent in events]
