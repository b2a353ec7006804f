"""Valkey as a broker of the stories, with its append-only file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from discorder.wire import ReceivedEvent
from tests.publishers.nats_server import in_thread
from tests.publishers.redis_server import RedisServer, read_shard, streams

PREFIX = "discord:bot"


class ValkeyBroker:
    """One server."""

    def __init__(self, folder: Path) -> None:
        self._server = RedisServer(folder)

    @property
    def publisher(self) -> str:
        return f'kind = "redis"\nurl = "{self._server.url}"\nprefix = "{PREFIX}"\nmaxlen = 100_000\n'

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
        keys = await streams(self._server, f"{PREFIX}:*")
        places = sorted({":".join(key.split(":")[-2:]) for key in keys})
        return [event for place in places for event in await read_shard(self._server, PREFIX, place)]

    async def close(self) -> None:
        self._server.kill()
