"""Who may connect to an encrypted bus: the clients whose public keys are listed."""

from __future__ import annotations

from collections.abc import Sequence

import zmq
from zmq.auth.thread import ThreadAuthenticator


class Gatekeeper:
    """Admits to the CURVE sockets of one context only those clients whose public keys are listed. Has a thread of its own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], clients: Sequence[str]) -> None:
        self._clients = frozenset(key.encode() for key in clients)
        self._authenticator = ThreadAuthenticator(context)

    def start(self) -> None:
        """Must come before the first socket binds."""
        self._authenticator.configure_curve_callback(credentials_provider=self)
        self._authenticator.start()

    def stop(self) -> None:
        """Must come before the context is terminated."""
        self._authenticator.stop()

    def callback(self, _domain: str, key: bytes) -> bool:
        """Called by the authenticator for every client that connects; ``key`` is in Z85."""
        return key in self._clients
