"""What every publisher must do, whatever it carries events with. One rig per implementation reads back what was accepted."""

from __future__ import annotations

import asyncio
import csv
import logging
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
import zmq

from discorder.errors import PublisherError
from discorder.publishers.channel import ChannelEventPublisher
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.publishers.log import LogPublisher
from discorder.publishers.protocol import NonBlockingPublisher, Publisher
from discorder.publishers.zeromq import ZmqPublisher
from discorder.wire import Event, decode_document

MEGABYTE = 1_000_000


class Rig(Protocol):
    """A publisher and a way to see what came out of it, as (type, seq, data)."""

    publisher: Publisher

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[tuple[str, int | None, bytes]]: ...

    def close(self) -> None: ...


class ZmqRig:
    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.publisher = ZmqPublisher("tcp://127.0.0.1:*")
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] | None = None

    async def ready(self) -> None:
        self.close_socket()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.set(zmq.RCVTIMEO, 5_000)
        self.socket.subscribe(b"")
        self.socket.connect(self.publisher.endpoints[0])
        while not self.publisher.subscriptions:  # noqa: ASYNC110  # ZeroMQ tells of subscriptions only when asked
            await asyncio.sleep(0.005)

    async def received(self, count: int) -> list[tuple[str, int | None, bytes]]:
        assert self.socket is not None
        documents = [decode_document((await asyncio.to_thread(self.socket.recv_multipart))[1]) for _ in range(count)]
        return [(document.type, document.seq, bytes(document.data)) for document in documents]

    def close_socket(self) -> None:
        if self.socket is not None:
            self.socket.close(linger=0)

    def close(self) -> None:
        self.close_socket()
        self.context.term()


class ChannelRig:
    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.publisher = ChannelEventPublisher()

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[tuple[str, int | None, bytes]]:
        events = [await self.publisher.get() for _ in range(count)]
        return [(event.type, event.seq, event.data) for event in events]

    def close(self) -> None: ...


class FileRig:
    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.publisher = DelimitedFileEventPublisher(tmp_path / "events.tsv")
        self.read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[tuple[str, int | None, bytes]]:
        csv.field_size_limit(2 * MEGABYTE)
        with self.publisher.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t"))[self.read :]
        assert len(rows) == count
        self.read += count
        return [(row[0], int(row[4]), row[5].encode()) for row in rows]

    def close(self) -> None: ...


class LogRig:
    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "discorder.events")
        self.publisher = LogPublisher()
        self.caplog = caplog

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[tuple[str, int | None, bytes]]:
        lines = [record.getMessage() for record in self.caplog.records if record.name == "discorder.events"]
        self.caplog.clear()
        assert len(lines) == count
        heads_and_data = [line.partition(" data=") for line in lines]
        return [
            (head.split()[0], int(head.partition("seq=")[2].split()[0]), data.encode())
            for head, _, data in heads_and_data
        ]

    def close(self) -> None: ...


@pytest.fixture(params=[ZmqRig, ChannelRig, FileRig, LogRig], ids=["zmq", "channel", "delimited_file", "log"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Rig]:
    """Each implementation in turn; closed afterwards."""
    made: Rig = request.param(tmp_path, caplog)
    yield made
    await made.publisher.close()
    made.close()


def event(seq: int, data: bytes = b'{"id":"1"}', kind: str = "MESSAGE_CREATE") -> Event:
    return Event(kind, (0, 1), seq, None, "0123456789abcdef", datetime(2026, 1, 1, tzinfo=UTC), data)


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def as_received(events: list[Event]) -> list[tuple[str, int | None, bytes]]:
    return [(sent.type, sent.seq, sent.data) for sent in events]


async def test_batches_arrive_whole_and_in_order(rig: Rig) -> None:
    await rig.publisher.open()
    await rig.ready()
    events = [event(seq) for seq in range(1, 101)]
    for start in range(0, 100, 7):
        await rig.publisher.publish(events[start : start + 7])
    assert await rig.received(100) == as_received(events)


async def test_an_empty_batch_is_accepted_and_publishes_nothing(rig: Rig) -> None:
    await rig.publisher.open()
    await rig.ready()
    await rig.publisher.publish([])
    await rig.publisher.publish([event(1)])
    assert await rig.received(1) == as_received([event(1)])


async def test_publish_nowait_counts_what_it_accepted(rig: Rig) -> None:
    """A publisher that can be called in line takes an ordinary batch whole; the file, which waits, must not offer it."""
    await rig.publisher.open()
    await rig.ready()
    events = [event(1), event(2), event(3)]
    if isinstance(rig.publisher, NonBlockingPublisher):
        assert rig.publisher.publish_nowait(events) == 3
        assert await rig.received(3) == as_received(events)
    else:
        assert rig.publisher.durable


async def test_data_arrives_byte_for_byte(rig: Rig) -> None:
    await rig.publisher.open()
    await rig.ready()
    events = [
        event(1, '{"content":"نمر 🐾 \\u0000 \\"quoted\\"\\t"}'.encode()),
        event(2, b'{"n":123456789012345678901234567890,"f":1.0e+2,  "spaced" : null}'),
        event(3, b'{"blob":"' + b"x" * MEGABYTE + b'"}', kind="GUILD_CREATE"),
        event(4, b"null", kind="RESUMED"),
    ]
    await rig.publisher.publish(events)
    assert await rig.received(4) == as_received(events)


async def test_it_can_be_closed_twice_and_opened_again(rig: Rig) -> None:
    await rig.publisher.close()
    await rig.publisher.open()
    await rig.ready()
    await rig.publisher.publish([event(1)])
    assert await rig.received(1) == as_received([event(1)])
    await rig.publisher.close()
    await rig.publisher.close()
    await rig.publisher.open()
    await rig.ready()
    await rig.publisher.publish([event(2)])
    assert await rig.received(1) == as_received([event(2)])


async def test_what_needs_opening_refuses_events_while_it_is_closed(rig: Rig) -> None:
    if isinstance(rig.publisher, LogPublisher):
        await rig.publisher.publish([event(1)])  # logging is always there
        return
    with pytest.raises(PublisherError, match="not open"):
        await rig.publisher.publish([event(1)])
    await rig.publisher.open()
    await rig.publisher.close()
    with pytest.raises(PublisherError, match="not open"):
        await rig.publisher.publish([event(1)])


async def test_closing_leaves_no_thread_and_no_descriptor(rig: Rig) -> None:
    before = threading.active_count(), open_descriptors()
    for _ in range(3):
        await rig.publisher.open()
        await rig.publisher.publish([event(1)])
        await rig.publisher.close()
    assert (threading.active_count(), open_descriptors()) == before


async def test_it_says_who_it_is(rig: Rig) -> None:
    assert rig.publisher.name
    assert rig.publisher.durable is isinstance(rig.publisher, DelimitedFileEventPublisher)
