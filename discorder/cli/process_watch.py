"""Get the notifications of a child process, as systemd gets those of a service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

from discorder.runtime.notify import READY, SOCKET_VARIABLE, WATCHDOG, WATCHDOG_VARIABLES

READ_BYTES = 65_536


class ProcessWatch:
    """Hold what one child has notified: whether it is ``ready``, and when it fed its watchdog last.

    ``watchdog``: seconds within which it must do so, None = it need not.
    """

    def __init__(self, watchdog: float | None) -> None:
        self.ready = False
        self._watchdog = watchdog
        self._fed_at = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.bind("")  # the kernel chooses a name in the abstract namespace

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables for the child."""
        variables = {SOCKET_VARIABLE: f"@{self._socket.getsockname()[1:].decode()}"}
        return (
            variables
            if self._watchdog is None
            else variables | {WATCHDOG_VARIABLES[0]: str(round(self._watchdog * 1e6))}
        )

    @property
    def is_hung(self) -> bool:
        """Return whether a child that was ready has not fed its watchdog in time."""
        return self.ready and self._watchdog is not None and time.monotonic() - self._fed_at > self._watchdog

    def start(self) -> None:
        """Read notifications on the running loop until `close`."""
        asyncio.get_running_loop().add_reader(self._socket, self.read)

    def restart(self) -> None:
        """Forget the process before: another one begins."""
        self.ready = False

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def read(self) -> None:
        """Take in the notifications that have come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                states = self._socket.recv(READ_BYTES).decode(errors="replace").split("\n")
                self.ready = self.ready or READY in states
                if READY in states or WATCHDOG in states:
                    self._fed_at = time.monotonic()
