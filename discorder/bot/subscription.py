"""What `subscribe` returns, whatever carries the events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from discorder.bot.positions import Gap
from discorder.wire import ReceivedEvent

E = TypeVar("E", bound=ReceivedEvent)


class Subscription(ABC, Generic[E]):
    """An iterator that `subscribe` returns. Iterate on one loop, in one task at a time; `aclose` ends the iteration."""

    address: str
    types: frozenset[str] | None

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> E | Gap:
        """Return the next item; the previous one counts as processed.

        Raises ValueError for a message that is no event, from another program at the address; `msgspec.ValidationError`
        for data that does not fit ``decode``. The iteration may continue after both.
        """

    @abstractmethod
    async def commit(self) -> None:
        """Count the current item as processed, and write the cursor now. Raises OSError when it cannot be written."""

    @abstractmethod
    async def aclose(self) -> None:
        """Write the cursor and close the connections; an iteration that waits ends. Idempotent.

        The current item counts as processed only after `commit`: the bot may have failed on it.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
