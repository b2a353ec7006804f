"""The sockets of the bus: how each is made, secured and bound, and what an address that is taken costs.

Nothing here sends or receives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from discorder.curve import is_key, load_pair
from discorder.errors import ConfigError
from discorder.publishers.endpoints import address_in_use, check_endpoint, check_ipc_path, has_any_port
from discorder.publishers.zeromq_gatekeeper import Gatekeeper
from discorder.publishers.zeromq_router import configure_router
from discorder.wire import replay_address

AUTO = "auto"
OFF = ""
MAX_SUBSCRIPTION_BYTES = 4_096  # of what a subscriber sends: the names of events
PORT_PAIRS_TRIED = 20  # until the system gives a port whose neighbour is free as well

Context = zmq.Context[zmq.Socket[bytes]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """Who may reach the bus. Made by a configuration; raises ConfigError where it is not sound."""

    key: str  # publishers.NAME
    insecure: bool
    secret_file: str
    clients: tuple[str, ...]

    def __post_init__(self) -> None:
        if bool(self.secret_file) != bool(self.clients):
            msg = (
                f"{self.key}: curve_secret_file and curve_clients go together: the bus's own key file, and the public keys of "
                "those who may connect; discorder keygen NAME writes a pair for each"
            )
            raise ConfigError(msg)
        for client in self.clients:
            if not is_key(client):
                msg = f"{self.key}.curve_clients: {client!r} is not a public key: 40 characters, as discorder keygen prints them"
                raise ConfigError(msg)

    @property
    def curve(self) -> bool:
        """Whether everything is encrypted, and only known clients may connect."""
        return bool(self.secret_file)

    def check(self, endpoint: str, key: str) -> None:
        """Refuse what other hosts could reach unprotected. ``key`` is the last part of the configuration key."""
        check_endpoint(f"{self.key}.{key}", endpoint, insecure=self.insecure or self.curve)

    def gatekeeper(self, context: Context) -> Gatekeeper | None:
        """Whoever stands at the door, not started; None without CURVE."""
        return Gatekeeper(context, self.clients) if self.curve else None

    def protect(self, sock: zmq.Socket[bytes]) -> None:
        """Before it is bound. Raises ConfigError for a key file that cannot be used."""
        if self.curve:
            pair = load_pair(Path(self.secret_file), f"{self.key}.curve_secret_file")
            sock.set(zmq.CURVE_SERVER, 1)
            sock.set(zmq.CURVE_SECRETKEY, pair.secret)


@dataclass(frozen=True, slots=True)
class Sockets:
    """The bound sockets of one bus, and where they are. ``router`` is None without replay."""

    bus: zmq.Socket[bytes]
    endpoints: tuple[str, ...]
    router: zmq.Socket[bytes] | None
    replay_endpoint: str

    def close(self, linger_ms: int) -> None:
        """Unbind; what was sent may still be fetched for ``linger_ms``."""
        self.bus.close(linger=linger_ms)
        if self.router is not None:
            self.router.close(linger=linger_ms)


def open_sockets(context: Context, binds: Sequence[str], replay: str, hwm: int, security: Security) -> Sockets:
    """Make, protect and bind them. Raises AddressInUse or ConfigError; nothing is left open then.

    ``replay``: an address; "auto": the one that follows from the first bind, where it is free; "" = no ROUTER.
    """
    bus = context.socket(zmq.XPUB)
    router = context.socket(zmq.ROUTER) if replay != OFF else None
    try:
        for sock in (bus, router):
            if sock is not None:
                security.protect(sock)
                sock.set(zmq.IPV6, int(any("[" in endpoint for endpoint in (*binds, replay))))
        bus.set(zmq.SNDHWM, hwm)
        bus.set(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        bus.set(zmq.XPUB_VERBOSER, 1)  # every subscription and its end, not only the first and last of a topic
        endpoints = [bind(bus, endpoint, f"{security.key}.bind") for endpoint in binds]
        address = OFF
        if router is not None:
            configure_router(router)
            address = _bind_router(router, replay, bus, binds[0], endpoints, security.key)
            if address == OFF:
                router.close(linger=0)
                router = None
        return Sockets(bus, tuple(endpoints), router, address)
    except BaseException:
        bus.close(linger=0)
        if router is not None:
            router.close(linger=0)
        raise


def bind(sock: zmq.Socket[bytes], endpoint: str, key: str) -> str:
    """Bind one; returns the address, with the port that the system chose. Raises AddressInUse or ConfigError, naming ``key``."""
    check_ipc_path(key, endpoint)
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise address_in_use(key, endpoint) from error
        msg = f"{key}: cannot bind {endpoint}: {error}"
        raise ConfigError(msg) from error
    bound = sock.get(zmq.LAST_ENDPOINT)
    return (bound if isinstance(bound, bytes) else bytes(bound)).rstrip(b"\0").decode()


def _bind_router(
    router: zmq.Socket[bytes], replay: str, bus: zmq.Socket[bytes], first: str, endpoints: list[str], key: str
) -> str:
    """Where it is bound; "" and a warning where it was to follow from the bus's address and that is taken.

    Where the system chose the port of the bus's ``first`` address, it is asked for another until the neighbour is free.
    """
    if replay != AUTO:
        return bind(router, replay, f"{key}.replay")
    for tries_left in reversed(range(PORT_PAIRS_TRIED)):
        try:
            return bind(router, replay_address(endpoints[0]), f"{key}.replay")
        except (ConfigError, ValueError) as error:
            if not has_any_port(first) or not tries_left:
                logger.warning("No replay and no commands on this bus: %s", error)
                return OFF
            bus.unbind(endpoints[0])
            endpoints[0] = bind(bus, first, f"{key}.bind")
    return OFF
