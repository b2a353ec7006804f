"""Track limits that only a 429 shows, while the bucket has requests left: a channel's name and topic, old messages.

The answer does not state the scope of such a limit. Assumed: the requests to the same path whose body has the same fields;
after a second path of the route is refused meanwhile, all paths of the route with the same major parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

from discorder.clock import Clock
from discorder.rest.limits import SubLimit
from discorder.rest.rate_limit_queue import RateLimitMode, RateLimitQueue
from discorder.rest.route import Route
from discorder.rest.route_buckets import RouteKey

Queue = RateLimitQueue[SubLimit]


@dataclass(frozen=True, slots=True)
class _ScopedSubLimit:
    """One sub-limit. ``path`` is None when it applies to every path of the route."""

    path: str | None
    fields: frozenset[str]
    queue: Queue

    def applies_to(self, route: Route) -> bool:
        return self.path in {None, route.path} and self.fields <= route.fields


class SubLimits:
    """The sub-limits that 429s have shown, each with the queue of its requests."""

    def __init__(self, clock: Clock, mode: RateLimitMode) -> None:
        self._clock = clock
        self._mode = mode
        self._sub_limits: dict[tuple[RouteKey, str], list[_ScopedSubLimit]] = {}

    def find(self, route: Route) -> Queue | None:
        """Return the queue in which a request to ``route`` has to wait first; of several, the one with the widest scope."""
        matching = [
            sub_limit for sub_limit in self._sub_limits.get((route.key, route.major), ()) if sub_limit.applies_to(route)
        ]
        return min(matching, key=lambda sub_limit: sub_limit.path is not None).queue if matching else None

    def hold(self, route: Route, now: float, sent_at: float, stated: float | None) -> None:
        """Apply a 429 of a sub-limit."""
        queue = self.find(route)
        if queue is None:
            sub_limits = self._sub_limits.setdefault((route.key, route.major), [])
            is_wider = any(
                sub_limit.fields == route.fields and not sub_limit.queue.rule.is_idle(now) for sub_limit in sub_limits
            )
            queue = RateLimitQueue(SubLimit(), self._clock, self._mode)
            sub_limits.append(_ScopedSubLimit(None if is_wider else route.path, route.fields, queue))
        queue.rule.hold.extend(now, sent_at, stated, "user")
        queue.wake()

    def queues(self) -> list[Queue]:
        return [sub_limit.queue for sub_limits in self._sub_limits.values() for sub_limit in sub_limits]

    def sweep(self, now: float) -> None:
        """Drop the sub-limits that have ended and have no waiting request."""
        for key, sub_limits in list(self._sub_limits.items()):
            kept = [
                sub_limit
                for sub_limit in sub_limits
                if not (sub_limit.queue.is_empty and sub_limit.queue.rule.is_idle(now))
            ]
            self._sub_limits[key] = kept
            if not kept:
                del self._sub_limits[key]
