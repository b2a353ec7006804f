"""A TCP relay between a client and a bus. Its connections can be frozen, and are reset after some bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


@dataclass
class Relay:
    """A running relay. ``reset_after``: bytes towards the bot until a connection is reset, None for never."""

    upstream: int
    reset_after: int | None = None
    accepted: int = 0
    resets: int = 0
    _open: list[asyncio.Event] = field(default_factory=list)

    def freeze(self) -> None:
        """Stop forwarding on the existing connections, but keep them open."""
        for gate in self._open:
            gate.clear()
        self._open.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        gate = asyncio.Event()
        gate.set()
        self._open.append(gate)
        try:
            bus_reader, bus_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            towards_bus = asyncio.create_task(self._pump(reader, bus_writer, gate, None))
            try:
                await self._pump(bus_reader, writer, gate, self.reset_after)
            finally:
                towards_bus.cancel()
                bus_writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, limit: int | None
    ) -> None:
        passed = 0
        try:
            while limit is None or passed < limit:
                data = await reader.read(4_096)
                await gate.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()
                passed += len(data)
        except ConnectionError:
            return
        self.resets += 1
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


@asynccontextmanager
async def relay_to(endpoint: str, reset_after: int | None = None) -> AsyncIterator[tuple[Relay, str]]:
    """Run a relay to ``endpoint``; yield it with its own address."""
    made = Relay(int(endpoint.rpartition(":")[2]), reset_after)
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.get_running_loop().create_task(made.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield made, f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:  # a task that was cancelled before its first step has closed nothing
            writer.transport.abort()
        await asyncio.sleep(0.02)  # the aborted transports close their sockets
