"""Get the sockets on which the façade listens: its own, or those that the service manager holds."""

from __future__ import annotations

import os
import socket

from discorder.config.facade import SYSTEMD, Facade
from discorder.errors import AddressInUse, ConfigError
from discorder.http.listener import bind
from discorder.transport import is_loopback

FIRST_DESCRIPTOR = 3  # of those that systemd passes (sd_listen_fds(3))
KEY = "facade.bind"


async def listening_sockets(facade: Facade) -> list[socket.socket]:
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
