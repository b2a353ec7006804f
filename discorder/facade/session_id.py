"""Make and read the session ids of the façade. An id carries everything that a RESUME needs, and a signature over it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

KEY_PURPOSE = b"discorder facade session"
MAC_BYTES = 16
TAG_DIGITS = 8
LONGEST_ID = 512  # characters; ours have about 120


@dataclass(frozen=True, slots=True)
class FacadeSession:
    """A session of a bot. Sequence numbers in it are Discord's plus ``shift``.

    ``shard`` is (id, count); ``label`` names Discord's session. The stream begins after Discord's sequence ``start``; up to
    ``folded`` the guilds that were sent contain the events that the guild state takes. ``tag``: 8 hex digits.
    """

    shard: tuple[int, int]
    label: str
    shift: int
    start: int
    folded: int
    intents: int
    tag: str

    @property
    def burst_end(self) -> int:
        """The sequence number of the last GUILD_CREATE of the opening burst, or of READY without one."""
        return self.start + self.shift

    def encode(self, key: bytes, client: str) -> str:
        """Return the session id for the bot ``client``."""
        shard, count = self.shard
        numbers = (self.shift, self.start, self.folded, self.intents)
        text = ".".join(str(part) for part in (shard, count, self.label, *numbers, self.tag)).encode()
        return base64.urlsafe_b64encode(_mac(key, client, text) + text).rstrip(b"=").decode()


def session_key(token: str) -> bytes:
    """Return the key of the signatures, which is the same after every restart with the same bot token."""
    return hmac.digest(token.encode(), KEY_PURPOSE, hashlib.sha256)


def new_tag() -> str:
    """Return a tag for a new session."""
    return secrets.token_hex(TAG_DIGITS // 2)


def decode_session(text: str, key: bytes, client: str) -> FacadeSession | None:
    """Return the session of an id; None if this façade did not give it to the bot ``client``."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    signature, signed = raw[:MAC_BYTES], raw[MAC_BYTES:]
    if len(text) > LONGEST_ID or not hmac.compare_digest(signature, _mac(key, client, signed)):
        return None
    shard, count, label, shift, start, folded, intents, tag = signed.decode().split(".")
    return FacadeSession((int(shard), int(count)), label, int(shift), int(start), int(folded), int(intents), tag)


def _mac(key: bytes, client: str, text: bytes) -> bytes:
    return hmac.digest(key, b"%b\0%b" % (client.encode(), text), hashlib.sha256)[:MAC_BYTES]
