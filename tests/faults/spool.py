"""A publisher of kind ``spool`` that a case can break and repair; what it accepts survives the process, as in a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint

import pytest

from discorder.publishers import registry
from discorder.wire import Event


class Spool:
    """While ``down`` it refuses each batch, while it ``hangs`` it does not come back; a batch takes ``seconds`` of real time.

    What is in ``errors`` is raised first, one at each batch.
    """

    durable = True
    made: dict[str, Spool] = {}  # noqa: RUF012  # by name, for a test to find what its plane made

    def __init__(self, name: str) -> None:
        self.name = name
        self.down = False
        self.seconds = 0.0
        self.refusals = 0
        self.errors: list[BaseException] = []
        self.everything: list[Event] = []
        self._works = asyncio.Event()
        self._works.set()
        Spool.made[name] = self

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        await self._works.wait()
        if self.errors:
            raise self.errors.pop(0)
        if self.down:
            self.refusals += 1
            msg = "the broker is down"
            raise ConnectionError(msg)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        self.everything.extend(events)

    async def close(self) -> None: ...

    def hang(self) -> None:
        self._works.clear()

    def go_on(self) -> None:
        self._works.set()

    @property
    def events(self) -> list[Event]:
        """Discord's events."""
        return [event for event in self.everything if event.seq is not None]

    @property
    def seen(self) -> list[tuple[str | None, int | None, str]]:
        """(session label, seq, type) of each event, in order."""
        return [(event.session, event.seq, event.type) for event in self.events]


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Spool]:
    """Register the kind, as another package's entry point would; return its publishers by name."""
    entry = EntryPoint("spool", f"{__name__}:Spool", registry.ENTRY_POINT_GROUP)
    monkeypatch.setitem(registry.BUILT_IN, "spool", entry)
    monkeypatch.setattr(Spool, "made", {})
    return Spool.made
