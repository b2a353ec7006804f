"""What an address to bind may look like, and who could reach it. Pure but for a look at the file behind an IPC path."""

from __future__ import annotations

import ipaddress
import re
import socket
import stat
from contextlib import closing
from pathlib import Path

from discorder.errors import AddressInUse, ConfigError
from discorder.wire import MAX_PORT

EXAMPLES = 'such as "tcp://127.0.0.1:6000" or "ipc:///run/user/1000/discorder"'
LOOPBACK_NAMES = frozenset({"localhost", "lo", "lo0"})

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\*|\d{1,5})")


def check_endpoint(key: str, endpoint: str, *, insecure: bool) -> None:
    """Refuse what cannot be bound, and what other hosts could reach unless ``insecure``.

    ``key`` is the configuration key that the error names. Raises ConfigError.
    """
    if re.fullmatch(r"ipc://.+", endpoint):
        return
    match = _TCP.fullmatch(endpoint)
    if match is None or (match["port"] != "*" and int(match["port"]) > MAX_PORT):
        msg = f"{key}: {endpoint!r} is not an endpoint to bind; allowed: tcp://HOST:PORT and ipc://PATH, {EXAMPLES}"
        raise ConfigError(msg)
    if not insecure and not is_loopback(match["host"]):
        msg = (
            f"{key}: other hosts could read every message at {endpoint}; bind a loopback address or an ipc:// path, "
            f"{EXAMPLES}, encrypt it (curve_secret_file, curve_clients; discorder keygen), or set insecure = true if the network "
            "itself is trusted"
        )
        raise ConfigError(msg)


def has_any_port(endpoint: str) -> bool:
    """Whether the system is to choose the port."""
    match = _TCP.fullmatch(endpoint)
    return match is not None and match["port"] in {"*", "0"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: an address, ``[v6]``, an interface name or ``*``."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_ipc_path(key: str, endpoint: str) -> None:
    """Refuse an IPC path that somebody listens on, or that is no socket: binding deletes what is there without asking.

    Raises AddressInUse or ConfigError. Endpoints of other kinds, abstract names and paths that do not exist pass.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc://") or str(path).startswith("@") or not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        msg = f"{key}: {path} exists and is not a socket; choose another path"
        raise ConfigError(msg)
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody listens: left behind by a process that was killed
    raise address_in_use(key, endpoint)


def address_in_use(key: str, endpoint: str) -> AddressInUse:
    """The error for an endpoint that another process holds."""
    return AddressInUse(
        f"{key}: {endpoint} is in use; stop the process that holds it, or choose another address or port"
    )
