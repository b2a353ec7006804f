"""The seam between the control plane and whatever carries events to other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from discorder.wire import Event


class Publisher(Protocol):
    """Carries events out of the process. Lives as long as the control plane, through every restart of a session.

    Besides Discord's events it gets the control plane's own records (`discorder.records`), which have no ``seq``: a gap where
    events are missing, and the others if the class says ``all_records = True`` or the selection of ``events`` names them.

    All methods are called on the control plane's loop, one at a time. A lost connection is mended inside `publish`, which
    raises as long as that fails: the fan-out keeps trying, and calls `open` only until it has succeeded once.
    """

    name: str
    durable: bool  # accepted = survives this process

    async def open(self) -> None:
        """Bind, connect or open the file. Raises a `DiscorderError` that names the remedy; nothing is left open then."""
        ...

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the whole batch is accepted. A batch that raised is offered again as a whole."""
        ...

    async def close(self) -> None:
        """Give everything back. Idempotent; after it the publisher can be opened again."""
        ...


@runtime_checkable
class NonBlockingPublisher(Protocol):
    """A publisher that the fan-out may call in line."""

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Accept what fits and return how many of ``events``, from the front, were taken. Never blocks, never awaits.

        What was not taken is dropped and counted by the fan-out, which then offers a gap record to `publish`, and what comes next
        after it. After an exception the whole batch goes to `publish`.
        """
        ...


@runtime_checkable
class BufferingPublisher(Protocol):
    """A publisher with a bounded buffer of its own that may throw away what it had accepted."""

    @property
    def dropped(self) -> int:
        """How many accepted events were thrown away since the publisher was made."""
        ...

    @property
    def gaps(self) -> int:
        """How many runs of events were thrown away; each reaches the reader as a gap record."""
        ...


class Desk(Protocol):
    """What a publisher may ask of the control plane for those who read from it. All on the control plane's loop."""

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None
    ) -> Mapping[str, object]:
        """Have the gateway command ``name`` with the body ``d`` sent now; returns what its sender is to be told.

        ``shard`` and ``guild_id`` say where to. Raises `CommandRefused`, also where the command would have to wait.
        """
        ...

    def last_ready(self, shard: int) -> Event | None:
        """The last READY of ``shard``, None when there is none yet."""
        ...


@runtime_checkable
class AnsweringPublisher(Protocol):
    """A publisher whose readers may ask back."""

    def answer_from(self, desk: Desk) -> None:
        """Called once, before `Publisher.open`."""
        ...

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """A session (its label) of an earlier process goes on: what comes next of it lies after ``seq``."""
        ...
