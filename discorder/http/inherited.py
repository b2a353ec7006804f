"""Pass a listening socket to a process that is started: its parent knows the address, and no other process can take it."""

from __future__ import annotations

import os
import socket

SOCKET_VARIABLE = "DISCORDER_HTTP_SOCKET"  # of the environment: the number of the file descriptor


def listen_for_child() -> socket.socket:
    """Return a socket that listens on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    return listener


def variables(listener: socket.socket) -> dict[str, str]:
    """Return the variables for a process that inherits ``listener``."""
    return {SOCKET_VARIABLE: str(listener.fileno())}


def inherited_socket() -> socket.socket | None:
    """Return the socket that the parent has passed; None for a process without such a parent."""
    descriptor = os.environ.get(SOCKET_VARIABLE)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)  # positional only
    return socket.socket(fileno=int(descriptor))
