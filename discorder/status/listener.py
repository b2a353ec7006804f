"""Pass the parts of the status document to one reader, which may be slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

STATUS = "status"
MOST_PARTS = 256  # that wait for one reader
MOST_BYTES = 1_048_576

Message = tuple[str, bytes]  # the name of the event, its JSON


class Listener(AsyncIterator[Message]):
    """An async iterator of events for one reader: first ``status``, the whole document, then its parts.

    A reader that is too slow loses the parts that wait and gets a new ``status``. The iteration ends after `close`, which is
    idempotent, and with the board.
    """

    def __init__(self, encoded: Callable[[], bytes], closed: Callable[[Listener], None]) -> None:
        self._encoded = encoded
        self._closed = closed
        self._parts: deque[Message] = deque()
        self._bytes = 0
        self._behind = True  # the whole document comes next
        self._open = True
        self._news = asyncio.Event()
        self._news.set()

    def push(self, message: Message) -> None:
        """Queue a part, unless the whole document comes next anyway."""
        if self._behind:
            return
        self._parts.append(message)
        self._bytes += len(message[1])
        if len(self._parts) > MOST_PARTS or self._bytes > MOST_BYTES:
            self.restart()
        self._news.set()

    def restart(self) -> None:
        """Drop the parts that wait: the whole document comes next."""
        self._parts.clear()
        self._bytes = 0
        self._behind = True
        self._news.set()

    def close(self) -> None:
        """End the iteration."""
        if self._open:
            self._open = False
            self._parts.clear()
            self._news.set()
            self._closed(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        await self._news.wait()
        if not self._open:
            raise StopAsyncIteration
        if self._behind:
            message = (STATUS, self._encoded())
            self._behind = False
        else:
            message = self._parts.popleft()
            self._bytes -= len(message[1])
        if not self._parts:
            self._news.clear()
        return message
