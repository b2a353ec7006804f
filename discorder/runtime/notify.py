"""Notify the service manager that started this process, as sd_notify(3) of systemd does: datagrams to ``NOTIFY_SOCKET``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from discorder.logs import logger

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLES = ("WATCHDOG_USEC", "WATCHDOG_PID")
VARIABLES = (SOCKET_VARIABLE, *WATCHDOG_VARIABLES)

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


class Notifier:
    """Send states to a service manager. ``watchdog``: it expects `WATCHDOG` within that many seconds, None = never."""

    def __init__(self, address: str, watchdog: float | None = None) -> None:
        """Take the path of a socket, or ``@NAME`` of one in the abstract namespace. Open nothing yet."""
        self.watchdog = watchdog
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._failed = False

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Notifier | None:
        """Return the notifier for the variables of ``environment``, None if no service manager wants to be notified."""
        address = environment.get(SOCKET_VARIABLE, "")
        if not address.startswith(("/", "@")):
            return None
        microseconds, pid = (environment.get(name, "") for name in WATCHDOG_VARIABLES)
        watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def send(self, *states: str) -> None:
        """Send ``states``, such as `READY` and ``STATUS=…``, in one datagram. Log the first of consecutive failures."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError as error:
            if not self._failed:
                logger.warning("The service manager cannot be notified", error=str(error))
            self._failed = True
        else:
            self._failed = False

    def reloading(self) -> None:
        """Send that the configuration is being read again; `READY` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def without_notifications(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` for a child, which does not speak for this service."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}
