"""Keep the work of a publisher going: repeat a call until it succeeds, and restart a long-lived task that failed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, wait_random_exponential

from discorder.clock import Clock

FIRST_PAUSE = 1.0  # seconds until a failed task is restarted; doubles with each failure in a row up to
LONGEST_PAUSE = 60.0  # this; a task that ran for as long counts as working again

FIRST_WAIT = 0.25  # seconds, upper end of the first pause between two calls; doubles up to
LONGEST_WAIT = 5.0

logger = logging.getLogger(__name__)


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


async def keep_running(name: str, body: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Await ``body()`` until it returns; when it raises, log the error under ``name`` and restart after a pause."""
    pause = FIRST_PAUSE
    while True:
        began = clock.monotonic()
        try:
            await body()
        except Exception:
            if clock.monotonic() - began >= LONGEST_PAUSE:
                pause = FIRST_PAUSE
            logger.exception("The task %s failed and begins again in %g s", name, pause)
        else:
            return
        await clock.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
