"""What a story does to a broker. A new bus needs a class of this form, and a line in `tests.buses.stories.BUSES`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from discorder.wire import ReceivedEvent


class NotReadable(Exception):
    """A broker cannot be read right now, such as a cluster that elects a leader."""


class Broker(Protocol):
    """A broker on loopback that keeps its store in a folder: one process, or several of which one leads.

    What happens to a broker of several processes happens to its leader.
    """

    def __init__(self, folder: Path) -> None:
        """Run nothing yet. ``folder`` need not exist."""

    @property
    def publisher(self) -> str:
        """Return the lines of the publisher's table in the configuration, from `start` on."""
        ...

    async def start(self) -> None:
        """Start what does not run, on the same ports as before and with what it had stored. Return once it answers."""
        ...

    async def kill(self) -> None:
        """End it as ``kill -9`` does."""
        ...

    async def freeze(self) -> None:
        """Send SIGSTOP."""
        ...

    async def thaw(self) -> None:
        """Send SIGCONT."""
        ...

    async def wipe(self) -> None:
        """Delete the store of what was killed."""
        ...

    async def read(self) -> Sequence[ReceivedEvent]:
        """Return every event and record that it keeps, those of a shard in order. Raises `NotReadable`."""
        ...

    async def close(self) -> None:
        """Leave no process behind, whatever happened."""
        ...
