"""A control plane of a test with a façade in front of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp

from discorder.facade.clients import make_token
from discorder.tracking.tracker import GatewayTracker
from tests.facade.conftest import Bot

BOT_ID = 1345187989315256333
INTENTS = 513


def facade_settings(folder: Path, *names: str) -> list[str]:
    """Make a token for each bot in ``folder``. Return the settings of a façade on a free port, with a journal."""
    for name in names:
        file = folder / f"{name}.token"
        file.write_text(make_token(BOT_ID))
        file.chmod(0o600)
    clients = [f"facade.clients.{name}.token_file={folder / name}.token" for name in names]
    own = ["facade.bind=127.0.0.1:0", f"facade.journal={folder / 'journal'}", f"gateway.intents={INTENTS}"]
    return [*own, *clients]


class Fronted:
    """The façade of a control plane that was started with `facade_settings`."""

    def __init__(self, tracker: Callable[[], GatewayTracker], folder: Path, http: aiohttp.ClientSession) -> None:
        self._tracker = tracker
        self._folder = folder
        self.http = http
        self.bots: list[Bot] = []

    @property
    def url(self) -> str:
        url = self._tracker().facade.url
        assert url is not None
        return url

    @property
    def sessions(self) -> int:
        return len(self._tracker().facade.sessions)

    async def bot(self, name: str, *, guilds: int = 1, **changes: object) -> Bot:
        """Connect a bot; it has its guilds."""
        bot = await self.dialled(name)
        await bot.identify(guilds=guilds, intents=INTENTS, **changes)
        return bot

    async def dialled(self, name: str) -> Bot:
        """Connect a bot that has read HELLO."""
        bot = Bot(self, (self._folder / f"{name}.token").read_text())
        self.bots.append(bot)
        await bot.dial()
        return bot

    async def close(self) -> None:
        for bot in self.bots:
            await bot.close()
