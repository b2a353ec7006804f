"""Requests the guilds of every shard from the ROUTER, so that a bot that starts in the middle of a session knows them."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from discorder.bot.dealer import Dealer, ForeignAnswer, Part
from discorder.bot.positions import SavedPosition, Shard
from discorder.errors import GuildsNotKept

ANSWER_TIMEOUT = 2.0  # seconds without a part until the request is repeated; doubled after each failure
MAX_ANSWER_TIMEOUT = 10.0
RETRY_AFTER = 0.5  # seconds after a refusal
OLDER_BUS = "this bus is of an older version of Discorder, which cannot send guilds"

logger = logging.getLogger(__name__)


class _Shards(msgspec.Struct):
    """The fields of the answer without a shard."""

    shards: tuple[Shard, ...]


class _End(msgspec.Struct):
    """The fields of the last part that matter here."""

    shard: Shard
    session: str
    seq: int


@dataclass(frozen=True, slots=True)
class ShardGuildsAnswer:
    """The packed guilds of one shard, and their position: they contain every event up to it."""

    position: SavedPosition
    packed: list[bytes]


@dataclass(slots=True)
class GuildsClient:
    """The guilds of all shards of one bus. It has the deadlines; the owner waits, and passes the time.

    One shard is requested at a time. A shard without a READY is requested again until it has one.
    """

    dealer: Dealer
    due: float = 0.0  # when to send a request, or to send it again, in monotonic seconds
    sent: bool = False  # by the last `advance`
    _waiting: deque[int | None] = field(default_factory=lambda: deque[int | None]([None]))  # None: the list of shards
    _known: set[Shard] = field(default_factory=set)
    _id: bytes | None = None  # of the request on its way
    _packed: list[bytes] = field(default_factory=list)
    _failures: int = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to read and nothing to send."""
        return not self._waiting

    def lacks(self, shard: Shard) -> bool:
        """Return whether the guilds of ``shard`` have not come: its events are in the replay that follows them."""
        if shard in self._known:
            return False
        if self._waiting and self._waiting[0] is None:
            return True
        if shard[0] not in self._waiting:
            self._waiting.append(shard[0])
        return True

    def read(self, now: float) -> ShardGuildsAnswer | bool:
        """Process one part; return the guilds of a shard when they are complete, else whether there was a part.

        Raises `GuildsNotKept`, and ValueError when another program answers.
        """
        try:
            part = self.dealer.read()
            if part is None:
                return False
            return True if part.id != self._id else self._process(part, now)
        except (ForeignAnswer, msgspec.ValidationError) as error:
            self._retry(now + MAX_ANSWER_TIMEOUT)
            msg = f"something else than Discorder's bus answers at {self.dealer.address}: {error}"
            raise ValueError(msg) from error

    def advance(self, now: float) -> None:
        """Send the request that is due, or send it again on a new connection."""
        self.sent = False
        if not self._waiting or now < self.due:
            return
        if self._id is not None:
            self._failures += 1
            self.dealer.close()
            if self._failures == 1:
                logger.warning(
                    "No answer from %s: the guilds are requested again until they come.", self.dealer.address
                )
        shard, self._packed = self._waiting[0], []
        self._id = self.dealer.request("guilds") if shard is None else self.dealer.request("guilds", shard=shard)
        self.due = now + self._timeout
        self.sent = True

    @property
    def _timeout(self) -> float:
        return min(ANSWER_TIMEOUT * (1 << min(self._failures, 8)), MAX_ANSWER_TIMEOUT)

    def _process(self, part: Part, now: float) -> ShardGuildsAnswer | bool:
        self._failures, self.due = 0, now + self._timeout
        if part.topic:
            self._packed.append(part.document)
            return True
        fields = part.fields()
        if not fields.get("ok"):
            self._process_refusal(fields, now)
            return True
        asked = self._waiting.popleft()
        self._id, self.due = None, now
        answer = None
        if asked is None:
            self._waiting.extend(shard[0] for shard in msgspec.convert(fields, _Shards).shards)
        else:
            end = msgspec.convert(fields, _End)
            self._known = {shard for shard in self._known if shard[1] == end.shard[1]} | {end.shard}
            answer = ShardGuildsAnswer(SavedPosition(end.shard, end.session, end.seq), self._packed)
        if not self._waiting:
            self.dealer.close()
        return True if answer is None else answer

    def _process_refusal(self, fields: dict[str, Any], now: float) -> None:
        """Try another shard first, after a pause. Raises `GuildsNotKept` for a bus that will never send guilds."""
        error = fields.get("error")
        if error == "no_such_shard":  # the number of shards has changed
            self._waiting.popleft()
        else:
            self._waiting.rotate(-1)
        self._retry(now + RETRY_AFTER)
        if error in {"guilds_off", "bad_request"}:
            text = fields.get("message") if error == "guilds_off" else OLDER_BUS
            msg = f"{self.dealer.address}: {text}"
            raise GuildsNotKept(msg)

    def _retry(self, at: float) -> None:
        self._id, self.due = None, at
