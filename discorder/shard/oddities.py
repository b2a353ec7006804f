"""Count, log and remember frames that break the protocol but end at most one connection."""

from __future__ import annotations

from enum import StrEnum

from discorder.errors import ProtocolBreach
from discorder.logs import logger
from discorder.stats import GatewayStats

REMEMBERED = 1000  # breaches of one session: far more than a replay of a working server contains


class Odd(StrEnum):
    """Name the kinds of frames that are tolerated or dropped; the values are the keys of the counter ``odd_frames``."""

    SECOND_HELLO = "a second Hello"
    UNKNOWN_OPCODE = "an opcode beyond 255"
    INVALID_SESSION_WITHOUT_FLAG = "op 9 without d"
    NO_DATA = "a dispatch without d"
    NO_TYPE = "a dispatch without a usable t"
    RESUMED_WITHOUT_SEQUENCE = "RESUMED without s"
    BEFORE_HANDSHAKE = "a dispatch before IDENTIFY or RESUME was sent"
    BEFORE_READY = "a dispatch before READY"
    SEEN = "a dispatch that was seen before"
    HELD = "a dispatch that overtook the replay"
    HOLD_FULL = "a replay that was overtaken by too much"
    NO_RESUME_URL = "READY without a resume URL"
    REPEATED_SESSION = "READY with a session id that was used before"
    PASSED_OVER = "the same breach of protocol again"


class BreachKind(StrEnum):
    """Name the kinds of breaches that end the connection once. A second one at the same sequence is tolerated."""

    UNREADABLE = "a frame that cannot be read"
    HELLO = "a Hello that cannot be read"
    INVALID_SESSION = "an op 9 that cannot be read"
    BEFORE_HELLO = "a dispatch before Hello"
    NO_SEQUENCE = "a dispatch without s"
    BACKWARDS = "a sequence that went back"
    SECOND_READY = "a second READY"


class Oddities:
    """Keep the oddities of one shard, over all of its connections."""

    def __init__(self, shard_id: int, stats: GatewayStats) -> None:
        self._shard_id = shard_id
        self._stats = stats
        self._met: dict[tuple[BreachKind, int | None], int] = {}

    def note(self, odd: Odd, detail: str = "") -> None:
        """Count ``odd`` and log it. Only the 1st, 10th, 100th and so on is a warning, so that no peer fills the log."""
        counter = self._stats.odd_frames
        counter[odd.value] += 1
        count = counter[odd.value]
        log = logger.warning if str(count).strip("0") == "1" else logger.debug
        log("The gateway sent an odd frame", what=odd.value, detail=detail, count=count, shard=self._shard_id)

    def raise_once(self, kind: BreachKind, breach: ProtocolBreach, seq: int | None) -> bool:
        """Raise ``breach`` if it is the first of its kind at the sequence ``seq`` of this session.

        Return whether this is the second time.
        """
        key = kind, seq
        times = self._met[key] = self._met.pop(key, 0) + 1
        if len(self._met) > REMEMBERED:
            del self._met[next(iter(self._met))]
        if times == 1:
            raise breach
        self.note(Odd.PASSED_OVER, f"{kind.value} behind seq {seq}")
        return times == 2  # one, two, many

    def session_opened(self) -> None:
        """Forget the breaches of the previous session."""
        self._met.clear()
