"""A TCP proxy on loopback whose connections break on request: reset, cut in the middle of a frame, stalled, half-open."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Coroutine
from enum import StrEnum
from typing import Self

LOOPBACK = "127.0.0.1"
CHUNK = 16_384  # bytes
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER without a time: RST in place of FIN


class Fault(StrEnum):
    """A way to break a connection."""

    RESET = "reset"  # RST to both sides
    CUT = "cut"  # half of what comes next goes through, then RST
    STALL = "stall"  # nothing goes through for a while, then everything
    HALF_OPEN = "half-open"  # the server sees a reset; the client sees silence, for ever


class ProxyLink:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._client = client
        self._server = server
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = False
        self._half_open = False

    @property
    def sound(self) -> bool:
        """Whether it is not broken, or no longer."""
        return self._flowing.is_set() and not self._cut and not self._half_open

    async def run(self) -> None:
        """Carry bytes both ways until one side is gone."""
        pumps = [
            asyncio.create_task(self._pump(self._client[0], self._server[1])),
            asyncio.create_task(self._pump(self._server[0], self._client[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self._half_open:
                await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()

    async def strike(self, fault: Fault, seconds: float) -> None:
        """Let ``fault`` happen; a stall lasts ``seconds``, and is over when this returns."""
        match fault:
            case Fault.RESET:
                self._reset(self._client[1])
                self._reset(self._server[1])
            case Fault.CUT:
                self._cut = True
            case Fault.HALF_OPEN:
                self._half_open = True
                self._flowing.clear()
                self._reset(self._server[1])
            case Fault.STALL:
                self._flowing.clear()
                await asyncio.sleep(seconds)
                self._flowing.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK):
                await self._flowing.wait()
                if self._cut:
                    writer.write(chunk[: len(chunk) // 2])
                    await writer.drain()
                    self._reset(self._client[1])
                    self._reset(self._server[1])
                    return
                writer.write(chunk)
                await writer.drain()

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> None:
        sock: socket.socket | None = writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        writer.transport.abort()


class Proxy:
    """``async with Proxy(port) as proxy``: what connects to ``proxy.port`` reaches ``port``. ``listen``: its port, 0 for any."""

    def __init__(self, target: int, listen: int = 0) -> None:
        self._target = target
        self._listen = listen
        self._links: set[ProxyLink] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it does not run"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self._listen)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def strike(self, fault: Fault, rng: random.Random, seconds: float) -> bool:
        """Let ``fault`` happen to one of the sound connections; False when there is none."""
        sound = [link for link in self._links if link.sound]
        if not sound:
            return False
        self._keep(rng.choice(sound).strike(fault, seconds))
        return True

    async def refuse(self, seconds: float) -> None:
        """Refuse new connections for ``seconds``."""
        assert self._server is not None, "it does not run"
        port = self.port
        self._server.close()
        await asyncio.sleep(seconds)
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, port)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            link = ProxyLink((reader, writer), await asyncio.open_connection(LOOPBACK, self._target))
        except ConnectionError:
            writer.close()
            return
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
