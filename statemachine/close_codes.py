"""Classify Discord's close codes by what they mean for the session. Undocumented codes share one row.

Most codes lead to RESUME: it is free, and op 9 false rejects a dead session (docs/protocol.md#close-codes). Fatal codes
concern the token, the intents, the shard layout or the API version, which a new connection does not fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class CloseClass(StrEnum):
    """List the reactions to a close code."""

    RESUME = "resume"
    REIDENTIFY = "re-identify"
    SLOW_DOWN = "slow down, then resume"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Describe one close code. ``remedy`` is what the operator can do, empty if nothing is needed."""

    meaning: str
    kind: CloseClass
    remedy: str = ""


CLOSE_CODES: Mapping[int | None, CloseCode] = MappingProxyType(
    {
        None: CloseCode("the connection ended without a close frame", CloseClass.RESUME),
        1000: CloseCode("normal closure", CloseClass.RESUME),
        1001: CloseCode("going away", CloseClass.RESUME),
        4000: CloseCode("unknown error", CloseClass.RESUME),
        4001: CloseCode("unknown opcode", CloseClass.RESUME, "a command that was sent is not known to Discord"),
        4002: CloseCode("decode error", CloseClass.RESUME, "a command that was sent is malformed or too large"),
        4003: CloseCode("not authenticated", CloseClass.RESUME),
        4004: CloseCode(
            "authentication failed",
            CloseClass.FATAL,
            "check the bot token in DISCORD_BOT_TOKEN or gateway.token_file; reset it in the developer portal if in doubt",
        ),
        4005: CloseCode("already authenticated", CloseClass.RESUME),
        4007: CloseCode("invalid seq", CloseClass.REIDENTIFY),
        4008: CloseCode("rate limited", CloseClass.SLOW_DOWN, "something sends more than 120 commands a minute"),
        4009: CloseCode("session timed out", CloseClass.REIDENTIFY),
        4010: CloseCode("invalid shard", CloseClass.FATAL, "check gateway.shards: ids must be below the count"),
        4011: CloseCode("sharding required", CloseClass.FATAL, 'set gateway.shards to "auto" or to a larger count'),
        4012: CloseCode("invalid API version", CloseClass.FATAL, "upgrade Discorder: it speaks gateway version 10"),
        4013: CloseCode("invalid intents", CloseClass.FATAL, "check gateway.intents: a bit in it does not exist"),
        4014: CloseCode(
            "disallowed intents",
            CloseClass.FATAL,
            "enable the privileged intents in the developer portal, or take them out of gateway.intents",
        ),
    }
)

UNKNOWN_CLOSE = CloseCode("a code that is not documented", CloseClass.RESUME)


def classify(code: int | None) -> CloseCode:
    """Return the row for ``code``. None means that the connection ended without a close frame."""
    return CLOSE_CODES.get(code, UNKNOWN_CLOSE)
