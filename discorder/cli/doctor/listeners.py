"""Find out whether an address can be listened on, and which process has it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # the state in /proc/net/tcp
EVERY_INTERFACE = "*"


@dataclass(frozen=True, slots=True)
class PortOwner:
    """A process that listens on a port."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def objection(host: str, port: int) -> str | None:
    """Return why ``host`` and ``port`` cannot be listened on, in the system's words; None if they can. Does not listen."""
    try:
        found = socket.getaddrinfo(
            None if host == EVERY_INTERFACE else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections do not matter
            probe.bind(address)
    except OSError as error:
        return "it is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return None


def find_listener(port: int) -> PortOwner | None:
    """Return the process that listens on ``port`` on any interface; None if the system does not say."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in PROC.iterdir() if wanted else ():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):  # it has ended, or belongs to another user
            if any(_target(entry) in wanted for entry in (process / "fd").iterdir()):
                return PortOwner(int(process.name), (process / "comm").read_text(errors="replace").strip())
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)  # noqa: PTH115  # a text, no path to work with
    except OSError:
        return ""
