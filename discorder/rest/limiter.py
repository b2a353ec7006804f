"""Delay each REST request until Discord's rate limits allow it (docs/protocol.md#rest).

A request passes in order: a sub-limit, if a 429 has shown one; its route's buckets; the block of the address and the global
limit. Too many invalid requests stop all requests.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from discorder.clock import Clock
from discorder.errors import TooManyInvalidRequests
from discorder.rest.limits import (
    GLOBAL_LIMIT,
    GLOBAL_PERIOD,
    INVALID_PERIOD,
    INVALID_STOP,
    AddressBlock,
    Bucket,
    GlobalRule,
    SlidingWindow,
    SubLimit,
    Unbounded,
)
from discorder.rest.rate_limit_queue import RateLimitMode, RateLimitQueue, rate_limited
from discorder.rest.response import RateLimitResponse, Response
from discorder.rest.route import Route
from discorder.rest.route_buckets import Admission, RouteBuckets, RouteKey, RouteRule
from discorder.rest.sub_limits import SubLimits

SWEEP_EVERY = 60.0  # seconds between two searches for idle buckets

_log = logging.getLogger(__name__)

RouteQueue = RateLimitQueue[RouteRule]


@dataclass(slots=True)
class Permit:
    """Permission to send one request. Set ``sent`` before sending and ``answer`` after; the context manager then books both."""

    queue: RouteQueue | None = None
    sub_limit: RateLimitQueue[SubLimit] | None = None
    admission: Admission | None = None
    is_probe: bool = False
    sent_at: float = 0.0  # monotonic
    sent: bool = False
    answer: Response | None = None


class RateLimiter:
    """Apply the limits of one bot: one request at a time per unknown bucket, then as the headers allow; 50 per second in all."""

    def __init__(self, clock: Clock, mode: RateLimitMode = RateLimitMode.WAIT) -> None:
        self._clock = clock
        self._mode = mode
        self._numbers = itertools.count()
        self._buckets = RouteBuckets()
        # by major parameter: only queues with the same one share buckets
        self._route_queues: dict[str, dict[RouteKey, RouteQueue]] = {}
        self._sub_limits = SubLimits(clock, mode)
        self._block = AddressBlock()
        self._global = RateLimitQueue(GlobalRule(self._block, SlidingWindow(GLOBAL_LIMIT, GLOBAL_PERIOD)), clock, mode)
        self._exempt = RateLimitQueue(GlobalRule(self._block, Unbounded()), clock, mode)
        self._invalid = SlidingWindow(INVALID_STOP, INVALID_PERIOD)
        self._swept_at = clock.monotonic()

    @property
    def mode(self) -> RateLimitMode:
        return self._mode

    def next_number(self) -> int:
        """Return a position in the queues. A request keeps its number through all its tries."""
        return next(self._numbers)

    @contextlib.asynccontextmanager
    async def permit(self, number: int, route: Route, *, waits_for_ban: bool = True) -> AsyncIterator[Permit]:
        """Wait until a request to ``route`` may be sent.

        Raises RateLimited (mode RAISE), TooManyInvalidRequests, and RestError when the client is closed meanwhile. A request that
        does not ``waits_for_ban`` raises AddressBanned as soon as the address is refused, wherever it waits.
        """
        self._refuse_if_too_many_invalid(route)
        if not waits_for_ban and (left := self.banned_for()) > 0:
            raise rate_limited(route, left, "global", banned=True)
        self._sweep()
        permit = Permit()
        try:
            while not await self._admit(permit, number, route, waits_for_ban=waits_for_ban):
                self._settle(permit, route)
                permit = Permit()
            self._refuse_if_too_many_invalid(route)
            permit.sent_at = self._clock.monotonic()
            yield permit
        finally:
            self._settle(permit, route)

    def banned_for(self) -> float:
        """Return the seconds until a request is tried again from an address that Discord refuses; 0 for any other address."""
        return max(0.0, self._block.hold.until - self._clock.monotonic())

    def close(self, reason: str) -> None:
        """Raise RestError in every waiting request. The limits learned so far are kept."""
        for queue in self._all_queues():
            queue.close(reason)

    def abandon(self) -> None:
        """Drop every queue, because the event loop of their requests is closed."""
        self._buckets = RouteBuckets()
        self._route_queues.clear()
        self._sub_limits = SubLimits(self._clock, self._mode)
        self._block.is_probing = False
        self._global.dismiss()
        self._exempt.dismiss()

    def __repr__(self) -> str:
        return f"RateLimiter(buckets={self._buckets!r}, {self._mode.name})"

    async def _admit(self, permit: Permit, number: int, route: Route, *, waits_for_ban: bool) -> bool:
        """Pass every queue and store in ``permit`` what was taken.

        Returns False if a sub-limit has appeared meanwhile: the request has to pass it first.
        """
        sub_limit = self._sub_limits.find(route)
        if sub_limit is not None:
            await sub_limit.enter(number, route, waits_for_ban=waits_for_ban)
            permit.sub_limit = sub_limit
        queue = self._route_queue(route)
        await queue.enter(number, route, waits_for_ban=waits_for_ban)
        permit.queue, permit.admission = queue, queue.rule.last
        if self._sub_limits.find(route) is not sub_limit:
            return False
        await self._global_queue(route).enter(number, route, waits_for_ban=waits_for_ban)
        permit.is_probe = self._block.probe()
        return True

    def _refuse_if_too_many_invalid(self, route: Route) -> None:
        wait = self._invalid.wait(self._clock.monotonic())
        if wait > 0:
            raise TooManyInvalidRequests(count=INVALID_STOP, retry_after=wait, method=route.method, path=route.shown)

    def _global_queue(self, route: Route) -> RateLimitQueue[GlobalRule]:
        return self._exempt if route.exempt else self._global

    def _route_queue(self, route: Route) -> RouteQueue:
        queues = self._route_queues.setdefault(route.major, {})
        if route.key not in queues:
            queues[route.key] = RateLimitQueue(
                RouteRule(self._buckets, route.key, route.major), self._clock, self._mode
            )
        return queues[route.key]

    def _all_queues(self) -> list[RateLimitQueue[Any]]:
        of_routes = [queue for queues in self._route_queues.values() for queue in queues.values()]
        return [*self._sub_limits.queues(), *of_routes, self._global, self._exempt]

    def _settle(self, permit: Permit, route: Route) -> None:
        """Apply the result of one request, and wake the requests that may be sent now."""
        answer = permit.answer
        if permit.sub_limit is not None:
            permit.sub_limit.rule.in_flight -= 1
        if permit.is_probe:
            self._block.is_probing = False
        if permit.queue is not None and permit.admission is not None:
            lost = permit.sent and answer is None
            permit.queue.rule.give_back(permit.admission, answered=answer is not None, unanswered=lost)
            if answer is not None:
                self._book(permit, self._learn(permit.queue.rule, permit.admission, answer), route, answer)
        self._wake(permit, route)

    def _wake(self, permit: Permit, route: Route) -> None:
        if permit.sub_limit is not None:
            permit.sub_limit.wake()
        waiting = [queue for queue in self._route_queues.get(route.major, {}).values() if not queue.is_empty]
        for queue in sorted(waiting, key=lambda queue: queue.head or 0):
            queue.wake()
        if permit.is_probe:
            self._global.wake()
            self._exempt.wake()

    def _learn(self, rule: RouteRule, admission: Admission, answer: Response) -> list[Bucket]:
        """Apply the limits in the answer's headers, and return the buckets that they concern."""
        limits = answer.limits()
        if limits is not None:
            return [rule.learn(self._clock.monotonic(), limits, admission)]
        if answer.succeeded:
            for bucket in admission.buckets:
                bucket.learn_nothing()
        return admission.buckets

    def _book(self, permit: Permit, concerned: list[Bucket], route: Route, answer: Response) -> None:
        now = self._clock.monotonic()
        if answer.is_invalid:
            self._invalid.take(now)
        limited = answer.rate_limit()
        if limited is not None:
            self._hold(permit, concerned, route, limited, now)
        else:
            self._global_queue(route).rule.hold.clear(permit.sent_at)
            for bucket in concerned:
                bucket.hold.clear(permit.sent_at)
            if permit.sub_limit is not None:
                permit.sub_limit.rule.hold.clear(permit.sent_at)
        if self._block.hold.refusals and not (limited is not None and limited.address):
            self._block.hold.clear(permit.sent_at)
            if not self._block.hold.refusals:
                _log.warning("Discord answers this address again; requests go on")

    def _hold(
        self, permit: Permit, concerned: list[Bucket], route: Route, limited: RateLimitResponse, now: float
    ) -> None:
        stated = limited.retry_after if limited.is_stated else None
        if limited.address:  # no request passes, interactions included
            self._hold_address(permit, stated, now)
        elif limited.scope == "global":
            self._global_queue(route).rule.hold.extend(now, permit.sent_at, stated, "global")
            self._global_queue(route).wake()
        elif limited.sub_limit:
            self._sub_limits.hold(route, now, permit.sent_at, stated)
        else:
            for bucket in concerned:
                bucket.hold.extend(now, permit.sent_at, stated, limited.scope)

    def _hold_address(self, permit: Permit, stated: float | None, now: float) -> None:
        known = self._block.hold.refusals
        self._block.hold.extend(now, permit.sent_at, stated, "global")
        if self._block.hold.refusals != known:
            _log.error(
                "Discord refuses every request from this address (429 without a rate limit, %d in a row): nothing is sent for "
                "%.0f s, then one request is tried. Find what sends too many requests from this address; a ban ends by itself",
                self._block.hold.refusals,
                self.banned_for(),
            )
        for queue in self._all_queues():
            queue.expel(self.banned_for())
        self._global.wake()
        self._exempt.wake()

    def _sweep(self) -> None:
        """Drop idle queues and buckets, so that memory use stays bounded."""
        now = self._clock.monotonic()
        if now - self._swept_at < SWEEP_EVERY:
            return
        self._swept_at = now
        for major, queues in list(self._route_queues.items()):
            kept = {key: queue for key, queue in queues.items() if not (queue.is_empty and queue.rule.is_idle(now))}
            self._route_queues[major] = kept
            if not kept:
                del self._route_queues[major]
        self._buckets.sweep(now)
        self._sub_limits.sweep(now)
