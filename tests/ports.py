"""Choose ports for servers that a test ends and starts again."""

from __future__ import annotations

import contextlib
import random
import socket

PORTS = range(
    20_000, 32_000
)  # below those that Linux gives to connections: nobody takes one between an end and a start

_random = random.SystemRandom()  # tests seed the other one, and run side by side


def free_port(following: int = 0) -> int:
    """Return a port of 127.0.0.1 that is free now, as are the ``following`` ones behind it."""
    while True:
        port = _random.choice(PORTS)
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for number in range(port, port + following + 1):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
