"""An open websocket whose peer is a socket on which the test writes bytes."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator

import pytest

from discorder.errors import Closed, ProtocolBreach
from discorder.transport.frames import Opcode
from discorder.transport.inflate import Inflater, inflater
from discorder.transport.protocol import MAX_BATCH
from discorder.transport.websocket import LARGE_MESSAGE, WebSocket, answer_to


def frame(payload: bytes, opcode: int = Opcode.BINARY) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


class Peer:
    """The server's end of the connection."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.plain_texts = 0
        self.arrived = asyncio.Event()

    async def start(self, context: Inflater | None = None) -> WebSocket:
        ours, theirs = socket.socketpair()
        self.reader, self.writer = await asyncio.open_connection(sock=theirs)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        self.websocket = WebSocket(transport, self.deliver, context, self.plain_text)
        self.transport = transport
        transport.set_protocol(self.websocket)
        return self.websocket

    def deliver(self, batch: list[bytes]) -> None:
        self.batches.append(batch)
        self.arrived.set()

    def plain_text(self) -> None:
        self.plain_texts += 1

    @property
    def messages(self) -> list[bytes]:
        return [message for batch in self.batches for message in batch]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()

    async def reads(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame that the client wrote."""
        async with asyncio.timeout(60):
            first, length = await self.reader.readexactly(2)
            key = await self.reader.readexactly(4)
            masked = await self.reader.readexactly(length & 0x7F)
        return first & 0x0F, bytes(byte ^ key[at % 4] for at, byte in enumerate(masked))

    async def stop(self) -> None:
        self.websocket.abort()
        self.writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """Run a server; `Peer.start` connects the client."""
    made = Peer()
    yield made
    await made.stop()


async def test_what_one_read_brings_is_one_batch(peer: Peer) -> None:
    await peer.start()
    peer.writer.write(b"".join(frame(b"%d" % number) for number in range(10)))
    await peer.has(10)
    assert len(peer.batches) == 1


async def test_a_ping_is_answered_and_nobody_hears_of_it(peer: Peer) -> None:
    await peer.start()
    peer.writer.write(frame(b"1", Opcode.PING) + frame(b"2", Opcode.PING) + frame(b"{}"))
    assert [await peer.reads(), await peer.reads()] == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2")]
    assert peer.messages == [b"{}"]


async def test_a_flood_of_pings_is_spread_over_turns_of_the_loop(peer: Peer) -> None:
    websocket = await peer.start()
    turns = 0
    websocket.data_received(frame(b"", Opcode.PING) * 3 * MAX_BATCH + frame(b"{}"))
    while not peer.messages:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 3


async def test_a_text_is_not_compressed_whatever_the_mode(peer: Peer) -> None:
    """Some servers do not compress, or not every message."""
    await peer.start(inflater("zlib-stream"))
    deflate = zlib.compressobj()
    compressed = deflate.compress(b'{"op":11}') + deflate.flush(zlib.Z_SYNC_FLUSH)
    peer.writer.write(frame(b'x"text"', Opcode.TEXT) + frame(compressed) + frame(b"{}", Opcode.TEXT))
    await peer.has(3)
    assert peer.messages == [b'x"text"', b'{"op":11}', b"{}"]
    assert peer.plain_texts == 2


async def test_corrupt_data_is_a_breach_after_the_messages_before_it_and_the_caller_closes(peer: Peer) -> None:
    websocket = await peer.start(inflater("zlib-stream"))
    good = zlib.compressobj()
    data = good.compress(b"{}") + good.flush(zlib.Z_SYNC_FLUSH)
    peer.writer.write(frame(data) + frame(b"\xff" * 9 + b"\x00\x00\xff\xff") + frame(b"{}", Opcode.TEXT))
    for _ in range(2):
        with pytest.raises(ProtocolBreach, match="corrupt"):
            await websocket.wait_closed()
    assert (peer.messages, websocket.closed) == ([b"{}"], False)
    closing = asyncio.create_task(websocket.close(4000))
    assert await peer.reads() == (Opcode.CLOSE, (4000).to_bytes(2, "big"))
    peer.writer.write(frame((4000).to_bytes(2, "big"), Opcode.CLOSE))
    await closing
    assert websocket.closed


async def test_what_is_no_websocket_is_dropped_after_the_messages_before_it(peer: Peer) -> None:
    websocket = await peer.start()
    peer.writer.write(frame(b"{}") + b"\xf2\x00")
    with pytest.raises(ProtocolBreach, match="reserved bits"):
        await websocket.wait_closed()
    assert (peer.messages, websocket.closed) == ([b"{}"], True)
    assert await peer.reader.read() == b""


async def test_large_messages_come_one_in_a_turn_of_the_loop(peer: Peer) -> None:
    """A few kilobytes from one read may become gigabytes after decompression."""
    websocket = await peer.start(inflater("payload"))
    large = b"1" * (LARGE_MESSAGE + 1)
    websocket.data_received(frame(zlib.compress(large)) * 5 + frame(b"{}"))
    assert len(peer.batches) == 1
    await peer.has(6)
    assert [len(batch) for batch in peer.batches] == [1] * 6
    assert peer.messages == [large] * 5 + [b"{}"]


async def test_what_arrived_before_a_lost_connection_is_delivered_before_its_end(peer: Peer) -> None:
    """Over TLS, asyncio may hold data that it has read already."""
    websocket = await peer.start()
    websocket.data_received(frame(b"{}") * 3 * MAX_BATCH)
    websocket.connection_lost(ConnectionResetError("reset"))
    assert websocket.closed
    with pytest.raises(Closed, match="reset") as ended:
        await websocket.wait_closed()
    assert (ended.value.by, len(peer.messages)) == ("network", 3 * MAX_BATCH)


async def test_a_send_waits_while_the_peer_does_not_read(peer: Peer) -> None:
    websocket = await peer.start()
    sends = [asyncio.create_task(websocket.send(b"x" * 100_000)) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not all(send.done() for send in sends)
    await peer.reader.readexactly(20 * 100_014)
    async with asyncio.timeout(60):
        await asyncio.gather(*sends)


async def test_a_send_that_waits_ends_with_the_connection(peer: Peer) -> None:
    websocket = await peer.start()
    sends = [asyncio.create_task(websocket.send(b"x" * 100_000)) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    websocket.abort()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert any(isinstance(result, Closed) for result in results)
    assert websocket.closed


async def test_an_abort_leaves_nothing_even_if_the_peer_does_not_read(peer: Peer) -> None:
    websocket = await peer.start()
    peer.transport.write(b"x" * 1_000_000)
    websocket.abort()
    await asyncio.sleep(0)
    assert peer.transport.get_extra_info("socket").fileno() == -1


async def test_an_answer_that_cannot_be_written_is_given_up_after_a_second(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discorder.transport.websocket.FLUSH_SECONDS", 0.01)
    websocket = await peer.start()
    peer.transport.write(b"x" * 1_000_000)
    peer.writer.write(frame((4000).to_bytes(2, "big"), Opcode.CLOSE))
    with pytest.raises(Closed):
        await websocket.wait_closed()
    await asyncio.sleep(0.05)
    assert peer.transport.get_extra_info("socket").fileno() == -1


async def test_a_close_of_a_connection_that_is_gone_is_the_networks_end(peer: Peer) -> None:
    websocket = await peer.start()
    peer.transport.close()
    await websocket.close(4000)
    with pytest.raises(Closed) as ended:
        await websocket.wait_closed()
    assert ended.value.by == "network"
    with pytest.raises(Closed):
        await websocket.send(b"{}")


async def test_after_our_close_nothing_is_delivered_and_no_ping_answered(peer: Peer) -> None:
    websocket = await peer.start()
    closing = asyncio.create_task(websocket.close(4000))
    assert (await peer.reads())[0] == Opcode.CLOSE
    peer.writer.write(frame(b"{}") + frame(b"", Opcode.PING) + frame(b"", Opcode.CLOSE))
    await closing
    assert peer.messages == []
    assert await peer.reader.read() == b""


async def test_a_close_frame_without_a_code_is_answered_with_one_that_keeps_the_session(peer: Peer) -> None:
    websocket = await peer.start()
    peer.writer.write(frame(b"", Opcode.CLOSE))
    with pytest.raises(Closed) as ended:
        await websocket.wait_closed()
    assert (ended.value.code, ended.value.by) == (1005, "peer")
    assert await peer.reads() == (Opcode.CLOSE, (4000).to_bytes(2, "big"))


@pytest.mark.parametrize(
    ("code", "answer"), [(1000, 4000), (1001, 4000), (1005, 4000), (1011, 4000), (3000, 3000), (4014, 4014)]
)
def test_the_answer_to_a_close_never_ends_the_session(code: int, answer: int) -> None:
    assert answer_to(code) == answer
