"""Decide whether a failed request is tried again, and how long to wait before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)

from discorder.errors import HTTPError, NoAnswer, RateLimited, TooManyInvalidRequests

Sleep = Callable[[float], Awaitable[None]]
OnRetry = Callable[[int, float, BaseException], object]  # tries so far, seconds until the next, the error

SHORTEST_WAIT = 0.25  # seconds; full jitter alone would allow none


def is_transient(error: BaseException) -> bool:
    """Whether the server or the network failed, so that the same request may succeed later."""
    return isinstance(error, NoAnswer) or (isinstance(error, HTTPError) and error.status >= 500)


def make_retrying(
    *, tries: int | None, longest: float, sleep: Sleep, retry_on: Callable[[BaseException], bool], on_retry: OnRetry
) -> AsyncRetrying:
    """Retry with full jitter up to ``longest`` seconds, and at least the wait of a limit. ``tries`` None: without end.

    Raises the last error after the last try.
    """
    jitter = wait_random_exponential(multiplier=1, max=longest, min=SHORTEST_WAIT)

    def wait(state: RetryCallState) -> float:
        error = _error(state)
        asked = error.retry_after if isinstance(error, RateLimited | TooManyInvalidRequests) else 0.0
        return max(asked, jitter(state))

    def before_sleep(state: RetryCallState) -> None:
        on_retry(state.attempt_number, state.upcoming_sleep, _error(state))

    return AsyncRetrying(
        sleep=sleep,
        stop=stop_never if tries is None else stop_after_attempt(tries),
        wait=wait,
        retry=retry_if_exception(retry_on),
        before_sleep=before_sleep,
        reraise=True,
    )


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        msg = "a try that succeeded is not repeated"
        raise AssertionError(msg)
    return error
