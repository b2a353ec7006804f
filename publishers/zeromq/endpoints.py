"""Check the addresses to bind: their form, and who could reach them. Reads only the file at an IPC path."""

from __future__ import annotations

import grp
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from discorder.errors import AddressInUse, ConfigError
from discorder.wire import MAX_PORT

EXAMPLES = 'such as "tcp://127.0.0.1:6000" or "ipc:///run/user/1000/discorder"'
LOOPBACK_NAMES = frozenset({"localhost", "lo", "lo0"})

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\*|\d{1,5})")


def check_endpoint(key: str, endpoint: str, *, insecure: bool) -> None:
    """Refuse an address that cannot be bound or, unless ``insecure``, that other hosts could reach.

    ``key`` is the configuration key that the error names. Raises ConfigError.
    """
    if re.fullmatch(r"ipc://.+", endpoint):
        if endpoint.startswith("ipc://@") and not insecure:
            msg = (
                f"{key}: every user of this machine could read every message at {endpoint}, since an abstract socket has no "
                "owner and no mode; name a path, use keys (curve_secret_file, curve_clients), or set insecure = true"
            )
            raise ConfigError(msg)
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
    """Return whether the system chooses the port."""
    match = _TCP.fullmatch(endpoint)
    return match is not None and match["port"] in {"*", "0"}


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``: an address, ``[v6]``, an interface name or ``*``."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class IpcAccess:
    """Control who may connect to ``ipc://`` sockets: their owner, and by ``mode`` and ``group`` other users of this machine.

    ``mode`` is in digits, as for chmod; ``group`` is a name, "" for that of the process.
    """

    key: str  # publishers.NAME
    mode: str
    group: str

    def check(self, *, trusted: bool) -> None:
        """Raise ConfigError for an unknown group and, unless ``trusted``, for a mode that admits everybody."""
        bits = int(self.mode, 8)
        if bits & 0o007 and not trusted:
            msg = (
                f"{self.key}.mode: with {self.mode} every user of this machine could read all messages; use 0660 and group, keys "
                "(curve_secret_file, curve_clients), or set insecure = true"
            )
            raise ConfigError(msg)
        if self.group:
            self._group_id()

    @contextmanager
    def only_owner(self, endpoint: str) -> Iterator[None]:
        """Restrict the socket that is bound at ``endpoint`` in this context to its owner from the start."""
        if not endpoint.startswith("ipc://"):
            yield
            return
        before = os.umask(0o177)
        try:
            yield
        finally:
            os.umask(before)

    def open(self, endpoint: str) -> None:
        """Set mode and group of ``endpoint``, which is bound. Raises ConfigError."""
        path = endpoint.removeprefix("ipc://")
        if path == endpoint or path.startswith("@"):
            return
        try:
            if self.group:
                os.chown(path, -1, self._group_id())
            Path(path).chmod(int(self.mode, 8))
        except OSError as error:
            msg = (
                f"{self.key}.group: {path} cannot be given to the group {self.group!r} with mode {self.mode}: {error.strerror}; "
                "the user that runs this must be a member of the group"
            )
            raise ConfigError(msg) from error

    def _group_id(self) -> int:
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            msg = f"{self.key}.group: there is no group {self.group!r} on this machine"
            raise ConfigError(msg) from None


def check_ipc_path(key: str, endpoint: str) -> None:
    """Refuse an IPC path in use, or that is not a socket: binding deletes an existing file without a question.

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
            return  # no process listens: the socket of a killed process
    raise address_in_use(key, endpoint)


def address_in_use(key: str, endpoint: str) -> AddressInUse:
    """Return the error for an endpoint that another process holds."""
    return AddressInUse(
        f"{key}: {endpoint} is in use; stop the process that holds it, or choose another address or port"
    )
