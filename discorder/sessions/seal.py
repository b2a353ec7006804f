"""Sign the rows of the session store with a key made of the bot token, and check them.

Without the token nobody can make a row that is trusted: neither its resume host nor its sequence is used.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from discorder.sessions.store import token_key

_PURPOSE: Final = b"discorder session store 1"  # keeps the key apart from every other use of the token


@dataclass(frozen=True, slots=True)
class Seal:
    """The key of one token, and its `token_key`. The token cannot be derived from either."""

    token_key: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, token: str) -> Self:
        """Make the key of ``token``, with or without ``Bot`` in front."""
        plain = token.removeprefix("Bot ").strip()
        return cls(token_key(plain) if plain else "", hmac.digest(plain.encode(), _PURPOSE, "sha256"))

    def sign(self, bot: str, values: Sequence[object], ready: str | None) -> str:
        """Return the signature, 64 hex digits, of one row: its values, and the `ready_hash` of its READY."""
        return hmac.new(self.key, msgspec.json.encode([bot, *values, ready]), "sha256").hexdigest()

    def fits(self, signature: str, bot: str, values: Sequence[object], ready: str | None) -> bool:
        """Check a signature in constant time."""
        return hmac.compare_digest(signature.encode(), self.sign(bot, values, ready).encode())


def ready_hash(last_ready: bytes | None) -> str | None:
    """Return the SHA-256 of a stored READY. READY may have megabytes: a row whose seq advances is signed without reading it."""
    return None if last_ready is None else hashlib.sha256(last_ready).hexdigest()


UNKEYED: Final = Seal.of("")  # for tests and tools, whose stores belong to no token
