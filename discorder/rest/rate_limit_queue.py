"""Queue requests until a rule allows them, in the order of their numbers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from discorder.clock import Clock, Timer
from discorder.errors import AddressBanned, RateLimited, RestError
from discorder.rest.limits import Rule, Scope
from discorder.rest.route import Route


class RateLimitMode(Enum):
    """Whether a request waits for a rate limit or raises RateLimited."""

    WAIT = "wait"
    RAISE = "raise"


R = TypeVar("R", bound=Rule)


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in a queue."""

    number: int
    route: Route
    waits_for_ban: bool = True
    woken: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: RestError | None = None

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

    async def pause(self) -> None:
        """Wait for the next `wake`."""
        self.woken = asyncio.get_running_loop().create_future()
        await self.woken


class RateLimitQueue(Generic[R]):
    """Pass requests one by one, in the order of their numbers, as ``rule`` allows.

    The first request wakes, checks the rule and takes from it. A cancelled request holds nothing and wakes the next one.
    """

    def __init__(self, rule: R, clock: Clock, mode: RateLimitMode) -> None:
        self.rule = rule
        self._clock = clock
        self._mode = mode
        self._requests: dict[int, QueuedRequest] = {}
        self._timer: Timer | None = None

    @property
    def is_empty(self) -> bool:
        return not self._requests

    @property
    def head(self) -> int | None:
        """The number of the first waiting request."""
        return next(iter(self._requests), None)

    async def enter(self, number: int, route: Route, *, waits_for_ban: bool = True) -> None:
        """Wait until ``number`` is first and the rule allows it, then take from the rule.

        Raises RateLimited in mode RAISE once it is certain that the request would have to wait, RestError after `close`, and
        AddressBanned after `expel` unless it ``waits_for_ban``.
        """
        request = QueuedRequest(number, route, waits_for_ban)
        self._admit(request)
        try:
            while not self._may_pass(request):
                await request.pause()
            self.rule.take(self._clock.monotonic())
        finally:
            self._requests.pop(number, None)
            self.wake()

    def _may_pass(self, request: QueuedRequest) -> bool:
        """Whether ``request`` is first and the rule allows it. Starts a timer if the rule will allow it later."""
        if request.error is not None:
            raise request.error
        if self.head != request.number:
            return False
        self._disarm()
        decision = self.rule.check(self._clock.monotonic())
        if decision.allowed:
            return True
        if decision.wait is not None:
            if decision.certain and self._mode is RateLimitMode.RAISE:
                raise rate_limited(request.route, decision.wait, decision.scope, banned=decision.banned)
            self._timer = self._clock.call_later(decision.wait, self.wake)
        return False

    def _admit(self, request: QueuedRequest) -> None:
        """Insert ``request`` by number, so that a request keeps its position after a 429."""
        out_of_order = bool(self._requests) and request.number < next(reversed(self._requests))
        self._requests[request.number] = request
        if out_of_order:
            self._requests = dict(sorted(self._requests.items()))

    def wake(self) -> None:
        """Let the first request check the rule again."""
        self._disarm()
        head = next(iter(self._requests.values()), None)
        if head is not None:
            head.wake()

    def dismiss(self) -> list[QueuedRequest]:
        """Remove and return all requests, and cancel the timer."""
        self._disarm()
        requests = list(self._requests.values())
        self._requests.clear()
        return requests

    def close(self, reason: str) -> None:
        """Raise RestError in every waiting request."""
        for request in self.dismiss():
            request.error = RestError(f"{request.route.method} {request.route.shown}: {reason}")
            request.wake()

    def expel(self, seconds: float) -> None:
        """The address is banned for ``seconds``: raise AddressBanned in the requests that do not wait for its end."""
        for request in self._requests.values():
            if not request.waits_for_ban:
                request.error = rate_limited(request.route, seconds, "global", banned=True)
                request.wake()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def rate_limited(route: Route, seconds: float, scope: Scope, *, banned: bool) -> RateLimited:
    """Return the error of a request that may be sent in ``seconds``."""
    if banned:
        return AddressBanned(retry_after=seconds, method=route.method, path=route.shown)
    return RateLimited(retry_after=seconds, scope=scope, method=route.method, path=route.shown)
