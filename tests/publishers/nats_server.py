"""A NATS server in a process of its own, on loopback, with its store in a folder of the test."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nats.aio.client import Client

from discorder.wire import ReceivedEvent, decode_document
from tests.ports import free_port

START_WITHIN = 60.0  # seconds


class NatsServer:
    """One server. `start` it again after `kill`: it has the same port and, unless `empty` was called, the same content.

    ``lines`` are added to its configuration.
    """

    def __init__(self, folder: Path, *lines: str, jetstream: bool = True) -> None:
        self._folder = folder
        self._lines = lines
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the server and return once it answers."""
        for _ in range(20):
            port = self.port or free_port()
            if self._starts_on(port):
                self.port = port
                return
        raise AssertionError((self._folder / "log").read_text())

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Delete its store, while it does not run."""
        shutil.rmtree(self._folder / "store")

    def copy(self, target: Path) -> None:
        """Copy its store, while it does not run."""
        shutil.copytree(self._folder / "store", target)

    def restore(self, source: Path) -> None:
        """Replace its store by a copy, while it does not run."""
        self.empty()
        shutil.copytree(source, self._folder / "store")

    def _starts_on(self, port: int) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "log"
        log.unlink(missing_ok=True)
        store = f"jetstream {{ store_dir: {json.dumps(str(self._folder / 'store'))}, max_file_store: 2GB }}"
        config = self._folder / "nats.conf"
        config.write_text(
            "\n".join(
                [f"listen: 127.0.0.1:{port}", f"log_file: {log}", *([store] if self._jetstream else []), *self._lines]
            )
        )
        program = Path(sys.executable).with_name("nats-server")
        self._process = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_WITHIN
        while self._process.poll() is None:
            if log.exists() and "Server is ready" in log.read_text():
                return True
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        self._process = None
        return False


class Stored(NamedTuple):
    """One message of a stream."""

    subject: str
    id: str
    payload: bytes

    @property
    def document(self) -> ReceivedEvent:
        return decode_document(self.payload)


@asynccontextmanager
async def connected(server: NatsServer, **access: Any) -> AsyncIterator[Client]:
    """Yield a client of its own."""
    client = Client()
    await client.connect(server.url, allow_reconnect=False, **access)
    try:
        yield client
    finally:
        await client.close()


async def leader_of(client: Client, stream: str) -> str:
    """Return the name of the server that leads ``stream``, "" without one."""
    cluster = (await client.jsm().stream_info(stream)).cluster
    return "" if cluster is None else cluster.leader or ""


async def read_stream(server: NatsServer, stream: str) -> list[Stored]:
    """Return all messages of the stream, in order."""
    async with connected(server) as client:
        context = client.jetstream(timeout=20)
        count = (await context.stream_info(stream)).state.messages
        if not count:
            return []
        consumer = await context.subscribe(">", stream=stream, ordered_consumer=True)
        messages = [await consumer.next_msg(timeout=20) for _ in range(count)]
        return [Stored(message.subject, (message.headers or {})["Nats-Msg-Id"], message.data) for message in messages]


async def in_thread(work: Callable[[], None]) -> None:
    """Run ``work`` of a server in a thread, so that the loop of the test goes on."""
    await asyncio.get_running_loop().run_in_executor(None, work)
