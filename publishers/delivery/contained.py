"""Keep SystemExit and KeyboardInterrupt in a publisher's own tasks from ending the event loop.

asyncio raises both of them out of any task and through the loop: a publisher that calls ``sys.exit`` inside `asyncio.gather`
or an `asyncio.TaskGroup` would end the process. So each task that a publisher starts, and each task that such a task starts,
turns them into a PublisherError. Other tasks are not affected: the task factory is replaced only while publisher code runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from discorder.errors import PublisherError

T = TypeVar("T")


def contained(owner: str, work: Callable[..., T], *arguments: Any) -> T:
    """Return ``work(*arguments)``, and contain the tasks that it starts. Needs a running loop.

    Their errors name ``owner``.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
        steps = Contained(owner, coro) if asyncio.iscoroutine(coro) else coro
        return asyncio.Task(steps, loop=loop, **options) if before is None else before(loop, steps, **options)

    loop.set_task_factory(make)
    try:
        return work(*arguments)
    finally:
        loop.set_task_factory(before)


class Contained(Coroutine[Any, Any, Any]):
    """Run each step of the coroutine ``inner`` in `contained`; raise PublisherError instead of an error that would end the loop.

    Not an `async def`: if its task were cancelled before the first step, ``inner`` would never be awaited.
    """

    def __init__(self, owner: str, inner: Coroutine[Any, Any, Any]) -> None:
        self._owner = owner
        self._inner = inner
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self.__qualname__ = getattr(inner, "__qualname__", self.__name__)

    def __await__(self) -> Contained:
        return self

    def __iter__(self) -> Contained:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._inner.throw, *error)

    def close(self) -> None:
        self._inner.close()

    def _step(self, advance: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return contained(self._owner, advance, *arguments)
        except (SystemExit, KeyboardInterrupt) as error:
            msg = f"{self._owner} raised {type(error).__name__}: {error}"
            raise PublisherError(msg) from error
