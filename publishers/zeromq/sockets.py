"""Create, secure and bind the sockets of the bus. Does not send or receive."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from discorder.curve import is_key, load_pair
from discorder.errors import ConfigError
from discorder.publishers.zeromq.audience import report_subscriptions
from discorder.publishers.zeromq.auth import KeyAuthenticator
from discorder.publishers.zeromq.endpoints import (
    IpcAccess,
    address_in_use,
    check_endpoint,
    check_ipc_path,
    has_any_port,
)
from discorder.publishers.zeromq.router import configure_router
from discorder.publishers.zeromq.subscriptions import configure_subscriptions
from discorder.wire import replay_address

AUTO = "auto"
OFF = ""
PORT_PAIRS_TRIED = 20  # until the system chooses a port whose next port is free as well
BEAT_MS = 5_000  # between two heartbeats of ZeroMQ, which its threads send and answer
SILENCE_MS = 20_000  # after which a connection is closed, here and by the client; together within half a minute

Context = zmq.Context[zmq.Socket[bytes]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """Hold the settings that control access to the bus. Raises ConfigError for invalid settings."""

    key: str  # publishers.NAME
    insecure: bool
    secret_file: str
    clients: tuple[str, ...]
    access: IpcAccess

    def __post_init__(self) -> None:
        self.access.check(trusted=self.insecure or self.curve)
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
        """Return whether all traffic is encrypted and only known clients may connect."""
        return bool(self.secret_file)

    def check(self, endpoint: str, key: str) -> None:
        """Refuse an address that other hosts could reach unprotected. ``key`` is the last part of the configuration key."""
        check_endpoint(f"{self.key}.{key}", endpoint, insecure=self.insecure or self.curve)

    def authenticator(self, context: Context) -> KeyAuthenticator | None:
        """Return the authenticator, not started; None without CURVE."""
        return KeyAuthenticator(context, self.clients, f"{self.key}.curve_clients") if self.curve else None

    def protect(self, sock: zmq.Socket[bytes]) -> None:
        """Set the CURVE keys of ``sock`` before it is bound. Raises ConfigError for an unusable key file."""
        if self.curve:
            pair = load_pair(self.secret_file, f"{self.key}.curve_secret_file")
            sock.set(zmq.CURVE_SERVER, 1)
            sock.set(zmq.CURVE_SECRETKEY, pair.secret)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Hold the bound sockets of one bus and their addresses. ``router`` is None without replay."""

    bus: zmq.Socket[bytes]
    endpoints: tuple[str, ...]
    router: zmq.Socket[bytes] | None
    replay_endpoint: str

    def close(self, linger_ms: int) -> None:
        """Unbind. Clients may fetch sent messages for another ``linger_ms``."""
        self.bus.close(linger=linger_ms)
        if self.router is not None:
            self.router.close(linger=linger_ms)


def open_sockets(context: Context, binds: Sequence[str], replay: str, hwm: int, security: Security) -> Sockets:
    """Create, protect and bind the sockets. Raises AddressInUse or ConfigError, and leaves nothing open then.

    ``replay``: an address; "auto": the one derived from the first bind, if it is free; "" = no ROUTER.
    """
    bus = context.socket(zmq.XPUB)  # sends as PUB does, and reports the subscriptions
    router = context.socket(zmq.ROUTER) if replay != OFF else None
    try:
        for sock in (bus, router):
            if sock is not None:
                security.protect(sock)
                _notice_dead_connections(sock)
                sock.set(zmq.IPV6, int(any("[" in endpoint for endpoint in (*binds, replay))))
        bus.set(zmq.SNDHWM, hwm)
        configure_subscriptions(bus, curve=security.curve)
        report_subscriptions(bus)
        endpoints = [bind(bus, endpoint, f"{security.key}.bind", security.access) for endpoint in binds]
        address = OFF
        if router is not None:
            configure_router(router)
            address = _bind_router(router, replay, bus, binds[0], endpoints, security)
            if address == OFF:
                router.close(linger=0)
                router = None
        return Sockets(bus, tuple(endpoints), router, address)
    except BaseException:
        bus.close(linger=0)
        if router is not None:
            router.close(linger=0)
        raise


def bind(sock: zmq.Socket[bytes], endpoint: str, key: str, access: IpcAccess) -> str:
    """Bind ``sock``; return its address, with the port that was chosen. Raises AddressInUse or ConfigError, naming ``key``."""
    check_ipc_path(key, endpoint)
    try:
        with access.only_owner(endpoint):
            sock.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise address_in_use(key, endpoint) from error
        msg = f"{key}: cannot bind {endpoint}: {error}"
        raise ConfigError(msg) from error
    last = sock.get(zmq.LAST_ENDPOINT)
    bound = (last if isinstance(last, bytes) else bytes(last)).rstrip(b"\0").decode()
    access.open(bound)
    return bound


def _notice_dead_connections(sock: zmq.Socket[bytes]) -> None:
    """Close a connection that died silently, on both sides: a client of ZMTP 3.1 obeys ``HEARTBEAT_TTL``."""
    sock.set(zmq.HEARTBEAT_IVL, BEAT_MS)
    sock.set(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
    sock.set(zmq.HEARTBEAT_TTL, SILENCE_MS)


def _bind_router(
    router: zmq.Socket[bytes], replay: str, bus: zmq.Socket[bytes], first: str, endpoints: list[str], security: Security
) -> str:
    """Bind ``router`` and return its address; log a warning and return "" if the address derived from the bus is taken.

    If the system chose the port of the bus's ``first`` address, rebind the bus until the next port is free.
    """
    key, access = security.key, security.access
    if replay != AUTO:
        return bind(router, replay, f"{key}.replay", access)
    for tries_left in reversed(range(PORT_PAIRS_TRIED)):
        try:
            return bind(router, replay_address(endpoints[0]), f"{key}.replay", access)
        except (ConfigError, ValueError) as error:
            if not has_any_port(first) or not tries_left:
                logger.warning("No replay and no commands on this bus: %s", error)
                return OFF
            bus.unbind(endpoints[0])
            endpoints[0] = bind(bus, first, f"{key}.bind", access)
    return OFF
