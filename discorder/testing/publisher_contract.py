"""Test what every publisher must do.

To test a publisher, write a rig that reads back the accepted events, and a subclass of the suite::

    class TestMySink(PublisherContract):
        @pytest.fixture
        def rig(self, tmp_path):
            return MyRig(tmp_path)

Each test runs on an event loop of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytest

from discorder.errors import DiscorderError, PublisherError
from discorder.publishers.protocol import NonBlockingPublisher, Publisher
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event

MEGABYTE = 1_000_000
TIMEOUT = 10.0  # seconds after which a publisher hangs

Received = tuple[str, int | None, bytes]  # type, seq and data of an event
SESSION = "0123456789abcdef"
RECEIVED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class PublisherRig(Protocol):
    """A publisher, not opened yet, and a way to read back what it published.

    ``must_be_open``: whether the publisher refuses events while it is closed; False for one that has nothing to open.
    """

    @property
    def publisher(self) -> Publisher: ...

    @property
    def must_be_open(self) -> bool: ...

    async def ready(self) -> None:
        """Return once `received` will see what is published from now on. Called after each `open`."""
        ...

    async def received(self, count: int) -> Sequence[Received]:
        """Return the next ``count`` published events, in order."""
        ...

    async def close(self) -> None:
        """Release the resources of the rig. The publisher is closed before."""
        ...


@runtime_checkable
class ServerRig(PublisherRig, Protocol):
    """The rig of a publisher that sends to a server, which it can take away."""

    async def interrupt(self) -> None:
        """End the server as a crash does: connections are lost, and none can be made."""
        ...

    async def restart(self) -> None:
        """Start the server again, with what it had stored."""
        ...


_TestBody = Callable[[PublisherRig], Coroutine[Any, Any, None]]


class PublisherContract:
    """The suite. A subclass, whose name must begin with Test, overrides the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> PublisherRig:
        """The publisher under test."""
        msg = f"{type(self).__name__} must override the fixture `rig`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def play(self, rig: PublisherRig) -> Callable[[_TestBody], None]:
        """Run the body of a test with the rig, then close the publisher and the rig."""

        async def run(body: _TestBody) -> None:
            try:
                await asyncio.wait_for(body(rig), TIMEOUT)
            finally:
                await rig.publisher.close()
                await rig.close()

        return lambda body: asyncio.run(run(body))

    # ---------------------------------------------------------------- published events

    def test_batches_arrive_whole_and_in_order(self, play: Callable[[_TestBody], None]) -> None:
        async def body(rig: PublisherRig) -> None:
            await _open(rig)
            events = [event(seq) for seq in range(1, 101)]
            for start in range(0, 100, 7):
                await rig.publisher.publish(events[start : start + 7])
            await _expect(rig, events)

        play(body)

    def test_data_arrives_byte_for_byte(self, play: Callable[[_TestBody], None]) -> None:
        events = [
            event(1, '{"content":"نمر 🐾 \\u0000 \\"quoted\\"\\t"}'.encode()),
            event(2, b'{"n":123456789012345678901234567890,"f":1.0e+2,  "spaced" : null}'),
            event(3, b'{"blob":"' + b"x" * MEGABYTE + b'"}', kind="GUILD_CREATE"),
            event(4, b"null", kind="RESUMED"),
        ]

        async def body(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish(events)
            await _expect(rig, events)

        play(body)

    def test_a_record_of_the_control_plane_has_no_seq_and_arrives_in_order(
        self, play: Callable[[_TestBody], None]
    ) -> None:
        gap = LostEvents(LossKind.SESSION, None, 2, None, "op 9", RECEIVED_AT, None)
        batch = [event(1), gap_record((0, 1), SESSION, RECEIVED_AT, gap), event(2)]

        async def body(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish(batch)
            await _expect(rig, batch)

        play(body)

    def test_an_empty_batch_is_accepted_and_publishes_nothing(self, play: Callable[[_TestBody], None]) -> None:
        async def body(rig: PublisherRig) -> None:
            await _open(rig)
            await rig.publisher.publish([])
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])

        play(body)

    def test_publish_nowait_takes_an_ordinary_batch_whole(self, play: Callable[[_TestBody], None]) -> None:
        """`publish_nowait` returns the number of accepted events. A publisher that waits need not offer it."""

        async def body(rig: PublisherRig) -> None:
            await _open(rig)
            events = [event(1), event(2), event(3)]
            if isinstance(rig.publisher, NonBlockingPublisher):
                assert rig.publisher.publish_nowait(events) == 3
                assert rig.publisher.publish_nowait([]) == 0
            else:
                await rig.publisher.publish(events)
            await _expect(rig, events)

        play(body)

    # ---------------------------------------------------------------- opening and closing

    def test_it_can_be_closed_twice_and_opened_again(self, play: Callable[[_TestBody], None]) -> None:
        async def body(rig: PublisherRig) -> None:
            await rig.publisher.close()
            await _open(rig)
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])
            await rig.publisher.close()
            await rig.publisher.close()
            await _open(rig)
            await rig.publisher.publish([event(2)])
            await _expect(rig, [event(2)])

        play(body)

    def test_a_publisher_that_must_be_open_refuses_events_while_it_is_closed(
        self, play: Callable[[_TestBody], None]
    ) -> None:
        async def body(rig: PublisherRig) -> None:
            if not rig.must_be_open:
                await rig.publisher.publish([event(1)])
                return
            with pytest.raises(PublisherError):
                await rig.publisher.publish([event(1)])
            await rig.publisher.open()
            await rig.publisher.close()
            with pytest.raises(PublisherError):
                await rig.publisher.publish([event(1)])

        play(body)

    def test_closing_leaves_no_thread_task_or_descriptor(self, play: Callable[[_TestBody], None]) -> None:
        async def body(rig: PublisherRig) -> None:
            # resources that are created only once, such as a library's own thread, do not count
            await rig.publisher.open()
            await rig.publisher.publish([event(1)])
            await rig.publisher.close()
            before = threading.active_count(), len(asyncio.all_tasks()), open_descriptors()
            for _ in range(3):
                await rig.publisher.open()
                await rig.publisher.publish([event(1)])
                await rig.publisher.close()
            assert (threading.active_count(), len(asyncio.all_tasks()), open_descriptors()) == before

        play(body)

    def test_a_publish_that_is_cancelled_can_be_closed_and_opened_again(
        self, play: Callable[[_TestBody], None]
    ) -> None:
        """The control plane cancels running calls at its end."""

        async def body(rig: PublisherRig) -> None:
            await rig.publisher.open()
            publishing = asyncio.ensure_future(rig.publisher.publish([event(1, b'"' + b"x" * MEGABYTE + b'"')] * 4))
            await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await asyncio.wait_for(rig.publisher.close(), TIMEOUT / 2)
            await rig.publisher.open()
            await rig.publisher.publish([event(2)])

        play(body)

    # ---------------------------------------------------------------- a server that goes away

    def test_a_batch_is_refused_without_the_server_and_accepted_when_it_is_back(
        self, play: Callable[[_TestBody], None]
    ) -> None:
        """`publish` itself restores the connection. A publisher without a server passes."""

        async def body(rig: PublisherRig) -> None:
            if not isinstance(rig, ServerRig):
                return
            await _open(rig)
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])
            await rig.interrupt()
            for _ in range(2):
                with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the client library raises
                    await rig.publisher.publish([event(2), event(3)])
            await rig.restart()
            await rig.ready()
            await rig.publisher.publish([event(2), event(3)])
            await _expect(rig, [event(2), event(3)])

        play(body)

    def test_it_can_be_closed_and_opened_around_an_absence_of_the_server(
        self, play: Callable[[_TestBody], None]
    ) -> None:
        """`open` raises without the server. A publisher without a server passes."""

        async def body(rig: PublisherRig) -> None:
            if not isinstance(rig, ServerRig):
                return
            await _open(rig)
            await rig.interrupt()
            await rig.publisher.close()
            with pytest.raises(DiscorderError):
                await rig.publisher.open()
            await rig.restart()
            await _open(rig)
            await rig.publisher.publish([event(1)])
            await _expect(rig, [event(1)])

        play(body)

    def test_it_has_a_name_and_says_whether_it_is_durable(self, play: Callable[[_TestBody], None]) -> None:
        async def body(rig: PublisherRig) -> None:
            assert isinstance(rig.publisher.name, str)
            assert rig.publisher.name
            assert isinstance(rig.publisher.durable, bool)

        play(body)


def event(seq: int, data: bytes = b'{"id":"1"}', kind: str = "MESSAGE_CREATE") -> Event:
    """Return an event of one session of shard 0."""
    return Event(kind, (0, 1), seq, None, SESSION, RECEIVED_AT, data)


def open_descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/dev/fd").iterdir()))


async def _open(rig: PublisherRig) -> None:
    await rig.publisher.open()
    await rig.ready()


async def _expect(rig: PublisherRig, events: Sequence[Event]) -> None:
    received = list(await rig.received(len(events)))
    assert received == [(sent.type, sent.seq, sent.data) for sent in events]
