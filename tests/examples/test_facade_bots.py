"""The examples of bots behind the façade, with the simulator as Discord: killed and restarted, they miss no message."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from discorder.simulator import Simulator
from tests.examples.test_bots import EXAMPLES, needs
from tests.facade.behind import Behind, BotProcess

pytestmark = pytest.mark.heavy


@pytest.fixture
async def behind(start_simulator: Callable[..., Awaitable[Simulator]], tmp_path: Path) -> AsyncIterator[Behind]:
    sim = await start_simulator(rate=60, keep_documents=True)
    one = Behind(sim, tmp_path, ["main"])
    await one.start()
    yield one
    await one.close()


def shown(*bots: BotProcess) -> list[str]:
    """Return the ids of the messages that the bots have printed."""
    return [found for bot in bots for found in re.findall(r"message (\d+):", bot.text)]


async def judge(behind: Behind, command: list[str]) -> None:
    """Kill a bot between two messages, start it again, restart the control plane under it: every message was shown once."""
    sim = behind.sim

    def sent() -> list[str]:
        """Return the ids of the messages in guilds."""
        documents = [msgspec.json.decode(one.data) for one in sim.sent_documents if one.type == "MESSAGE_CREATE"]
        return [one["id"] for one in documents if "guild_id" in one]

    first = await behind.run(command, "main")
    await first.until(lambda: len(shown(first)) > 10)
    await sim.set_rate(0)
    await first.until(lambda: shown(first)[-1] == sent()[-1])
    await first.kill()
    await sim.set_rate(60)
    before = len(sent())
    await sim.wait_for(lambda: len(sent()) > before + 20, timeout=20)
    second = await behind.run(command, "main")
    await second.until(lambda: len(shown(second)) > 40)
    await behind.stop()
    await behind.start()
    await second.until(lambda: len(shown(second)) > 80)
    await sim.set_rate(0)
    await second.until(lambda: sent()[-1] in shown(second))
    seen = shown(first, second)
    assert seen == sent()[sent().index(seen[0]) :]
    assert sim.identifies == 1


async def test_discordpy(behind: Behind) -> None:
    """examples/python/discordpy_bot.py."""
    await judge(behind, [sys.executable, "-W", "ignore", str(EXAMPLES / "python" / "discordpy_bot.py")])


async def test_hikari(behind: Behind) -> None:
    """examples/python/hikari_bot.py."""
    await judge(behind, [sys.executable, "-W", "ignore", str(EXAMPLES / "python" / "hikari_bot.py")])


async def test_discordjs(behind: Behind, tmp_path: Path) -> None:
    """examples/node/discordjs_bot.js."""
    needs(shutil.which("npm") is not None and shutil.which("node") is not None, "Node.js with npm")
    shutil.copytree(EXAMPLES / "node", tmp_path / "js")
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = await asyncio.to_thread(
        lambda: subprocess.run(install, cwd=tmp_path / "js", capture_output=True, check=False)
    )
    needs(done.returncode == 0, f"the npm package discord.js ({done.stderr.decode().strip()})")
    await judge(behind, ["node", str(tmp_path / "js" / "discordjs_bot.js")])
