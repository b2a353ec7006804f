"""The readers of a NATS stream in examples/ that use nothing of Discorder, each in its own runtime."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import discorder
from discorder.publishers.nats.publisher import NatsPublisher
from tests.bot.nats_streams import acknowledged, events, publish, publisher, seqs
from tests.examples.test_bots import EXAMPLES, Bot, needs
from tests.publishers.nats_server import NatsServer, in_thread

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def plane(server: NatsServer) -> AsyncIterator[NatsPublisher]:
    made = publisher(server)
    await made.open()
    yield made
    await made.close()


def lines(first: int, last: int) -> list[str]:
    return [f"MESSAGE_CREATE 0 {seq}" for seq in range(first, last + 1)]


@pytest.mark.heavy
async def test_a_worker_in_node_is_killed_and_discorder_goes_on(
    server: NatsServer, plane: NatsPublisher, tmp_path: Path
) -> None:
    needs(shutil.which("npm") is not None and shutil.which("node") is not None, "Node.js with npm")
    version = json.loads((EXAMPLES / "node" / "package.json").read_text())["dependencies"]["nats"]
    shutil.copy(EXAMPLES / "node" / "nats_worker.js", tmp_path)
    (tmp_path / "package.json").write_text(json.dumps({"type": "module", "dependencies": {"nats": version}}))
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = await asyncio.to_thread(lambda: subprocess.run(install, cwd=tmp_path, capture_output=True, check=False))
    needs(done.returncode == 0, f"the npm package nats ({done.stderr.decode().strip()})")
    worker = await Bot.start("node", "nats_worker.js", server.url, "discord_7", "discord.7", cwd=tmp_path)
    try:
        await publish(plane, events(1, 40))
        await worker.says(*lines(1, 40))
        server.kill()
        await in_thread(server.start)
        await publish(plane, events(41, 60))
        await worker.says(*lines(41, 60))
    finally:
        await worker.stop()
    await publish(plane, events(61, 80))
    async with discorder.subscribe(server.url, group="workers") as reading:
        got = await seqs(reading, 1)
        first = got[0]
        assert first in {60, 61}  # the acknowledgement of the last one may have been on its way
        assert await seqs(reading, 80 - first) == list(range(first + 1, 81))


async def test_perl_with_a_socket_alone(server: NatsServer, plane: NatsPublisher, tmp_path: Path) -> None:
    needs(shutil.which("perl") is not None, "Perl")
    script = str(EXAMPLES / "perl" / "nats_reader.pl")
    address = server.url.removeprefix("nats://")
    for first in (1, 151):
        await publish(plane, events(first, first + 149))
        reader = await Bot.start("perl", script, address, "discord_7", "perl", cwd=tmp_path)
        try:
            await reader.says(*lines(first, first + 149))
            if first == 151:
                server.kill()
                await in_thread(server.start)
                await publish(plane, events(301, 302))
                await reader.says(*lines(301, 302))
            await acknowledged(server, 150 if first == 1 else 302)
        finally:
            await reader.stop()
