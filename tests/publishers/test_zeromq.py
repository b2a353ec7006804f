"""ZeroMQ as a subscriber in another thread sees it, and the addresses that may and may not be bound."""

from __future__ import annotations

import asyncio
import grp
import importlib.resources
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import zmq

from discorder.bot.subscriber import Subscription, subscribe
from discorder.errors import AddressInUse, ConfigError, PublisherError
from discorder.publishers.delivery import keep_running
from discorder.publishers.delivery.fanout import FanOut
from discorder.publishers.zeromq import publisher as zeromq
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.subscriptions import NEW_TOPICS, SubscriptionLimit, connections
from discorder.wire import Event, ReceivedEvent, decode_document, decode_envelope

MakeEvent = Callable[..., Event]
Connect = Callable[..., zmq.Socket[bytes]]
TOO_MANY = 2_000_000  # topics: more than the buffers of a connection hold


@pytest.fixture
async def publisher() -> AsyncIterator[ZmqPublisher]:
    """An open publisher on a port that the system chooses."""
    made = ZmqPublisher("tcp://127.0.0.1:0")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that makes a connected SUB socket."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(endpoint: str, *topics: str) -> zmq.Socket[bytes]:
        sub = context.socket(zmq.SUB)
        made.append(sub)
        sub.set(zmq.RCVTIMEO, 5_000)
        sub.connect(endpoint)
        for topic in topics:
            sub.subscribe(topic)
        return sub

    yield make
    context.destroy(linger=0)


async def subscribed(publisher: ZmqPublisher, count: int) -> None:
    async with asyncio.timeout(5):
        while publisher.subscriptions != count:  # noqa: ASYNC110  # ZeroMQ tells of subscriptions only when asked
            await asyncio.sleep(0.005)


async def test_all_payload_frames_arrive_byte_identical(publisher: ZmqPublisher, connect: Connect) -> None:
    files = sorted(
        (Path(str(file)) for file in (importlib.resources.files("discorder.simulator") / "payloads").iterdir()),
        key=lambda file: file.name,
    )
    envelopes = [decode_envelope(file.read_bytes()) for file in files if file.suffix == ".json"]
    assert len(envelopes) == 135
    now = datetime.now(UTC)
    events = [Event(e.t or "", (0, 1), seq, None, "0" * 16, now, bytes(e.d)) for seq, e in enumerate(envelopes, 1)]
    sub = connect(publisher.endpoints[0], "")
    await subscribed(publisher, 1)
    reading = asyncio.to_thread(lambda: [sub.recv_multipart() for _ in events])
    publisher.publish_nowait(events)
    for event, (topic, document) in zip(events, await reading, strict=True):
        received = decode_document(document)
        assert topic.decode() == received.type == event.type
        assert bytes(received.data) == event.data
        assert received.seq == event.seq
        msgspec.json.decode(document)


async def test_a_subscriber_gets_each_of_its_topics_and_no_other(
    publisher: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    """Each pass processes only a few subscriptions, but all are processed within two seconds."""
    names = [f"EVENT_{number}" for number in range(140)]
    sub = connect(publisher.endpoints[0], *names)
    began = asyncio.get_running_loop().time()
    await subscribed(publisher, 140)
    assert asyncio.get_running_loop().time() - began < 2.0
    publisher.publish_nowait([make_event(seq, name) for seq, name in enumerate(["OTHER", *names], 1)])
    reading = asyncio.to_thread(lambda: [sub.recv_multipart()[0].decode() for _ in names])
    assert await reading == names


async def test_subscriptions_are_taken_in_again_after_an_error(
    publisher: ZmqPublisher, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the task that reads them is logged, and the task is restarted."""
    errors = [ValueError("no such descriptor")]

    def enforce(limit: SubscriptionLimit) -> None:
        if errors:
            raise errors.pop()
        _ = limit.topics

    monkeypatch.setattr(SubscriptionLimit, "enforce", enforce)
    monkeypatch.setattr(keep_running, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(zeromq, "POSITION_EVERY", 600.0)
    connect(publisher.endpoints[0], "A")
    await subscribed(publisher, 1)
    async with asyncio.timeout(5.0):
        while "The task subscriptions of zmq failed and begins again" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_a_subscriber_sends_is_bounded(
    publisher: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    """A huge subscription ends the sender's connection and no other. A message that is no subscription does not count."""
    reader = connect(publisher.endpoints[0], "B")
    context = zmq.Context()
    try:
        odd, greedy = context.socket(zmq.XSUB), context.socket(zmq.XSUB)
        for sock in (odd, greedy):
            sock.connect(publisher.endpoints[0])
        odd.send(b"\1A")
        odd.send(b"hello")
        greedy.send(b"\1" + b"x" * 200)
        await subscribed(publisher, 2)
        publisher.publish_nowait([make_event(1, "B")])
        assert (await asyncio.to_thread(reader.recv_multipart))[0] == b"B"
        assert publisher.subscriptions == 2
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("scheme", ["tcp://127.0.0.1:0", "ipc://{folder}/bus"])
async def test_a_client_that_subscribes_without_an_end_is_cut_and_a_reader_goes_on(
    tmp_path: Path, make_event: MakeEvent, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    """Neither the topics nor the CPU time grow with what it sends."""
    bus = ZmqPublisher(scheme.format(folder=tmp_path))
    await bus.open()
    flooding = asyncio.create_task(asyncio.to_thread(flood_with_topics, bus.endpoints[0], TOO_MANY))
    async with subscribe(bus.endpoints[0], ["MESSAGE_CREATE"], start="oldest", replay=bus.replay_endpoint) as events:
        reading = asyncio.create_task(take_all(events, 200))
        cpu, longest = time.thread_time(), 0.0
        for seq in range(1, 201):
            bus.publish_nowait([make_event(seq)])
            await asyncio.sleep(0.005)
            longest = max(longest, bus_share(bus))
        sent = await asyncio.wait_for(flooding, 20)
        assert await asyncio.wait_for(reading, 20) == list(range(1, 201)), "whatever was cut, nothing is lost"
        assert time.thread_time() - cpu < 5.0
    assert sent < TOO_MANY, "the flood was not cut"
    assert longest < 0.05, "seconds of the processor for one look; 5 ms but for a machine under load"
    assert bus.subscriptions < 10 * NEW_TOPICS
    assert "clients subscribe to more and more topics" in caplog.text
    await bus.close()


def bus_share(bus: ZmqPublisher) -> float:
    began = time.thread_time()
    assert bus.subscriptions >= 0
    return time.thread_time() - began


async def take_all(events: Subscription[ReceivedEvent], count: int) -> list[int | None]:
    """Return the sequences of ``count`` events. A gap is not an event and fails the test."""
    seqs: list[int | None] = []
    while len(seqs) < count:
        event = await anext(events)
        assert isinstance(event, ReceivedEvent), event
        seqs.append(event.seq)
    return seqs


def flood_with_topics(endpoint: str, count: int) -> int:
    """Subscribe to ``count`` topics over a bare socket; return how many were sent before the connection was closed."""
    scheme, _, address = endpoint.partition("://")
    family = socket.AF_UNIX if scheme == "ipc" else socket.AF_INET
    host, _, port = address.rpartition(":")
    with socket.socket(family) as raw:
        raw.settimeout(10)
        raw.connect(address if scheme == "ipc" else (host, int(port)))
        raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type\0\0\0\3SUB"
        raw.sendall(bytes([4, len(ready)]) + ready)
        greeting = b""
        while (
            len(greeting) <= 64
        ):  # the greeting, and the beginning of the bus's READY: sending earlier breaks the protocol
            greeting += raw.recv(4_096)
        for number in range(0, count, 100):
            topics = (b"%020d" % topic for topic in range(number, number + 100))
            try:
                raw.sendall(b"".join(b"\0" + bytes([len(topic) + 1]) + b"\1" + topic for topic in topics))
            except OSError:
                return number
        return count


async def test_several_endpoints_and_ipc(tmp_path: Path, connect: Connect, make_event: MakeEvent) -> None:
    publisher = ZmqPublisher(["tcp://127.0.0.1:*", "tcp://localhost:*", f"ipc://{tmp_path}/bus"])
    await publisher.open()
    subs = [connect(endpoint, "") for endpoint in publisher.endpoints]
    async with asyncio.timeout(5):
        while len(connections(publisher.endpoints)) < 3:  # noqa: ASYNC110  # the kernel tells of them only when asked
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)  # for the subscriptions to the same topic, of which ZeroMQ reports only the first
    await publisher.publish([make_event(7)])
    for sub in subs:
        assert decode_document((await asyncio.to_thread(sub.recv_multipart))[1]).seq == 7
        sub.close(linger=0)
    await publisher.close()
    assert publisher.endpoints == ()


async def test_a_subscriber_that_does_not_read_holds_up_nobody(connect: Connect, make_event: MakeEvent) -> None:
    """The slow subscriber's pipe overflows without notice; the other gets everything."""
    publisher = ZmqPublisher("tcp://127.0.0.1:*", hwm=100, linger_ms=0)
    await publisher.open()
    connect(publisher.endpoints[0], "GUILD_CREATE")
    reader = connect(publisher.endpoints[0], "MESSAGE_CREATE")
    await subscribed(publisher, 2)
    for seq in range(1, 301):
        publisher.publish_nowait([make_event(seq, "GUILD_CREATE", b'"' + b"x" * 100_000 + b'"'), make_event(seq)])
        assert decode_document((await asyncio.to_thread(reader.recv_multipart))[1]).seq == seq
    await publisher.close()


async def test_what_was_sent_just_before_close_still_arrives(connect: Connect, make_event: MakeEvent) -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=5_000)
    await publisher.open()
    sub = connect(publisher.endpoints[0], "")
    await subscribed(publisher, 1)
    publisher.publish_nowait([make_event(seq) for seq in range(1, 1001)])
    reading = asyncio.to_thread(lambda: [decode_document(sub.recv_multipart()[1]).seq for _ in range(1000)])
    _, seqs = await asyncio.gather(publisher.close(), reading)
    assert seqs == list(range(1, 1001))


async def test_a_busy_port_is_named_with_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        publisher = ZmqPublisher(["tcp://127.0.0.1:*", endpoint], name="bus")
        with pytest.raises(
            AddressInUse, match=rf"publishers\.bus\.bind: {endpoint} is in use; .*another address or port"
        ):
            await publisher.open()
    await publisher.open()
    with pytest.raises(PublisherError, match="open already"):
        await publisher.open()
    await publisher.close()


async def test_an_ipc_path_that_somebody_uses_is_not_taken_from_them(tmp_path: Path) -> None:
    """ZeroMQ itself would delete the path and bind anew, whether it is another publisher's socket or a file."""
    first, second = ZmqPublisher(f"ipc://{tmp_path}/bus"), ZmqPublisher(f"ipc://{tmp_path}/bus")
    await first.open()
    with pytest.raises(AddressInUse, match="bus is in use"):
        await second.open()
    await first.close()
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ConfigError, match="precious exists and is not a socket"):
        await ZmqPublisher(f"ipc://{tmp_path}/precious").open()
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize(("mode", "bits"), [("0600", 0o600), ("0660", 0o660), ("660", 0o660)])
async def test_sockets_of_ipc_belong_to_their_owner_unless_the_mode_says_otherwise(
    tmp_path: Path, mode: str, bits: int
) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    before = os.umask(0)
    try:
        bus = ZmqPublisher(f"ipc://{tmp_path}/bus", mode=mode, group=group)
        await bus.open()
        (tmp_path / "file").touch()
    finally:
        os.umask(before)
    for name in ("bus", "bus.replay"):
        status = (tmp_path / name).stat()
        assert stat.S_IMODE(status.st_mode) == bits
        assert status.st_gid == os.getgid()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666, "and the process's umask is as it was"
    await bus.close()


async def test_others_are_let_in_only_where_the_bus_is_protected_or_trusted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.mode: with 0666 every user"):
        ZmqPublisher(f"ipc://{tmp_path}/bus", mode="0666")
    ZmqPublisher(f"ipc://{tmp_path}/bus", mode="0666", insecure=True)
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.group: there is no group 'no-such-group'"):
        ZmqPublisher(f"ipc://{tmp_path}/bus", group="no-such-group")
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.bind: every user of this machine .* abstract socket"):
        ZmqPublisher("ipc://@discorder")
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.replay: every user of this machine"):
        ZmqPublisher(replay="ipc://@discorder")


async def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "bus"))
    left.close()
    publisher = ZmqPublisher(f"ipc://{tmp_path}/bus")
    await publisher.open()
    await publisher.close()


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:6000", "tcp://0.0.0.0:6000", "tcp://[::]:6000", "tcp://192.0.2.1:6000", "tcp://eth0:6000"]
)
def test_what_other_hosts_can_reach_needs_to_be_asked_for(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.bind: other hosts .* insecure = true"):
        ZmqPublisher(endpoint)
    ZmqPublisher(endpoint, insecure=True)


@pytest.mark.parametrize(
    "endpoint",
    ["", "6000", "127.0.0.1:6000", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:1", "ipc://"],
)
def test_what_is_no_endpoint_is_refused_before_anything_opens(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is not an endpoint to bind; allowed: tcp://HOST:PORT and ipc://PATH"):
        ZmqPublisher(endpoint)


async def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot bind tcp://192\.0\.2\.1:6000"):
        await ZmqPublisher("tcp://192.0.2.1:6000", insecure=True).open()


def test_no_endpoint_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no endpoint"):
        ZmqPublisher([])


async def test_a_close_that_is_cancelled_does_not_keep_the_loop_waiting(
    connect: Connect, make_event: MakeEvent
) -> None:
    """The subscriber does not read, so that ZeroMQ lingers, in its own thread."""
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=600)
    await publisher.open()
    connect(publisher.endpoints[0], "")
    await subscribed(publisher, 1)
    for seq in range(1, 3001):
        publisher.publish_nowait([make_event(seq, data=b'"' + b"x" * 20_000 + b'"')])
    await asyncio.sleep(0)  # at the end of the turn they are sent
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await publisher.close()
    assert loop.time() - started < 0.3


async def test_a_zeromq_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process does not wait for its thread at exit."""
    monkeypatch.setattr(zeromq, "END_GRACE", 0.05)
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=0)
    await publisher.open()
    assert publisher._context is not None  # noqa: SLF001  # to hold it up: ZeroMQ waits for every socket
    forgotten = publisher._context.socket(zmq.PUB)  # noqa: SLF001
    endpoint = publisher.endpoints[0]
    await publisher.close()
    (ending,) = (thread for thread in threading.enumerate() if thread.name == "zmq-term")
    again = ZmqPublisher(endpoint)
    await again.open()
    await again.close()
    held_up = ending.is_alive()
    forgotten.close()
    ending.join(5)
    assert held_up
    assert not ending.is_alive()
    assert ending.daemon
    assert "Publisher zmq: ZeroMQ did not end" in caplog.text


async def test_a_batch_that_is_too_large_for_the_queue_of_a_subscriber_is_sent_in_parts(
    fan_out: FanOut, connect: Connect, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ would drop the rest silently. Between two parts the loop runs other tasks."""
    publisher = ZmqPublisher("tcp://127.0.0.1:0", hwm=20)
    fan_out.add(publisher)
    await fan_out.open()
    sub = connect(publisher.endpoints[0], "")
    await subscribed(publisher, 1)
    parts: list[list[int | None]] = []
    send = publisher.publish_nowait

    def read_and_send(events: Sequence[Event]) -> int:
        for _ in parts[-1] if parts else ():
            sub.recv_multipart()
        parts.append([event.seq for event in events])
        return send(events)

    monkeypatch.setattr(publisher, "publish_nowait", read_and_send)
    fan_out.shard(0).hand_over([make_event(seq) for seq in range(1, 36)])
    assert parts == []
    async with asyncio.timeout(5):
        while len(parts) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert parts == [list(range(1, 11)), list(range(11, 21)), list(range(21, 31)), list(range(31, 36))]
    assert [decode_document(sub.recv_multipart()[1]).seq for _ in parts[-1]] == parts[-1]
