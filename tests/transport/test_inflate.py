"""Decompression of received frames: whole, split, uncompressed, corrupt, enormous."""

from __future__ import annotations

import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
from backports import zstd

from discorder.errors import ConfigError, ConnectFailed, ProtocolBreach
from discorder.transport.inflate import (
    Compression,
    Inflater,
    available_modes,
    choose_compression,
    gateway_query,
    gateway_url,
    inflater,
    library_of,
)
from discorder.transport.protocol import MAX_MESSAGE_BYTES

MESSAGES = [
    b'{"op":10,"d":{"heartbeat_interval":41250}}',
    b'{"op":11}',
    '{"op":0,"t":"ÄÖ"}'.encode(),
    b'{"d":"%b"}' % (b"ab" * 90000),
]


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


@pytest.fixture(params=["zlib", "zlib_ng"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test with either library."""
    name: str = request.param
    if name == "zlib":
        monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    else:
        pytest.importorskip("zlib_ng")
    return name


def new(mode: str, limit: int = MAX_MESSAGE_BYTES) -> Inflater:
    made = inflater(mode, limit=limit)
    assert made is not None
    return made


def everything(mode: str, frames: Iterable[bytes]) -> list[bytes]:
    """Return the messages that ``frames`` complete on one connection."""
    context = new(mode)
    return [message for frame in frames if (message := context.feed(frame))]


@pytest.mark.parametrize("mode", list(STREAMS))
def test_messages_come_out_as_they_went_in(mode: str) -> None:
    encode = STREAMS[mode]()
    assert everything(mode, [encode(message) for message in MESSAGES]) == MESSAGES


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_a_zlib_message_may_span_any_number_of_frames(size: int) -> None:
    """The cut may fall inside the suffix. Every client misreads frames whose cut happens to end in the suffix."""
    encode = zlib_stream()
    frames: list[bytes] = []
    for message in MESSAGES[:3]:
        data = encode(message)
        frames += [data[start : start + size] for start in range(0, len(data), size)]
    assert everything("zlib-stream", frames) == MESSAGES[:3]


def test_payload_compression_is_told_apart_frame_by_frame() -> None:
    frames = [MESSAGES[0], zlib.compress(MESSAGES[1]), MESSAGES[2]]
    assert everything("payload", frames) == MESSAGES[:3]


@pytest.mark.parametrize("mode", list(STREAMS))
def test_corrupt_data_is_a_breach(mode: str) -> None:
    bad = b"\x78\xff\xff\xff\xff" * 5 + b"\x00\x00\xff\xff"
    context = new(mode)
    assert context.feed(STREAMS[mode]()(MESSAGES[0])) == MESSAGES[0]
    with pytest.raises(ProtocolBreach, match="corrupt"):
        context.feed(bad)


def test_a_truncated_payload_is_a_breach() -> None:
    with pytest.raises(ProtocolBreach, match="truncated"):
        new("payload").feed(zlib.compress(MESSAGES[3])[:-6])


@pytest.mark.parametrize("mode", list(STREAMS))
def test_a_bomb_is_not_inflated(mode: str) -> None:
    encode = STREAMS[mode]()
    bomb = encode(b"0" * 10_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(ProtocolBreach, match="larger than 1000000 bytes"):
        new(mode, 1_000_000).feed(bomb)


@pytest.mark.parametrize("mode", list(STREAMS))
def test_a_bomb_takes_no_more_memory_than_the_limit(mode: str) -> None:
    """Measuring after decompression would be too late."""
    bomb = STREAMS[mode]()(b"0" * 64_000_000)
    context = new(mode, 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolBreach, match="larger than"):
            context.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("mode", list(STREAMS))
def test_a_message_of_exactly_the_limit_passes(mode: str) -> None:
    message = b"1" * 5000
    assert new(mode, 5000).feed(STREAMS[mode]()(message)) == message


def test_compressed_data_that_never_ends_is_bounded() -> None:
    context = new("zlib-stream", 1000)
    for _ in range(2):
        assert context.feed(b"\x01" * 400) is None
    with pytest.raises(ProtocolBreach, match="without a flush is larger than 1000 bytes"):
        context.feed(b"\x01" * 400)


@pytest.mark.parametrize("header", [b"\x79\x9c", b"\x78\x9d", b"\x78\xbb"])
def test_what_does_not_begin_as_a_zlib_stream_is_corrupt(header: bytes) -> None:
    """The stream has another method, a wrong check, or a preset dictionary (RFC 1950 §2.2)."""
    with pytest.raises(ProtocolBreach, match="corrupt data: it does not begin"):
        new("zlib-stream").feed(header + zlib_stream()(b"{}")[2:])


def test_a_zlib_stream_that_ends_is_a_breach() -> None:
    flush = zlib.compressobj(wbits=-15)
    tail = flush.compress(b"x") + flush.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ProtocolBreach, match="ended"):
        new("zlib-stream").feed(zlib.compress(b"{}") + tail)


@pytest.mark.parametrize("mode", list(STREAMS))
def test_a_server_that_does_not_compress_is_understood(mode: str) -> None:
    """No compressed message begins with a brace, whatever the query requests. The server may also change in between."""
    frames = [MESSAGES[0], STREAMS[mode]()(MESSAGES[1]), MESSAGES[2]]
    assert everything(mode, frames) == MESSAGES[:3]


def test_a_server_may_end_its_zstd_frame_with_each_message() -> None:
    """Discord's frame never ends; other servers compress each message separately. An incomplete message is a breach for both."""
    frames = [zstd.compress(b'{"op":10}'), zstd.compress(b'{"op":11}')]
    context = new("zstd-stream")
    assert [context.feed(frame) for frame in frames] == [b'{"op":10}', b'{"op":11}']
    with pytest.raises(ProtocolBreach, match="ended in the middle of a message"):
        context.feed(frames[0] + frames[1])


def test_a_zstd_window_beyond_eight_megabytes_is_refused() -> None:
    greedy = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = greedy.compress(b"{}") + greedy.flush(greedy.FLUSH_BLOCK)
    with pytest.raises(ProtocolBreach, match="zstd-stream compression: corrupt"):
        new("zstd-stream").feed(frame)


def test_no_compression_needs_no_inflater() -> None:
    assert inflater("none") is None


def test_auto_takes_the_best() -> None:
    assert choose_compression("auto") is Compression.ZSTD_STREAM
    assert set(available_modes()) == set(Compression)


def test_the_library_has_a_name_for_the_log(library: str) -> None:
    assert [library_of(mode) for mode in ("zlib-stream", "payload", "none")] == [library, library, ""]
    assert library_of("zstd-stream").endswith("zstd")


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
