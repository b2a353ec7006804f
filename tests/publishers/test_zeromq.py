"""ZeroMQ as a subscriber in another thread sees it, and the addresses that may and may not be bound."""

from __future__ import annotations

import asyncio
import importlib.resources
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import zmq

from discorder.clock import FakeClock
from discorder.errors import AddressInUse, ConfigError, PublisherError
from discorder.publishers import zeromq
from discorder.publishers.zeromq import ZmqPublisher
from discorder.wire import Event, decode_document, decode_envelope

MakeEvent = Callable[..., Event]
Connect = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
async def publisher() -> AsyncIterator[ZmqPublisher]:
    """An open publisher on a port of the system's choice."""
    made = ZmqPublisher("tcp://127.0.0.1:0")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that makes a connected SUB socket."""
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


async def test_every_subscription_of_every_subscriber_is_counted_until_it_ends(
    publisher: ZmqPublisher, connect: Connect
) -> None:
    first = connect(publisher.endpoints[0], "MESSAGE_CREATE", "READY")
    connect(publisher.endpoints[0], "READY")
    await subscribed(publisher, 3)
    first.unsubscribe("READY")
    await subscribed(publisher, 2)
    first.close(linger=0)
    await subscribed(publisher, 1)


async def test_what_a_subscriber_sends_is_bounded_and_read_even_when_no_event_comes(make_event: MakeEvent) -> None:
    """A huge subscription costs who sends it the connection, and nobody else anything; what is no subscription counts as none."""
    clock = FakeClock()
    bus = ZmqPublisher("tcp://127.0.0.1:0", clock=clock)
    await bus.open()
    context = zmq.Context()
    try:
        flood, greedy, reader = (context.socket(kind) for kind in (zmq.XSUB, zmq.XSUB, zmq.SUB))
        for sock in (flood, greedy, reader):
            sock.connect(bus.endpoints[0])
        flood.send(b"\1A")
        flood.send(b"hello")
        greedy.send(b"\1" + b"x" * 5_000)
        reader.subscribe("B")
        reader.set(zmq.RCVTIMEO, 10_000)
        await subscribed(bus, 2)
        flood.send(b"\1C")
        async with asyncio.timeout(10):
            while bus._subscriptions != 3:  # noqa: SLF001  # without asking, which would read
                await clock.advance(1.0)
                await asyncio.sleep(0.005)
        bus.publish_nowait([make_event(1, "B")])
        assert (await asyncio.to_thread(reader.recv_multipart))[0] == b"B"
    finally:
        await bus.close()
        context.destroy(linger=0)


async def test_several_endpoints_and_ipc(tmp_path: Path, connect: Connect, make_event: MakeEvent) -> None:
    publisher = ZmqPublisher(["tcp://127.0.0.1:*", "tcp://localhost:*", f"ipc://{tmp_path}/bus"])
    await publisher.open()
    subs = [connect(endpoint, "") for endpoint in publisher.endpoints]
    await subscribed(publisher, 3)
    await publisher.publish([make_event(7)])
    for sub in subs:
        assert decode_document((await asyncio.to_thread(sub.recv_multipart))[1]).seq == 7
        sub.close(linger=0)
    await publisher.close()
    assert publisher.endpoints == ()


async def test_a_subscriber_that_does_not_read_holds_up_nobody(connect: Connect, make_event: MakeEvent) -> None:
    """The slow one's pipe overflows unseen; the other gets everything."""
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
    """ZeroMQ itself would delete the path and bind anew, be it another publisher's socket or a file."""
    first, second = ZmqPublisher(f"ipc://{tmp_path}/bus"), ZmqPublisher(f"ipc://{tmp_path}/bus")
    await first.open()
    with pytest.raises(AddressInUse, match="bus is in use"):
        await second.open()
    await first.close()
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ConfigError, match="precious exists and is not a socket"):
        await ZmqPublisher(f"ipc://{tmp_path}/precious").open()
    assert (tmp_path / "precious").read_text() == "data"


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
    """The subscriber does not read, so that ZeroMQ lingers; that is its thread's affair."""
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=600)
    await publisher.open()
    connect(publisher.endpoints[0], "")
    await subscribed(publisher, 1)
    for seq in range(1, 3001):
        publisher.publish_nowait([make_event(seq, data=b'"' + b"x" * 20_000 + b'"')])
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await publisher.close()
    assert loop.time() - started < 0.3


async def test_a_zeromq_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is none that the process waits for at its end."""
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
