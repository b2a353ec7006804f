"""An event loop whose time is virtual, with the processes of the simulated machines on it.

It waits for nothing: when no callback is ready, time jumps to the next timer. Callbacks run in the order in which they were
scheduled, timers in the order of their moments, and tasks and futures hash by number, so that no set of them is ordered by
addresses: what runs on this loop runs the same way every time. Every callback belongs to the `Process` in whose context it was
scheduled; those of a process that was killed never run again, those of one that is suspended run later.

Of asyncio's own loop only the names are left, since a real one waits on a selector; tasks and futures are asyncio's. The loops
that others offer for this (seedloop, simloop, simloom) need Python 3.12, and bring networks where a seam of ours suffices.

It must not know what is simulated on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Context = contextvars.Context


@dataclass(eq=False)
class Process:
    """A process of a simulated host. ``frozen_until`` (loop time): the host is suspended; ``slept``: seconds so far."""

    name: str
    alive: bool = True
    frozen_until: float = 0.0
    slept: float = 0.0
    failures: list[str] = field(default_factory=list)  # what reached the loop's exception handler


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Call(asyncio.TimerHandle):
    """A callback with the process that it belongs to. What asyncio's handles do for its debug mode is left out: there are
    millions of them in a run.
    """

    __slots__ = ("process", "work")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualLoop, context: Context
    ) -> None:
        # TimerHandle.__init__ is not called, and what it would set is not there.
        self._when = when
        self._loop = loop
        self.work: tuple[Context, Callable[..., object], tuple[Any, ...]] | None = (context, callback, args)
        self.process = context.get(_process)

    def cancel(self) -> None:
        self.work = None

    def cancelled(self) -> bool:
        return self.work is None

    def run(self) -> None:
        if self.work is None:
            return
        context, callback, args = self.work
        try:
            context.run(callback, *args)
        except Exception as error:  # noqa: BLE001  # as asyncio does
            self._loop.call_exception_handler({"message": f"in {callback!r}", "exception": error, "handle": self})


class _Numbered:
    """Hashes by the order of creation."""

    _numbers = itertools.count()
    number: int

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualFuture(_Numbered, asyncio.Future[Any]):
    """A future whose place in a set does not depend on its address, and that knows its process."""

    process: Process | None = None


class VirtualTask(_Numbered, asyncio.Task[Any]):
    """A task, likewise, that knows its process."""

    process: Process | None = None

    def discard(self) -> None:
        """Close its coroutine; ignore what its ``finally`` clauses raise."""
        self._log_destroy_pending = False
        coroutine = self.get_coro()
        while inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
            with contextlib.suppress(BaseException):  # again for each ``finally`` that awaits something
                coroutine.close()


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of the module. ``settled`` is called whenever nothing is left to run at the present moment."""

    def __init__(self) -> None:
        self.settled: Callable[[], None] = lambda: None
        self._now = 0.0
        self._due: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._over = False
        self._home = contextvars.copy_context()
        self.steps = 0
        super().__init__()

    # ---------------------------------------------------------------- running

    def run_until(self, moment: float, *, while_: Callable[[], bool] = lambda: True) -> None:
        """Run everything up to and including ``moment``, as long as ``while_()`` holds. Time is ``moment`` then."""
        asyncio._set_running_loop(self)  # noqa: SLF001  # asyncio's documented way in for loops of others
        try:
            due = self._due
            while while_() and (due or self._advance(moment)):
                for _ in range(len(due)):
                    self._run_one(due.popleft())
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001
        if while_():
            self._now = max(self._now, moment)

    def _advance(self, limit: float) -> bool:
        """Advance time until something is ready; False when there is nothing up to ``limit``."""
        self.settled()
        due, timers = self._due, self._timers
        if due:
            return True
        while timers and timers[0][2].work is None:
            heapq.heappop(timers)
        if not timers or timers[0][0] > limit:
            return False
        self._now = now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= now:
            due.append(heapq.heappop(timers)[2])
        return True

    def _run_one(self, call: _Call) -> None:
        if call.work is None:
            return
        process = call.process
        if process is not None:
            if not process.alive:
                return
            if process.frozen_until > self._now:
                heapq.heappush(self._timers, (process.frozen_until, next(self._order), call))
                return
        self.steps += 1
        call.run()

    # ---------------------------------------------------------------- processes

    def within(self, process: Process) -> Context:
        """Return a context in which everything that is scheduled belongs to ``process``."""
        context = self._home.copy()
        context.run(_process.set, process)
        return context

    @property
    def outside(self) -> Context:
        """Return a context that belongs to no process."""
        return self._home.copy()

    def suspend(self, process: Process, seconds: float) -> None:
        """Suspend ``process`` for ``seconds``: its timers, which count the time awake, are delayed."""
        process.frozen_until = self._now + seconds
        late = [(due + (seconds if call.process is process else 0.0), n, call) for due, n, call in self._timers]
        heapq.heapify(late)
        self._timers = late

    def kill(self, process: Process) -> list[VirtualTask]:
        """Stop everything of ``process``. Return its tasks: while they are referenced, none of their ``finally`` clauses runs."""
        process.alive = False
        return [task for task in self._unfinished() if task.process is process]

    # ---------------------------------------------------------------- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> _Call:
        call = _Call(self._now, callback, args, self, contextvars.copy_context() if context is None else context)
        self._due.append(call)
        return call

    call_soon_threadsafe = call_soon  # there is only one thread

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        call = _Call(when, callback, args, self, contextvars.copy_context() if context is None else context)
        heapq.heappush(self._timers, (when, next(self._order), call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        future = VirtualFuture(loop=self)
        future.number = next(self._numbers)
        future.process = _process.get()
        return future

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        task = _new_task(self, next(self._numbers), coro, contextvars.copy_context() if context is None else context)
        if name is not None:
            task.set_name(str(name))
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._over

    def is_closed(self) -> bool:
        return self._over

    def discard_all(self) -> None:
        """Close every coroutine that is left, of processes that were killed and of a run that was cut off."""
        asyncio._set_running_loop(self)  # noqa: SLF001
        try:
            discarded: set[VirtualTask] = set()
            while left := [task for task in self._unfinished() if task not in discarded]:
                for task in left:
                    task.discard()
                discarded.update(left)
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001

    def _unfinished(self) -> list[VirtualTask]:
        return sorted((one for one in asyncio.all_tasks(self) if isinstance(one, VirtualTask)), key=hash)

    def close(self) -> None:
        self._over = True
        self._due.clear()
        self._timers.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio's handles tell their loop; here a cancelled one is found when its turn comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        source = context.get("handle") or context.get("task") or context.get("future")
        process = source.process if isinstance(source, _Call | VirtualTask | VirtualFuture) else _process.get()
        if process is not None and process.alive:
            process.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


def _new_task(loop: VirtualLoop, number: int, coro: Any, context: Context) -> asyncio.Task[Any]:
    # The number must be there before Task.__init__ registers the task in a set.
    task = VirtualTask.__new__(VirtualTask)
    task.number = number
    task.process = context.get(_process)
    task.__init__(coro, loop=loop, context=context)  # type: ignore[misc]
    return task
