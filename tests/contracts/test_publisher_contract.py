"""Every publisher of the project passes the contract suite that other publishers use to test themselves."""

from __future__ import annotations

import asyncio
import csv
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import zmq
from nats.aio.client import Client
from nats.aio.msg import Msg

from discorder.publishers.channel import ChannelEventPublisher
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.publishers.journal import Journal
from discorder.publishers.journal.records import Decoder
from discorder.publishers.log import LogPublisher
from discorder.publishers.nats.options import Durability
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.testing import PublisherContract, PublisherRig, Received
from discorder.wire import decode_document
from tests.publishers.nats_server import NatsServer, in_thread, read_stream
from tests.publishers.redis_server import RedisServer, read_shard


class ZmqRig:
    must_be_open = True

    def __init__(self) -> None:
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

    async def received(self, count: int) -> list[Received]:
        assert self.socket is not None
        documents = [decode_document((await asyncio.to_thread(self.socket.recv_multipart))[1]) for _ in range(count)]
        return [(document.type, document.seq, bytes(document.data)) for document in documents]

    def close_socket(self) -> None:
        if self.socket is not None:
            self.socket.close(linger=0)

    async def close(self) -> None:
        self.close_socket()
        self.context.term()


class ChannelRig:
    must_be_open = True

    def __init__(self) -> None:
        self.publisher = ChannelEventPublisher()

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        events = [await self.publisher.get() for _ in range(count)]
        return [(event.type, event.seq, event.data) for event in events]

    async def close(self) -> None: ...


class FileRig:
    must_be_open = True

    def __init__(self, tmp_path: Path) -> None:
        self.publisher = DelimitedFileEventPublisher(tmp_path / "events.tsv")
        self.read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        with self.publisher.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t"))[self.read :]
        assert len(rows) == count
        self.read += count
        return [(row[0], int(row[4]) if row[4] else None, row[6].encode()) for row in rows]

    async def close(self) -> None: ...


class JournalRig:
    must_be_open = True

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "journal"
        self.publisher = Journal(self.directory)
        self.read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        """Read the files as they are now: what is accepted must be in them."""
        contents = [path.read_bytes() for path in sorted(self.directory.glob("segment.*"))]
        records = [(content, record) for content in contents for record in Decoder().scan(content)][self.read :]
        assert len(records) == count
        self.read += count
        return [(record.type, record.seq, record.read(content)) for content, record in records]

    async def close(self) -> None: ...


class LogRig:
    must_be_open = False

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "discorder.events")
        self.publisher = LogPublisher()
        self.caplog = caplog

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        lines = [record.getMessage() for record in self.caplog.records if record.name == "discorder.events"]
        self.caplog.clear()
        assert len(lines) == count
        return [_parsed(line) for line in lines]

    async def close(self) -> None: ...


class StreamRig:
    """The publisher ``nats`` in JetStream mode."""

    must_be_open = True
    durability: Durability = "acks"

    def __init__(self, server: NatsServer, prefix: str) -> None:
        self.publisher = NatsPublisher(server.url, prefix=prefix, stream_bytes=20_000_000, durability=self.durability)
        self.server = server
        self.stream = prefix.replace(".", "_")
        self.read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        """Read the stream as it is now: what is accepted must be in it."""
        stored = (await read_stream(self.server, self.stream))[self.read :]
        assert len(stored) == count
        self.read += count
        return [(one.document.type, one.document.seq, one.document.data) for one in stored]

    async def interrupt(self) -> None:
        self.server.kill()

    async def restart(self) -> None:
        await in_thread(self.server.start)

    async def close(self) -> None: ...


class SyncRig(StreamRig):
    """The same with atomic batches, which the server syncs."""

    durability = "sync"


class CoreRig:
    """The publisher ``nats`` in core mode."""

    must_be_open = True

    def __init__(self, server: NatsServer, prefix: str) -> None:
        self.publisher = NatsPublisher(server.url, prefix=prefix, mode="core")
        self.server = server
        self.prefix = prefix
        self.client: Client | None = None
        self.messages: asyncio.Queue[Msg] = asyncio.Queue()

    async def ready(self) -> None:
        await self.close()
        self.client = Client()
        await self.client.connect(self.server.url, allow_reconnect=False)
        await self.client.subscribe(f"{self.prefix}.>", cb=self.messages.put)
        await self.client.publish(f"{self.prefix}.probe")
        await self.messages.get()

    async def received(self, count: int) -> list[Received]:
        documents = [decode_document((await self.messages.get()).data) for _ in range(count)]
        assert self.messages.empty()
        return [(document.type, document.seq, document.data) for document in documents]

    async def interrupt(self) -> None:
        self.server.kill()

    async def restart(self) -> None:
        await in_thread(self.server.start)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()


class RedisRig:
    must_be_open = True

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self.publisher = RedisPublisher(server.url, maxlen=1_000, prefix=prefix)
        self.server = server
        self.prefix = prefix
        self.read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> list[Received]:
        """Read both streams as they are now: what is accepted must be in them."""
        stored = (await read_shard(self.server, self.prefix))[self.read :]
        assert len(stored) == count
        self.read += count
        return [(one.type, one.seq, one.data) for one in stored]

    async def interrupt(self) -> None:
        self.server.kill()

    async def restart(self) -> None:
        await in_thread(self.server.start)

    async def close(self) -> None: ...


def _parsed(line: str) -> Received:
    head, _, data = line.partition(" data=")
    seq = head.partition("seq=")[2].split()[0]
    return head.split()[0], None if seq == "None" else int(seq), data.encode()


class TestZmq(PublisherContract):
    @pytest.fixture
    def rig(self) -> PublisherRig:
        return ZmqRig()


class TestChannel(PublisherContract):
    @pytest.fixture
    def rig(self) -> PublisherRig:
        return ChannelRig()


class TestDelimitedFile(PublisherContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> PublisherRig:
        return FileRig(tmp_path)


class TestJournal(PublisherContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> PublisherRig:
        return JournalRig(tmp_path)


class TestNats(PublisherContract):
    @pytest.fixture(params=[StreamRig, SyncRig, CoreRig])
    def rig(self, request: pytest.FixtureRequest, nats_server: NatsServer) -> PublisherRig:
        rig: PublisherRig = request.param(nats_server, f"discord.{uuid4().hex}")
        return rig


class TestRedis(PublisherContract):
    @pytest.fixture
    def rig(self, redis_server: RedisServer) -> PublisherRig:
        return RedisRig(redis_server, f"discord:{uuid4().hex}")


class TestLog(PublisherContract):
    @pytest.fixture
    def rig(self, caplog: pytest.LogCaptureFixture) -> PublisherRig:
        return LogRig(caplog)


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


def test_only_what_a_file_accepts_survives_the_process() -> None:
    classes = (ZmqPublisher, ChannelEventPublisher, DelimitedFileEventPublisher, Journal, LogPublisher)
    assert [cls for cls in classes if cls.durable] == [DelimitedFileEventPublisher, Journal]


FAULTY_SINKS = """
import asyncio, pytest
from discorder.errors import PublisherError
from discorder.testing import PublisherContract

class Sink:
    name, durable, is_open = "sink", False, False

    def __init__(self):
        self.out = []

    async def open(self):
        self.is_open = True

    async def publish(self, events):
        if not self.is_open:
            raise PublisherError("sink is not open")
        self.accept(events)

    async def close(self):
        self.is_open = False

class Rig:
    must_be_open = True

    def __init__(self, publisher):
        self.publisher = publisher

    async def ready(self): ...

    async def received(self, count):
        taken, self.publisher.out = self.publisher.out[:count], self.publisher.out[count:]
        return [(event.type, event.seq, event.data) for event in taken]

    async def close(self): ...
"""

FAULTY_SINK = """
class {name}(Sink):
    def accept(self, events):
        {fault}

class Test{name}(PublisherContract):
    @pytest.fixture
    def rig(self):
        return Rig({name}())
"""

FAULTS = {
    "Sound": ("self.out += events", set()),
    "Reversing": (
        "self.out += reversed(events)",
        {"batches_arrive_whole", "data_arrives", "a_record_of", "publish_nowait_takes"},
    ),
    "DroppingRecords": ("self.out += [event for event in events if event.seq]", {"a_record_of"}),
    "AddingSomething": ("self.out += events or [None]", {"an_empty_batch"}),
    "LeavingTasks": (
        "self.task = asyncio.ensure_future(asyncio.sleep(60)); self.out += events",
        {"closing_leaves"},
    ),
    "ClosingItself": ("self.out += events; self.is_open = False", {"batches_arrive_whole", "an_empty_batch"}),
}


@pytest.mark.heavy
@pytest.mark.system
def test_the_suite_detects_a_publisher_that_breaks_the_contract(tmp_path: Path) -> None:
    """The suite runs under plain pytest without plug-ins, as in another repository."""
    sinks = [FAULTY_SINK.format(name=name, fault=fault) for name, (fault, _) in FAULTS.items()]
    (tmp_path / "test_sinks.py").write_text(FAULTY_SINKS + "".join(sinks))
    plain = ("-p", "no:asyncio", "-p", "no:xdist", "-p", "no:cacheprovider", "-W", "error", "-q", "-rf", "--tb=line")
    command = [sys.executable, "-m", "pytest", *plain, str(tmp_path / "test_sinks.py")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    found = {match.groups() for match in re.finditer(r"^FAILED \S+::Test(\w+)::test_(\w+)", run.stdout, re.MULTILINE)}
    for name, (_, expected) in FAULTS.items():
        failed = {test for sink, test in found if sink == name}
        told = {start for start in expected if any(test.startswith(start) for test in failed)}
        assert (told, len(failed)) == (expected, len(expected)), f"{name}: {failed}\n{run.stdout}"
