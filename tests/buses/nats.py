"""NATS as a broker of the stories: one server with JetStream, or three with a stream of three replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError, NotFoundError

from discorder.wire import ReceivedEvent
from tests.buses.broker import NotReadable
from tests.ports import free_port
from tests.publishers.nats_server import START_WITHIN, NatsServer, connected, in_thread, leader_of, read_stream

STREAM = "discord_bot"
TABLE = """\
kind = "nats"
servers = [{servers}]
prefix = "discord.bot"
stream_bytes = 200_000_000
durability = "{durability}"
"""


class NatsBroker:
    """One server."""

    durability = "acks"

    def __init__(self, folder: Path) -> None:
        self._server = NatsServer(folder)

    @property
    def publisher(self) -> str:
        return TABLE.format(servers=f'"{self._server.url}"', durability=self.durability)

    async def start(self) -> None:
        await in_thread(self._server.start)

    async def kill(self) -> None:
        self._server.kill()

    async def freeze(self) -> None:
        self._server.freeze()

    async def thaw(self) -> None:
        self._server.thaw()

    async def wipe(self) -> None:
        self._server.empty()

    async def read(self) -> Sequence[ReceivedEvent]:
        try:
            return [one.document for one in await read_stream(self._server, STREAM)]
        except NotFoundError:  # its disk was empty, and nothing has come since
            return []

    async def close(self) -> None:
        self._server.kill()


class SyncedNatsBroker(NatsBroker):
    """One server that syncs each batch."""

    durability = "sync"


class NatsCluster:
    """Three servers; each has a replica of the stream."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
        self._servers = {
            f"n{number}": NatsServer(
                folder / f"n{number}",
                f"server_name: n{number}",
                f"cluster {{ name: stories, listen: 127.0.0.1:{port}, routes: [{routes}] }}",
            )
            for number, port in enumerate(ports)
        }
        self._leader = ""  # the one that a story has killed or frozen last

    @property
    def publisher(self) -> str:
        servers = ", ".join(f'"{server.url}"' for server in self._servers.values())
        return TABLE.format(servers=servers, durability="acks") + "replicas = 3\n"

    async def start(self) -> None:
        for server in self._servers.values():
            if not server.runs:
                await in_thread(server.start)
        async with asyncio.timeout(START_WITHIN):
            while not await self._is_led():  # noqa: ASYNC110  # it is about another process
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        (await self._found_leader()).kill()

    async def freeze(self) -> None:
        (await self._found_leader()).freeze()

    async def thaw(self) -> None:
        self._servers[self._leader].thaw()

    async def wipe(self) -> None:
        self._servers[self._leader].empty()

    async def read(self) -> Sequence[ReceivedEvent]:
        try:
            return [one.document for one in await read_stream(await self._found_leader(), STREAM)]
        except (APIError, NatsTimeoutError) as error:
            raise NotReadable from error

    async def close(self) -> None:
        for server in self._servers.values():
            server.kill()

    async def _is_led(self) -> bool:
        """Return whether JetStream answers, and follows the leader of the stream if there is a stream."""
        try:
            async with connected(next(iter(self._servers.values()))) as client:
                info = await client.jsm().account_info()
                return not info.streams or bool(await leader_of(client, STREAM))
        except Exception:  # noqa: BLE001  # whatever a server that just begins answers
            return False

    async def _found_leader(self) -> NatsServer:
        """Return the leader of the stream, once there is one."""
        async with asyncio.timeout(START_WITHIN):
            while True:
                async with connected(next(server for server in self._servers.values() if server.runs)) as client:
                    with contextlib.suppress(APIError, NatsTimeoutError):  # while one is being elected
                        if leader := await leader_of(client, STREAM):
                            self._leader = leader
                            return self._servers[leader]
                await asyncio.sleep(0.1)
