"""Compression as it comes off the wire: whole, split, plain, corrupt, enormous."""

from __future__ import annotations

import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from discorder.errors import Closed, ConfigError, ConnectFailed, ProtocolBreach
from discorder.transport.inflate import (
    Compression,
    InflatingTransport,
    available_modes,
    choose_compression,
    decompressing,
    gateway_query,
    gateway_url,
)

MESSAGES = [
    b'{"op":10,"d":{"heartbeat_interval":41250}}',
    b'{"op":11}',
    '{"op":0,"t":"ÄÖ"}'.encode(),
    b'{"d":"%b"}' % (b"ab" * 90000),
]


class Wire:
    """An inner transport that hands out given batches, then the end."""

    def __init__(self, *batches: list[bytes]) -> None:
        self.batches = list(batches)
        self.calls: list[object] = []
        self.closed = False

    async def connect(self, url: str) -> None:
        self.calls.append(url)

    async def receive(self) -> list[bytes]:
        if not self.batches:
            raise Closed(None, "network")
        return self.batches.pop(0)

    async def send(self, data: bytes) -> None:
        self.calls.append(data)

    async def close(self, code: int) -> None:
        self.calls.append(code)

    def abort(self) -> None:
        self.calls.append("abort")
        self.closed = True


def zlib_stream() -> Callable[[bytes], bytes]:
    context = zlib.compressobj()
    return lambda message: context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH)


def zstd_stream() -> Callable[[bytes], bytes]:
    context = zstd.ZstdCompressor()
    return lambda message: context.compress(message) + context.flush(context.FLUSH_BLOCK)


STREAMS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "zlib-stream": zlib_stream,
    "zstd-stream": zstd_stream,
    "payload": lambda: zlib.compress,
}


async def everything(transport: InflatingTransport) -> list[bytes]:
    received: list[bytes] = []
    try:
        while True:
            batch = await transport.receive()
            assert batch
            received += batch
    except Closed:
        return received


@pytest.mark.parametrize("mode", list(STREAMS))
async def test_messages_come_out_as_they_went_in(mode: str) -> None:
    encode = STREAMS[mode]()
    frames = [encode(message) for message in MESSAGES]
    assert await everything(InflatingTransport(Wire(*[[frame] for frame in frames]), mode)) == MESSAGES


async def test_a_batch_of_frames_becomes_a_batch_of_messages() -> None:
    encode = zlib_stream()
    transport = InflatingTransport(Wire([encode(message) for message in MESSAGES]), "zlib-stream")
    assert await transport.receive() == MESSAGES


@pytest.mark.parametrize("size", [1, 3, 7, 50])
async def test_a_zlib_message_may_span_any_number_of_frames(size: int) -> None:
    """A cut may fall into the suffix itself; real frames whose cut happens to end in it are misread by every client."""
    encode = zlib_stream()
    frames: list[list[bytes]] = []
    for message in MESSAGES[:3]:
        data = encode(message)
        frames += [[data[start : start + size]] for start in range(0, len(data), size)]
    assert await everything(InflatingTransport(Wire(*frames), "zlib-stream")) == MESSAGES[:3]


async def test_payload_compression_is_told_apart_frame_by_frame() -> None:
    frames = [MESSAGES[0], zlib.compress(MESSAGES[1]), MESSAGES[2]]
    assert await everything(InflatingTransport(Wire(frames), "payload")) == MESSAGES[:3]


@pytest.mark.parametrize("mode", list(STREAMS))
async def test_corrupt_data_is_a_breach_after_the_messages_before_it(mode: str) -> None:
    encode = STREAMS[mode]()
    good = encode(MESSAGES[0])
    bad = b"\x78\xff\xff\xff\xff" * 5 + b"\x00\x00\xff\xff"
    transport = InflatingTransport(Wire([good, bad, good]), mode)
    assert await transport.receive() == [MESSAGES[0]]
    for _ in range(2):
        with pytest.raises(ProtocolBreach, match="corrupt"):
            await transport.receive()


async def test_a_truncated_payload_is_a_breach() -> None:
    with pytest.raises(ProtocolBreach, match="truncated"):
        await InflatingTransport(Wire([zlib.compress(MESSAGES[3])[:-6]]), "payload").receive()


@pytest.mark.parametrize("mode", list(STREAMS))
async def test_a_bomb_is_not_inflated(mode: str) -> None:
    encode = STREAMS[mode]()
    bomb = encode(b"0" * 10_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(ProtocolBreach, match="larger than 1000000 bytes"):
        await InflatingTransport(Wire([bomb]), mode, limit=1_000_000).receive()


@pytest.mark.parametrize("mode", list(STREAMS))
async def test_a_bomb_takes_no_more_memory_than_the_limit(mode: str) -> None:
    """To inflate it first and measure it then would be too late."""
    transport = InflatingTransport(Wire([STREAMS[mode]()(b"0" * 64_000_000)]), mode, limit=1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolBreach, match="larger than"):
            await transport.receive()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("mode", list(STREAMS))
async def test_a_message_of_exactly_the_limit_passes(mode: str) -> None:
    message = b"1" * 5000
    assert await InflatingTransport(Wire([STREAMS[mode]()(message)]), mode, limit=5000).receive() == [message]


async def test_compressed_data_that_never_ends_is_bounded() -> None:
    frames = [[b"\x01" * 400]] * 4
    with pytest.raises(ProtocolBreach, match="without a flush is larger than 1000 bytes"):
        await InflatingTransport(Wire(*frames), "zlib-stream", limit=1000).receive()


async def test_a_zlib_stream_that_ends_is_a_breach() -> None:
    flush = zlib.compressobj(wbits=-15)
    tail = flush.compress(b"x") + flush.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ProtocolBreach, match="ended"):
        await InflatingTransport(Wire([zlib.compress(b"{}") + tail]), "zlib-stream").receive()


async def test_a_server_may_end_its_zstd_frame_with_each_message() -> None:
    """Discord's never ends; other servers compress each message by itself. Half a message more is a breach all the same."""
    frames = [zstd.compress(b'{"op":10}'), zstd.compress(b'{"op":11}')]
    transport = InflatingTransport(Wire(frames, [frames[0] + frames[1]]), "zstd-stream")
    assert await transport.receive() == [b'{"op":10}', b'{"op":11}']
    with pytest.raises(ProtocolBreach, match="ended in the middle of a message"):
        await transport.receive()


async def test_a_zstd_window_beyond_eight_megabytes_is_refused() -> None:
    greedy = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = greedy.compress(b"{}") + greedy.flush(greedy.FLUSH_BLOCK)
    with pytest.raises(ProtocolBreach, match="zstd-stream: corrupt"):
        await InflatingTransport(Wire([frame]), "zstd-stream").receive()


async def test_everything_else_goes_to_the_inner_transport() -> None:
    wire = Wire()
    transport = InflatingTransport(wire, "zlib-stream")
    await transport.connect("ws://h/")
    await transport.send(b"{}")
    await transport.close(4000)
    assert not transport.closed
    transport.abort()
    assert (wire.calls, transport.closed) == (["ws://h/", b"{}", 4000, "abort"], True)


def test_no_compression_needs_no_wrapper() -> None:
    wire = Wire()
    assert decompressing(wire, "none") is wire
    assert isinstance(decompressing(wire, "payload"), InflatingTransport)
    with pytest.raises(ValueError, match="nothing to inflate"):
        InflatingTransport(wire, "none")


def test_auto_takes_the_best() -> None:
    assert choose_compression("auto") is Compression.ZSTD_STREAM
    assert set(available_modes()) == set(Compression)


def test_without_the_library_auto_takes_zlib_and_zstd_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    assert choose_compression("auto") is Compression.ZLIB_STREAM
    assert Compression.ZSTD_STREAM not in available_modes()
    with pytest.raises(ConfigError, match="extra"):
        choose_compression("zstd-stream")


def test_a_word_that_is_no_mode_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.compress.*'gzip'"):
        choose_compression("gzip")
    assert choose_compression("payload") is Compression.PAYLOAD


def test_the_query_asks_for_stream_compression_only() -> None:
    assert gateway_query("zlib-stream") == {"v": "10", "encoding": "json", "compress": "zlib-stream"}
    assert gateway_query("payload") == gateway_query("none") == {"v": "10", "encoding": "json"}


@pytest.mark.parametrize(
    ("host", "mode", "url"),
    [
        ("wss://gateway.discord.gg", "none", "wss://gateway.discord.gg/?v=10&encoding=json"),
        (
            "wss://gateway.discord.gg/",
            "zlib-stream",
            "wss://gateway.discord.gg/?v=10&encoding=json&compress=zlib-stream",
        ),
        (
            "ws://127.0.0.1:8080/a/b/?x=1&v=9&compress=zstd-stream",
            "none",
            "ws://127.0.0.1:8080/a/b/?x=1&v=10&encoding=json",
        ),
        ("ws://h/a%2Fb", "none", "ws://h/a%2Fb?v=10&encoding=json"),
    ],
)
def test_the_query_joins_any_form_of_host(host: str, mode: str, url: str) -> None:
    assert gateway_url(host, mode) == url


@pytest.mark.parametrize("host", ["", "gateway.discord.gg", "https://gateway.discord.gg", "ws://", "ws://[x"])
def test_a_host_that_is_no_websocket_url_is_a_failed_dial(host: str) -> None:
    with pytest.raises(ConnectFailed):
        gateway_url(host, "none")
