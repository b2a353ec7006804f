"""A queue before a rule: first come, first served, woken by the `Clock` or by whoever changes the rule.

Must not: know what the rule counts, or HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from discorder.clock import Clock, Timer
from discorder.errors import RateLimited, RestError
from discorder.rest.budget import Rule
from discorder.rest.route import Route


class RateLimitMode(Enum):
    """What happens to a request that would have to wait for a rate limit."""

    WAIT = "wait"
    RAISE = "raise"


R = TypeVar("R", bound=Rule)


@dataclass(slots=True, eq=False)
class Waiter(Generic[R]):
    """One request in a queue. ``home`` changes when its queue is merged into another one."""

    number: int
    route: Route
    home: Turnstile[R]
    woken: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: RestError | None = None

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

    async def pause(self) -> None:
        """Wait for the next `wake`."""
        self.woken = asyncio.get_running_loop().create_future()
        await self.woken


class Turnstile(Generic[R]):
    """Lets requests through one by one, in the order of their numbers, as its rule allows.

    Nobody is let through from outside: whoever is at the head wakes up, asks the rule and takes. A cancelled request therefore
    never holds anything; it only wakes the next.
    """

    def __init__(self, rule: R, clock: Clock, mode: RateLimitMode) -> None:
        self.rule = rule
        self._clock = clock
        self._mode = mode
        self._waiters: dict[int, Waiter[R]] = {}
        self._timer: Timer | None = None

    @property
    def is_empty(self) -> bool:
        return not self._waiters

    async def enter(self, number: int, route: Route) -> Turnstile[R]:
        """Wait for the turn of ``number`` and take from the rule; the turnstile that it was taken from.

        Raises RateLimited in mode RAISE once it is certain that the request would have to wait, and what `close` was given.
        """
        waiter = Waiter(number, route, self)
        self.admit(waiter)
        try:
            while not waiter.home.may_pass(waiter):
                await waiter.pause()
            waiter.home.rule.take(self._clock.monotonic())
        finally:
            waiter.home.leave(waiter)
        return waiter.home

    def may_pass(self, waiter: Waiter[R]) -> bool:
        """Whether ``waiter`` is at the head and the rule allows it; if only time is missing, a timer is set."""
        if waiter.error is not None:
            raise waiter.error
        if next(iter(self._waiters), None) != waiter.number:
            return False
        self._disarm()
        verdict = self.rule.verdict(self._clock.monotonic())
        if verdict.go:
            return True
        if verdict.wait is not None:
            if verdict.certain and self._mode is RateLimitMode.RAISE:
                raise RateLimited(
                    retry_after=verdict.wait, scope=verdict.scope, method=waiter.route.method, path=waiter.route.shown
                )
            self._timer = self._clock.call_later(verdict.wait, self.wake)
        return False

    def admit(self, waiter: Waiter[R]) -> None:
        """Put ``waiter`` in its place: by number, so that a request that a 429 sent back does not start anew."""
        waiter.home = self
        out_of_order = bool(self._waiters) and waiter.number < next(reversed(self._waiters))
        self._waiters[waiter.number] = waiter
        if out_of_order:
            self._waiters = dict(sorted(self._waiters.items()))

    def leave(self, waiter: Waiter[R]) -> None:
        self._waiters.pop(waiter.number, None)
        self.wake()

    def wake(self) -> None:
        """The rule changed, or time passed: the head asks again."""
        self._disarm()
        head = next(iter(self._waiters.values()), None)
        if head is not None:
            head.wake()

    def adopt(self, other: Turnstile[R]) -> None:
        """Take over everybody who waits at ``other``."""
        for waiter in other.dismiss():
            self.admit(waiter)
            waiter.wake()

    def dismiss(self) -> list[Waiter[R]]:
        """Forget everybody who waits, and the timer."""
        self._disarm()
        waiters = list(self._waiters.values())
        self._waiters.clear()
        return waiters

    def close(self, reason: str) -> None:
        """Everybody who waits gets a RestError."""
        for waiter in self.dismiss():
            waiter.error = RestError(f"{waiter.route.method} {waiter.route.shown}: {reason}")
            waiter.wake()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
