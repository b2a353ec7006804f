"""Runs the replays of a subscription: sends the requests of a `GapDetector` to the ROUTER and passes the answers to it.

It has the deadlines; the owner waits, and passes the time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from discorder.bot.dealer import Dealer, ForeignAnswer, Part
from discorder.bot.gap_detector import GapDetector
from discorder.bot.positions import GAP_RECORD, Item, Shard, end_of_replay
from discorder.wire import decode_document

AT_ONCE = 4  # replays; the bus allows a client eight
ANSWER_TIMEOUT = 2.0  # seconds without a part until a request is repeated; doubled after each failure
MAX_ANSWER_TIMEOUT = 10.0
RETRY_AFTER = 1.0  # seconds after a refusal that names no time
MAX_RETRY_AFTER = 5.0  # seconds, whatever the refusal says
STILL_ACTIVE = 0.3  # seconds after the last progress; events that came later show that the connection of the bus works
GIVE_UP = 6.0  # seconds without progress, while events of the shard are held
SILENCE = 30.0  # seconds without requests after that

NOTHING_CAME = f"no answer within {GIVE_UP:g} s"
BUSY = f"it answers, but began no replay within {GIVE_UP:g} s"

ShardItems = tuple[Shard, Iterator[Item]]

logger = logging.getLogger(__name__)


class _Positions(msgspec.Struct):
    """The fields of the answer to ``positions`` that matter here."""

    shards: tuple[_ShardPosition, ...] = ()


class _ShardPosition(msgspec.Struct):
    shard: Shard


@dataclass(slots=True)
class _Request:
    """A replay of ``shard``; None: the list of shards. ``id`` None: it is not sent."""

    shard: Shard | None
    progress: float  # when the last part came, or when it was to be sent first
    due: float  # when to send it, or to send it again
    id: bytes | None = None
    failures: int = 0  # attempts without an answer since the last progress
    cut: bool = False  # an answer began and stopped
    confirming: bool = False  # only the last part is requested, to learn whether none is missing among those that came
    is_busy: bool = False  # refused, since the bus serves others

    @property
    def timeout(self) -> float:
        """Seconds to wait for a part."""
        return min(ANSWER_TIMEOUT * (1 << min(self.failures, 8)), MAX_ANSWER_TIMEOUT)


@dataclass(slots=True)
class ReplayClient:
    """All replays of one subscription. The owner sets ``bus_active_at`` to the time of the last message of the bus itself."""

    dealer: Dealer
    detector: GapDetector
    needs_shards: bool  # the list of shards is still to be requested
    bus_active_at: float = -math.inf
    sent: bool = False  # by the last `advance`
    _requests: dict[Shard | None, _Request] = field(default_factory=dict)
    _answered_at: float = -math.inf
    _silent_until: float = -math.inf
    _absent: bool = False  # nobody answers: no request before ``_silent_until``
    _warned: bool = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to read and nothing to send."""
        shared = self.detector.shared
        return not (shared.requests or self.needs_shards or self.dealer.is_open) and shared.replay

    def read(self, now: float) -> list[ShardItems] | None:
        """Process one part of an answer; return None when there is none."""
        try:
            part = self.dealer.read()
            if part is None:
                return None
            request = next((one for one in self._requests.values() if one.id == part.id), None)
            items = [] if request is None else self._process(request, part, now)
        except (ForeignAnswer, ValueError) as error:
            return self._treat_as_absent(now, f"something else than Discorder's bus answers ({error})")
        self._answered_at = now
        return items

    def advance(self, now: float) -> list[ShardItems]:
        """Send the requests that are due, and abandon those that have waited too long."""
        self.sent = False
        shared = self.detector.shared
        if not shared.replay and now >= self._silent_until:
            shared.replay, self._absent = True, False
        if self._absent:
            return self._abandon_held()
        self._update_requests(now)
        self._retry_overdue(now)
        items: list[ShardItems] = []
        for request in list(self._requests.values()):
            items += self._advance_one(request, now)
        if not self._requests:
            self.dealer.close()
        return items

    def due(self, now: float) -> float | None:
        """Return the seconds until `advance` has something to do; None: nothing without an answer."""
        if self.idle:
            return None
        times = [] if self.detector.shared.replay else [self._silent_until]
        if not self._absent:
            room = self._has_room
            times += [one.due for one in self._requests.values() if room or one.id is not None]
            times += [one.progress + GIVE_UP for one in self._requests.values() if one.progress + GIVE_UP > now]
        return max(0.0, min(times) - now) if times else None

    # ---------------------------------------------------------------- requests

    @property
    def _has_room(self) -> bool:
        return sum(one.id is not None for one in self._requests.values()) < AT_ONCE

    def _update_requests(self, now: float) -> None:
        wanted: list[Shard | None] = [*self.detector.shared.requests, *([None] if self.needs_shards else [])]
        for key in [key for key in self._requests if key not in wanted]:
            del self._requests[key]
        for key in wanted:
            self._requests.setdefault(key, _Request(key, now, now))

    def _retry_overdue(self, now: float) -> None:
        """Drop the connection when an answer is overdue, and send all its requests again."""
        sent = [one for one in self._requests.values() if one.id is not None]
        if not any(now >= one.due for one in sent):
            return
        self.dealer.close()
        for request in sent:
            if now >= request.due:
                request.failures += 1
            request.id, request.due = None, now

    def _advance_one(self, request: _Request, now: float) -> list[ShardItems]:
        if request.id is None and not self._has_room:
            request.progress = now  # it waits for its turn, not for an answer
            return []
        if now - request.progress >= GIVE_UP:
            unanswered = self._answered_at <= request.progress
            if unanswered or request.is_busy:
                self._warn(NOTHING_CAME if unanswered else BUSY)
            if request.shard is not None and self._is_needed(request):
                if unanswered:
                    return self._treat_as_absent(now, NOTHING_CAME)
                return self._abandon(request.shard, now, f"{self.dealer.address}: {BUSY}")
        if request.id is None and now >= request.due:
            self._send(request, now)
        return []

    def _is_needed(self, request: _Request) -> bool:
        """Return whether events are held for it while the bus is active. If both paths are down, the ring is asked later."""
        return (
            request.shard is not None
            and self.detector.holds(request.shard)
            and self.bus_active_at > request.progress + STILL_ACTIVE
        )

    def _send(self, request: _Request, now: float) -> None:
        if request.shard is None:
            request.id = self.dealer.request("positions")
        else:
            request.id = self._request_replay(request, request.shard)
        request.due = now + request.timeout
        self.sent = True

    def _request_replay(self, request: _Request, shard: Shard) -> bytes:
        after = self.detector.unconfirmed(shard) if request.cut else None
        request.confirming, request.cut = after is not None, False
        types = self.detector.shared.types
        wanted = None if types is None else [*types, GAP_RECORD]
        if after is None:
            after = self.detector.shared.requests[shard]
            self.detector.begin_replay(shard)
        else:
            wanted = []
        return self.dealer.request(
            "replay", shard=shard[0], session=after.session, after=max(0, after.after), types=wanted
        )

    # ---------------------------------------------------------------- answers

    def _process(self, request: _Request, part: Part, now: float) -> list[ShardItems]:
        shard = request.shard
        if part.topic and shard is not None:
            items = self.detector.receive_replayed(shard, decode_document(part.document))
            request.cut, request.failures, request.progress = True, 0, now
            request.due = now + request.timeout
            return [(shard, items)]
        fields = part.fields()
        if not fields.get("ok"):
            return self._process_refusal(request, fields, now)
        if shard is None:
            return self._process_shards(fields)
        return self._process_end(request, shard, fields, now)

    def _process_end(self, request: _Request, shard: Shard, fields: dict[str, Any], now: float) -> list[ShardItems]:
        end = end_of_replay(fields)
        self._warned = False
        if request.confirming:
            self.detector.confirm(shard, end)
            request.id, request.due, request.progress, request.failures = None, now, now, 0
            return []
        del self._requests[shard]
        return [(shard, self.detector.end_replay(shard, end))]

    def _process_shards(self, fields: dict[str, Any]) -> list[ShardItems]:
        positions = msgspec.convert(fields, _Positions)
        self.needs_shards = False
        del self._requests[None]
        return [(one.shard, self.detector.add(one.shard)) for one in positions.shards]

    def _process_refusal(self, request: _Request, fields: dict[str, Any], now: float) -> list[ShardItems]:
        request.id = None
        request.due = now + _seconds(fields.get("retry_after"))
        request.is_busy = fields.get("error") == "busy"
        if request.shard is None or fields.get("error") in {"no_such_shard", "busy"}:  # not yet, or not now
            return []
        return self._abandon(request.shard, now, f"{self.dealer.address} refuses: {fields.get('message')}")

    # ---------------------------------------------------------------- without an answer

    def _abandon(self, shard: Shard, now: float, cause: str) -> list[ShardItems]:
        """Abandon the replay of ``shard``, and request no other one for a while."""
        self._requests.pop(shard, None)
        self.detector.shared.replay = False
        self._silent_until = now + SILENCE
        self._warn(cause)
        return [(shard, self.detector.abandon_replay(shard, cause))]

    def _treat_as_absent(self, now: float, cause: str) -> list[ShardItems]:
        """Drop all requests, and send none for a while: the ROUTER is not there."""
        self._warn(cause)
        self.dealer.close()
        self._requests.clear()
        self.detector.shared.replay, self._absent = False, True
        self._silent_until = now + SILENCE
        return self._abandon_held()

    def _abandon_held(self) -> list[ShardItems]:
        cause = f"nobody answers at {self.dealer.address}"
        held = [shard for shard in self.detector.shared.requests if self.detector.holds(shard)]
        return [(shard, self.detector.abandon_replay(shard, cause)) for shard in held]

    def _warn(self, cause: str) -> None:
        if not self._warned:
            logger.warning(
                "No replay at %s: %s. The bot continues with live events; lost events become a Gap. Next attempt in %g s.",
                self.dealer.address,
                cause,
                SILENCE,
            )
        self._warned = True


def _seconds(retry_after: object) -> float:
    """Return the seconds that a refusal names, within bounds."""
    if isinstance(retry_after, int | float) and 0 < retry_after < MAX_RETRY_AFTER:
        return float(retry_after)
    return MAX_RETRY_AFTER if isinstance(retry_after, int | float) and retry_after > 0 else RETRY_AFTER
