"""The proxy does what its faults say, and a control plane behind it loses nothing: `make weather` in small."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.endurance.proxy import LOOPBACK, Fault, Proxy
from tests.endurance.unreliable_network import Weather, run
from tests.endurance.waiting import until

RNG = random.Random(0)


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that echoes what it receives; its port, and what it received (b"" = the end)."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1024):
                heard.append(chunk)
                writer.write(chunk)
        except ConnectionError:
            pass
        heard.append(b"")
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    yield server.sockets[0].getsockname()[1], heard
    server.close()
    await server.wait_closed()


async def test_a_sound_connection_carries_everything_both_ways(echo: tuple[int, list[bytes]]) -> None:
    async with Proxy(echo[0]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await until(lambda: echo[1] == [b"hello", b""], 5.0)


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT])
async def test_reset_and_cut_end_both_sides(echo: tuple[int, list[bytes]], fault: Fault) -> None:
    async with Proxy(echo[0]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"1234")
        assert await reader.readexactly(4) == b"1234"
        assert proxy.strike(fault, RNG, 0.0)
        writer.write(b"5678")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: echo[1][-1] == b"", 5.0)
        assert echo[1] in ([b"1234", b""], [b"1234", b"56", b""])
        writer.close()


async def test_a_stall_delays_and_loses_nothing(echo: tuple[int, list[bytes]]) -> None:
    async with Proxy(echo[0]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"1")
        await reader.readexactly(1)
        assert proxy.strike(Fault.STALL, RNG, 0.05)
        await asyncio.sleep(0)
        writer.write(b"2")
        assert not proxy.strike(Fault.RESET, RNG, 0.0), "a connection that stalls is not sound"
        assert await reader.readexactly(1) == b"2"
        writer.close()


async def test_half_open_is_silence_for_the_client_and_an_end_for_the_server(echo: tuple[int, list[bytes]]) -> None:
    async with Proxy(echo[0]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"1")
        await reader.readexactly(1)
        assert proxy.strike(Fault.HALF_OPEN, RNG, 0.0)
        await until(lambda: echo[1] == [b"1", b""], 5.0)
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        writer.close()


@pytest.mark.system
async def test_a_network_that_breaks_in_every_way_loses_nothing(tmp_path: Path) -> None:
    """Resets, cuts in the middle of a frame, stalls and half-open sockets, REST included."""
    weather = Weather(seconds=4.0, every=0.25, stall=1.0, shards=2, rate=200.0, heartbeat_ms=1_000)
    outcome = await run(weather, tmp_path)
    assert outcome.faults(weather.shards) == []
    assert outcome.events > 0
    assert outcome.struck.total() > 0
    assert outcome.resumed > 0
