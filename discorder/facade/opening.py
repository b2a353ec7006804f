"""Open the façade: read its bots, get its sockets (its own, or those that the service manager holds), start its server."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from discorder.clock import Clock
from discorder.config import Config
from discorder.config.facade import SYSTEMD
from discorder.config.facade import Facade as FacadeSettings
from discorder.errors import AddressInUse, ConfigError
from discorder.facade.clients import REAL, Client, Clients, check_clients, load_client
from discorder.facade.commands import CommandSender, CommandTarget
from discorder.facade.live import FacadeServices
from discorder.facade.places import Places, PlaceStore
from discorder.facade.rest import PassThrough
from discorder.facade.server import FacadeServer
from discorder.facade.session_id import session_key
from discorder.guilds.feed import Feed
from discorder.http.listener import bind
from discorder.logs import redact_everywhere
from discorder.rest import BotClient
from discorder.tracking.facade_status import FacadeStatus
from discorder.transport import is_loopback

FIRST_DESCRIPTOR = 3  # of those that systemd passes (sd_listen_fds(3))
KEY = "facade.bind"


class FacadeFeed(Feed, PlaceStore, Protocol):
    """What the façade reads from the journal, and the places that it keeps there."""


class Facade:
    """The façade, in a control plane or in a process of its own. Off without ``facade.bind``; ``journal`` may be None then."""

    def __init__(
        self, config: Config, journal: FacadeFeed | None, client: BotClient, commands: CommandTarget, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal if config.facade.bind else None
        self._client = client
        self._commands = commands
        self._clock = clock
        self._clients = Clients(())
        self._sockets: list[socket.socket] = []
        self.server: FacadeServer | None = None  # while it is open

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
            CommandSender(self._commands, self._clock),
            Places(self._journal, lambda: self._clock.now().timestamp()),
            self._clock,
            facade.heartbeat,
        )
        rest = None
        if facade.rest == "pass":
            rest = PassThrough(self._client.base_url, token, self._clients, self._config.gateway.proxies)
        self.server = FacadeServer(services, rest)
        await self.server.start(self._sockets)

    async def close(self, *, hurried: bool) -> None:
        """Send the bots what there is and op 7; ``hurried``: cut their sockets. Idempotent."""
        server, self.server = self.server, None
        if server is not None:
            await server.close(hurried=hurried)
        for one in self._sockets:
            one.close()

    def status(self) -> FacadeStatus:
        """Return where it listens and who is connected. Thread-safe."""
        server = self.server
        return FacadeStatus(None) if server is None else server.status()

    def _load_clients(self) -> list[Client]:
        facade = self._config.facade
        check_clients(facade.clients, self._client.token.reveal())
        clients = [load_client(name, settings) for name, settings in facade.clients.items()]
        if facade.tokens == "real":  # a setting
            clients.append(Client(REAL, self._client.token.reveal()))
        return clients


async def listening_sockets(facade: FacadeSettings) -> list[socket.socket]:
    """Return the sockets. Raises `AddressInUse` and `ConfigError`, which name ``facade.bind``."""
    if facade.bind == SYSTEMD:
        return _passed_sockets()
    address = facade.address
    if address is None:
        return []
    try:
        return await bind(address, KEY)
    except AddressInUse as error:
        msg = f"{error}. Only one process opens it: `discorder serve` with facade.bind, or `discorder facade`"
        raise AddressInUse(msg) from None


def _passed_sockets() -> list[socket.socket]:
    """Return the sockets of LISTEN_FDS. They stay open in the service manager, so that bots wait there during a restart."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdecimal():
        msg = (
            f'{KEY}: "{SYSTEMD}" takes the socket of a systemd socket unit, and this process got none; '
            "start it by that unit, or set an address such as 127.0.0.1:7000"
        )
        raise ConfigError(msg)
    sockets = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(os.environ["LISTEN_FDS"])):
        try:
            one = socket.socket(fileno=os.dup(descriptor))
        except OSError as error:
            msg = f"{KEY}: descriptor {descriptor} of LISTEN_FDS is no socket: {error.strerror}; check the socket unit"
            raise ConfigError(msg) from None
        one.setblocking(False)
        name = one.getsockname()  # a pair, or a path
        if one.family not in {socket.AF_INET, socket.AF_INET6} or not is_loopback(str(name[0])):
            one.close()
            msg = f"{KEY}: the socket unit does not listen on a loopback port, but on {name}; use ListenStream=127.0.0.1:PORT"
            raise ConfigError(msg)
        sockets.append(one)
    return sockets
