"""What a close code means for the session: one table, a row for what nobody has seen yet, one function.

RESUME first, for it is free and op 9 false decides; this overrides the class column of gateway-protocol.md §4.1, whose
sources disagree (§4.2). Fatal codes are facts about the token or the layout: no redial can mend them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

RESUMABLE_CLOSE = 4000  # ours: any code but 1000 and 1001 keeps the session (gateway-protocol.md §4.3)
GOODBYE_CLOSE = 1000  # ours: ends the session at once


class CloseClass(StrEnum):
    """What follows from a close code."""

    RESUME = "resume"
    REIDENTIFY = "re-identify"
    SLOW_DOWN = "slow down, then resume"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One row: ``remedy`` is what an operator can do, empty where nothing needs doing."""

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
    """The row for ``code``; None stands for a connection that ended without a close frame."""
    return CLOSE_CODES.get(code, UNKNOWN_CLOSE)
