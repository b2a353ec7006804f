"""Open the façade: its bots, its sockets, its door."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from discorder.clock import Clock
from discorder.config import Config
from discorder.facade.clients import REAL, Client, Clients, check_clients, load_client
from discorder.facade.commands import CommandDesk, Commands
from discorder.facade.door import Door
from discorder.facade.listening import listening_sockets
from discorder.facade.live import FacadeServices
from discorder.facade.places import Places, PlaceStore
from discorder.facade.rest import PassThrough
from discorder.facade.session_id import session_key
from discorder.guilds.feed import Feed
from discorder.logs import redact_everywhere
from discorder.rest import BotClient
from discorder.tracking.facade_status import FacadeStatus


class FacadeFeed(Feed, PlaceStore, Protocol):
    """What the façade reads from the journal, and the places that it keeps there."""


class Facade:
    """The façade, in a control plane or in a process of its own. Off without ``facade.bind``; ``journal`` may be None then."""

    def __init__(
        self, config: Config, journal: FacadeFeed | None, client: BotClient, commands: Commands, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal if config.facade.bind else None
        self._client = client
        self._commands = commands
        self._clock = clock
        self._clients = Clients(())
        self._sockets: list[socket.socket] = []
        self.door: Door | None = None  # while it is open

    async def bind(self) -> None:
        """Read the tokens and take the sockets. Raises `ConfigError` and `AddressInUse`, which name the key."""
        if self._journal is None:
            return
        self._clients = Clients(await asyncio.to_thread(self._load_clients))
        for token in self._clients.tokens:
            redact_everywhere(token)
        self._sockets = await listening_sockets(self._config.facade)

    async def start(self) -> None:
        """Accept bots. The journal must be open."""
        if self._journal is None:
            return
        facade, token = self._config.facade, self._client.token.reveal()
        services = FacadeServices(
            self._journal,
            self._clients,
            session_key(token),
            CommandDesk(self._commands, self._clock),
            Places(self._journal, lambda: self._clock.now().timestamp()),
            self._clock,
            facade.heartbeat,
        )
        rest = None
        if facade.rest == "pass":
            rest = PassThrough(self._client.base_url, token, self._clients, self._config.gateway.proxies)
        self.door = Door(services, rest)
        await self.door.start(self._sockets)

    async def close(self, *, hurried: bool) -> None:
        """Send the bots what there is and op 7; ``hurried``: cut their sockets. Idempotent."""
        door, self.door = self.door, None
        if door is not None:
            await door.close(hurried=hurried)
        for one in self._sockets:
            one.close()

    def status(self) -> FacadeStatus:
        """Return where it listens and who is connected. Thread-safe."""
        door = self.door
        return FacadeStatus(None) if door is None else door.status()

    def _load_clients(self) -> list[Client]:
        facade = self._config.facade
        check_clients(facade.clients, self._client.token.reveal())
        clients = [load_client(name, settings) for name, settings in facade.clients.items()]
        if facade.tokens == "real":  # a setting
            clients.append(Client(REAL, self._client.token.reveal()))
        return clients
