"""How messages are compressed on the wire, and what is refused."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from discorder.simulator import Simulator
from discorder.simulator.compression import ZLIB_SUFFIX, ZlibStream, cut, load_zstd

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]


@pytest.mark.parametrize("split", [1, 3])
async def test_zlib_stream_is_one_context_from_hello_on(start_simulator: Start, make_client: Make, split: int) -> None:
    """Every frame is BINARY, the header comes once, each message ends in 00 00 ff ff and may take several frames."""
    sim = await start_simulator(zlib_split=split)
    client = await make_client(sim).dial(query="v=10&encoding=json&compress=zlib-stream")
    assert (await client.stream_frame())["op"] == 10
    assert len(client.raw) == split
    assert client.raw[0].data.startswith(b"\x78\x9c")
    await client.send(2, client.identity(compress=True))
    assert (await client.stream_frame())["t"] == "READY"
    for _ in range(3):
        assert (await client.stream_frame())["t"] == "GUILD_CREATE"
    assert {message.type for message in client.raw} == {aiohttp.WSMsgType.BINARY}


async def test_payload_compression_takes_the_larger_frames_only(start_simulator: Start, make_client: Make) -> None:
    """Each of them is a zlib stream of its own; HELLO and small ones stay TEXT."""
    sim = await start_simulator(guilds=1)
    client = await make_client(sim).dial()
    await client.identify(compress=True)
    await client.send(1, 1)
    await client.until_op(11)
    by_type = [message.type for message in client.raw]
    assert by_type[0] is by_type[-1] is aiohttp.WSMsgType.TEXT
    assert by_type[2] is aiohttp.WSMsgType.BINARY
    assert msgspec.json.decode(zlib.decompress(client.raw[2].data))["t"] == "GUILD_CREATE"


async def test_zstd_stream_is_one_endless_frame(start_simulator: Start, make_client: Make) -> None:
    """One websocket message per gateway message, one context for the connection; refused where there is no zstd."""
    sim = await start_simulator()
    query = "v=10&encoding=json&compress=zstd-stream"
    zstd = load_zstd()
    if zstd is None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await make_client(sim).dial(query=query)
        assert refused.value.status == 400
        return
    client = await make_client(sim).dial(query=query)
    decompressor = zstd.ZstdDecompressor()
    assert msgspec.json.decode(decompressor.decompress((await client.message()).data))["op"] == 10
    await client.send(2, client.identity())
    for event_type in ("READY", "GUILD_CREATE", "GUILD_CREATE", "GUILD_CREATE"):
        message = await client.message()
        assert msgspec.json.decode(decompressor.decompress(message.data))["t"] == event_type
    assert not decompressor.eof


@pytest.mark.parametrize("query", ["v=10&encoding=etf", "v=10&encoding=json&compress=brotli"])
async def test_what_the_simulator_does_not_speak_is_refused(
    start_simulator: Start, make_client: Make, query: str
) -> None:
    """The upgrade fails with 400."""
    sim = await start_simulator()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await make_client(sim).dial(query=query)
    assert refused.value.status == 400


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_a_cut_never_looks_like_the_end_of_a_message(parts: int) -> None:
    """Data full of the suffix is cut elsewhere, and nothing is lost."""
    data = b"ab" + ZLIB_SUFFIX * 3 + b"c" + ZLIB_SUFFIX
    pieces = cut(data, parts)
    assert b"".join(pieces) == data
    assert all(pieces)
    assert len(pieces) <= parts
    for count in range(1, len(pieces)):
        assert not b"".join(pieces[:count]).endswith(ZLIB_SUFFIX)


def test_a_message_is_cut_into_as_many_frames_as_asked() -> None:
    """An ordinary message gives exactly that many."""
    frames = ZlibStream(4).encode(b'{"op":10,"d":{"heartbeat_interval":41250}}')
    assert len(frames) == 4
    assert zlib.decompressobj().decompress(b"".join(frame.data for frame in frames)).startswith(b'{"op":10')
