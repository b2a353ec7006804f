"""Retry a call of a publisher with growing, jittered pauses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, wait_random_exponential

from discorder.clock import Clock

FIRST_WAIT = 0.25  # seconds, upper end of the first pause; doubles up to
LONGEST_WAIT = 5.0


async def succeeds(
    work: Callable[[], Awaitable[None]],
    clock: Clock,
    *,
    give_up: Callable[[], bool],
    failed: Callable[[BaseException], None],
) -> bool:
    """Await ``work()`` until it succeeds and return True, or return False if ``give_up()`` is true after a failure.

    ``failed`` is called with each error. ``work``: a coroutine function or a `functools.partial` of one, as tenacity requires.
    """

    def note(attempt: RetryCallState) -> None:
        if attempt.outcome is not None and (error := attempt.outcome.exception()) is not None:
            failed(error)

    try:
        await AsyncRetrying(
            sleep=clock.sleep,
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            retry=retry_if_exception_type(Exception),
            stop=lambda _: give_up(),
            after=note,
        )(work)
    except RetryError:
        return False
    return True
