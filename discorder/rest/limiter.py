"""The rate limiter: which request may go when. Three gates in a row: the bucket, the global limit, the count of invalid requests.

The arithmetic is in `budget`, the queues in `turnstile`; this file knows which route belongs to which bucket. Must not: send.
Source of the rules: gateway-protocol.md §15.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from discorder.clock import Clock
from discorder.errors import TooManyInvalidRequests
from discorder.rest.answer import Answer, Refusal
from discorder.rest.budget import (
    GLOBAL_LIMIT,
    GLOBAL_PERIOD,
    INVALID_PERIOD,
    INVALID_STOP,
    Bucket,
    Knowledge,
    Unbounded,
    Window,
)
from discorder.rest.route import Route
from discorder.rest.turnstile import RateLimitMode, Turnstile

SWEEP_EVERY = 60.0  # seconds between two looks for idle buckets
MAX_ROUTES = 1_000  # remembered route → bucket hash; the oldest is forgotten and learned again
SHOWN_BUCKETS = 8

Lane = Turnstile[Bucket]
LaneKey = tuple[str, str]  # (Discord's bucket hash, or method and path while that is unknown; major parameter)


@dataclass(slots=True)
class Slot:
    """Leave to send one request. Set ``sent`` before sending and ``answer`` after; leaving the context settles the account."""

    lane: Lane
    sent: bool = False
    answer: Answer | None = None


class RateLimiter:
    """The limits of one bot. One at a time per unknown bucket, then as the headers allow; 50 per second over all."""

    def __init__(self, clock: Clock, mode: RateLimitMode = RateLimitMode.WAIT) -> None:
        self._clock = clock
        self._mode = mode
        self._numbers = itertools.count()
        self._hashes: dict[tuple[str, str], str] = {}
        self._lanes: dict[LaneKey, Lane] = {}
        self._global = Turnstile(Window(GLOBAL_LIMIT, GLOBAL_PERIOD), clock, mode)
        self._exempt = Turnstile[Window](Unbounded(), clock, mode)
        self._invalid = Window(INVALID_STOP, INVALID_PERIOD)
        self._swept_at = clock.monotonic()

    @property
    def mode(self) -> RateLimitMode:
        return self._mode

    def next_number(self) -> int:
        """A place in the queues; one request keeps it through all its tries."""
        return next(self._numbers)

    @contextlib.asynccontextmanager
    async def slot(self, number: int, route: Route) -> AsyncIterator[Slot]:
        """Wait until a request to ``route`` may be sent.

        Raises RateLimited (mode RAISE), TooManyInvalidRequests, and RestError when the client is closed meanwhile.
        """
        self._refuse_if_banned(route)
        self._sweep()
        slot = Slot(await self._lane(route).enter(number, route))
        try:
            await self._gate(route).enter(number, route)
            self._refuse_if_banned(route)
            yield slot
        finally:
            self._settle(slot, route)

    def close(self, reason: str) -> None:
        """Everybody who waits gets a RestError; what was learned stays."""
        for lane in self._lanes.values():
            lane.close(reason)
        self._global.close(reason)
        self._exempt.close(reason)

    def abandon(self) -> None:
        """Forget every queue: the loop in which they waited is gone."""
        self._lanes.clear()
        self._global.dismiss()
        self._exempt.dismiss()

    def __repr__(self) -> str:
        shown = [_describe(key, lane.rule) for key, lane in itertools.islice(self._lanes.items(), SHOWN_BUCKETS)]
        if len(self._lanes) > SHOWN_BUCKETS:
            shown.append(f"… {len(self._lanes) - SHOWN_BUCKETS} more")
        return f"RateLimiter(buckets={{{', '.join(shown)}}}, {self._mode.name})"

    def _refuse_if_banned(self, route: Route) -> None:
        wait = self._invalid.wait(self._clock.monotonic())
        if wait > 0:
            raise TooManyInvalidRequests(count=INVALID_STOP, retry_after=wait, method=route.method, path=route.shown)

    def _gate(self, route: Route) -> Turnstile[Window]:
        return self._exempt if route.exempt else self._global

    def _lane(self, route: Route) -> Lane:
        """The lane of the route's own key while that exists (nothing answered yet), else that of its bucket."""
        own = _own_key(route)
        if own in self._lanes or route.key not in self._hashes:
            return self._lane_at(own)
        return self._lane_at((self._hashes[route.key], route.major))

    def _lane_at(self, key: LaneKey) -> Lane:
        if key not in self._lanes:
            self._lanes[key] = Turnstile(Bucket(), self._clock, self._mode)
        return self._lanes[key]

    def _settle(self, slot: Slot, route: Route) -> None:
        """Book what one request has shown, and wake who may go now."""
        now = self._clock.monotonic()
        answer = slot.answer
        bucket = slot.lane.rule
        bucket.give_back(unanswered=slot.sent and answer is None)
        lane = slot.lane
        if answer is not None:
            lane = self._learn(slot.lane, route, answer, now)
            if answer.is_invalid:
                self._invalid.take(now)
            refusal = answer.refusal()
            if refusal is not None:
                self._hold(lane, route, refusal, now)
        slot.lane.wake()
        lane.wake()

    def _learn(self, lane: Lane, route: Route, answer: Answer, now: float) -> Lane:
        limits = answer.limits()
        if limits is None:
            if answer.succeeded:
                lane.rule.learn_nothing()
            return lane
        if limits.bucket is not None:
            lane = self._assign(lane, route, limits.bucket)
        lane.rule.learn(now, limits)
        return lane

    def _assign(self, lane: Lane, route: Route, name: str) -> Lane:
        """The answer named the route's bucket: remember it, and merge the route's own lane into the bucket's."""
        self._hashes.pop(route.key, None)
        self._hashes[route.key] = name
        if len(self._hashes) > MAX_ROUTES:
            del self._hashes[next(iter(self._hashes))]
        target = self._lane_at((name, route.major))
        if self._lanes.get(_own_key(route)) is lane and lane is not target:
            del self._lanes[_own_key(route)]
            target.adopt(lane)
        return target

    def _hold(self, lane: Lane, route: Route, refusal: Refusal, now: float) -> None:
        if refusal.by_edge:  # the address is blocked: nothing gets through, interactions included
            for gate in (self._global, self._exempt):
                gate.rule.hold(now, refusal.retry_after)
                gate.wake()
        elif refusal.scope == "global":
            self._gate(route).rule.hold(now, refusal.retry_after)
            self._gate(route).wake()
        else:
            lane.rule.hold(now, refusal.retry_after, refusal.scope)

    def _sweep(self) -> None:
        """Forget idle buckets, so that memory follows what is used and not what was ever used."""
        now = self._clock.monotonic()
        if now - self._swept_at >= SWEEP_EVERY:
            self._swept_at = now
            self._lanes = {k: lane for k, lane in self._lanes.items() if not (lane.is_empty and lane.rule.is_idle(now))}


def _own_key(route: Route) -> LaneKey:
    return f"{route.method} {route.template}", route.major


def _describe(key: LaneKey, bucket: Bucket) -> str:
    name = " / ".join(part for part in key if part)
    match bucket.knowledge:
        case Knowledge.LIMITED:
            return f"{name}: {bucket.remaining} of {bucket.limit}"
        case Knowledge.UNLIMITED:
            return f"{name}: unlimited"
        case Knowledge.UNKNOWN:
            return f"{name}: unknown"
