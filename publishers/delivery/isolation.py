"""Isolate publisher failures: no error of a publisher affects other code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from operator import index
from typing import TypeVar

from discorder.clock import Clock, within
from discorder.errors import PublisherError
from discorder.publishers.delivery.contained import Contained
from discorder.publishers.protocol import BufferingPublisher, ContinuingPublisher, Publisher

CANCEL_TIMEOUT = 0.1  # seconds for a task that may ignore its cancellation
CLOSE_TIMEOUT = 0.3  # seconds for a publisher to close; shutdown as a whole has one second
MAX_ERROR_TEXT = (
    500  # characters of an error in health, gap records and the log; an error of a sink may contain a whole page
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class IsolatedPublisher:
    """Call the methods of one publisher, except those for events, each within a time limit. Raise only `Exception`."""

    def __init__(self, publisher: Publisher, name: str, clock: Clock) -> None:
        self.opening: asyncio.Task[None] | None = None  # the last attempt, which may ignore its cancellation
        self.last_buffer_counts = (0, 0)
        self._publisher = publisher
        self._name = name
        self._clock = clock

    async def open(self, limit: float) -> None:
        """Open the publisher within ``limit`` seconds, or cancel it and raise PublisherError.

        While a cancelled attempt still runs, the next call waits for its end instead of calling again; if the attempt has
        succeeded meanwhile, the publisher is open.
        """
        if self.opening is None or (self.opening.done() and self._failure_of(self.opening) is not None):
            self.opening = self._call(self._publisher.open, f"opening publisher {self._name}")
        opening = self.opening
        try:
            await within(self._clock, limit, asyncio.wait({opening}))
        except TimeoutError:
            msg = f"publisher {self._name} did not open within {limit:g} s"
            raise PublisherError(msg) from None
        finally:
            opening.cancel()  # no effect on a finished task
        if (error := self._failure_of(opening)) is not None:
            raise error

    async def close(self) -> None:
        """Close the publisher, or cancel the call at its time limit. Errors are logged."""
        closing = self._call(self._publisher.close, f"closing publisher {self._name}")
        try:
            await within(self._clock, CLOSE_TIMEOUT, asyncio.wait({closing}))
        except TimeoutError:
            closing.cancel()
            logger.warning("Publisher %s did not close within %.1f s", self._name, CLOSE_TIMEOUT)
            return
        if (error := self._failure_of(closing)) is not None:
            logger.warning("Publisher %s failed to close: %s", self._name, describe(error))

    def buffer_counts(self) -> tuple[int, int]:
        """Return how many events and runs of events the publisher's own buffer dropped; zeros without such a buffer."""

        def ask() -> tuple[int, int]:
            publisher = self._publisher
            return (
                (index(publisher.dropped), index(publisher.gaps))
                if isinstance(publisher, BufferingPublisher)
                else (0, 0)
            )

        self.last_buffer_counts = self._isolated_call(ask)
        return self.last_buffer_counts

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """Notify a publisher that wants to know it that a session of an earlier process continues."""

        def notify() -> None:
            if isinstance(self._publisher, ContinuingPublisher):
                self._publisher.goes_on(shard, session, seq)

        self._isolated_call(notify)

    def _call(self, work: Callable[[], Awaitable[None]], label: str) -> asyncio.Task[None]:
        call = asyncio.get_running_loop().create_task(isolated(self._name, work), name=label)
        call.add_done_callback(_retrieve)
        return call

    def _isolated_call(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception:
            raise
        except BaseException as error:
            raise as_failure(self._name, error) from error

    def _failure_of(self, call: asyncio.Task[None]) -> Exception | None:
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        return None if error is None else as_failure(self._name, error)


async def stop(name: str, clock: Clock, tasks: Iterable[asyncio.Task[None] | None]) -> None:
    """Cancel ``tasks`` of publisher ``name`` and wait for their end; log and abandon a task that ignores the cancellation."""
    running = {task for task in tasks if task is not None and not task.done()}
    if not running:
        return
    for task in running:
        task.cancel()
    try:
        await within(clock, CANCEL_TIMEOUT, asyncio.wait(running))
    except TimeoutError:
        logger.warning("Publisher %s ignores its cancellation and is left behind", name)


async def isolated(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Await ``work()`` of publisher ``name``, and raise any error of it as an `Exception`.

    SystemExit and KeyboardInterrupt would end the loop, GeneratorExit and a CancelledError of the publisher the task, and a panic
    of an extension module passes every ``except Exception``: all of them become a PublisherError. Raises CancelledError only if
    the current task was cancelled.
    """
    task = asyncio.current_task()
    try:
        await Contained(f"publisher {name}", _awaited(work))
    except Exception:
        raise
    except BaseException as error:
        if _ends_this_task(error, task):
            raise
        raise as_failure(name, error) from error


async def _awaited(work: Callable[[], Awaitable[object]]) -> None:
    await work()


def as_failure(name: str, error: BaseException) -> Exception:
    """Return ``error`` itself if it is an Exception, otherwise a PublisherError that names it."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return PublisherError(f"publisher {name} cancelled itself")
    return PublisherError(f"publisher {name} raised {describe(error)}")


def describe(error: BaseException) -> str:
    """Return class and text of an error in one line of bounded length, even if the error cannot be made a string."""
    try:
        text = " ".join(str(error).split())
    except BaseException as broken:  # noqa: BLE001  # the __str__ of a publisher's error may raise anything
        text = f"(no text: its __str__ raised {type(broken).__name__})"
    if len(text) > MAX_ERROR_TEXT:
        text = f"{text[:MAX_ERROR_TEXT]}… ({len(text):,} characters)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ends_this_task(error: BaseException, task: asyncio.Task[object] | None) -> bool:
    """Return whether ``error`` was thrown into ``task`` from outside: by a cancellation, or by closing its coroutine."""
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    return isinstance(error, GeneratorExit) and _current_task() is not task


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: an unfinished coroutine is being closed
        return None


def _retrieve(call: asyncio.Task[None]) -> None:
    """Mark the failure of a call as retrieved, because no caller may be waiting for it."""
    if not call.cancelled():
        call.exception()
