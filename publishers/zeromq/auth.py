"""Authenticate the clients of an encrypted bus by their public keys."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import zmq
from zmq.auth.thread import ThreadAuthenticator

LOG_EVERY = 60.0  # seconds between two lines about refused clients, which try again ten times a second

logger = logging.getLogger(__name__)


class KeyAuthenticator:
    """Accept only clients with a listed public key at the CURVE sockets of one context. Runs in a thread of its own.

    ``key``: the configuration key of ``clients``, for the log.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], clients: Sequence[str], key: str) -> None:
        self._key = key
        self._clients = frozenset(key.encode() for key in clients)
        self._authenticator = ThreadAuthenticator(context)
        self.refused = 0  # connections since the start
        self._logged_at = -math.inf

    def start(self) -> None:
        """Start the thread. Call it before the first socket binds."""
        self._authenticator.configure_curve_callback(credentials_provider=self)
        self._authenticator.start()

    def stop(self) -> None:
        """Stop the thread. Call it before the context is terminated."""
        self._authenticator.stop()

    def callback(self, _domain: str, key: bytes) -> bool:
        """Return whether a client may connect; called by the authenticator for each, with its ``key`` in Z85."""
        known = key in self._clients
        if not known:
            self.refused += 1
            self._log_refusal(key)
        return known

    def _log_refusal(self, key: bytes) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            shown = key.decode("ascii", "backslashreplace")
            logger.warning("%s does not list the key %s, so this client is refused", self._key, shown)
