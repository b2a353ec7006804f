"""Publishers of the simulation: what they accept is written down on their host and survives every process.

``audit`` must not lose (required), ``filtered`` neither but wants some events only, ``live`` is a best-effort publisher that is
called in line and never fails, ``slow`` is a best-effort one behind a queue. All but ``live`` are made to fail by faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from discorder.clock import Clock
from discorder.errors import PublisherError
from discorder.wire import Event
from tests.simulation.faults import Kind, Weather
from tests.simulation.loop import Process

FILTER = "MESSAGE_*"


class Sink(Enum):
    """Which one; the value is its number among the variants of a fault, None for what never fails."""

    AUDIT = 0
    FILTERED = 1
    SLOW = 2
    LIVE = None

    @property
    def required(self) -> bool:
        return self in {Sink.AUDIT, Sink.FILTERED}


@dataclass
class Page:
    """The events of one session in a sink. ``top``: everything up to here that it wants is accepted."""

    top: int = 0


@dataclass
class Book:
    """The events that a sink has accepted, on the disk of its host."""

    sink: Sink
    pages: dict[str, Page] = field(default_factory=dict)
    accepted: int = 0
    records: list[Event] = field(default_factory=list)  # the control plane's own

    def page(self, label: str) -> Page:
        return self.pages.setdefault(label, Page())


Judge = Callable[[Process, Book, Event], None]


class SimulatedSink:
    """One process's publisher on a `Book`. ``judge`` sees every event at the moment at which it is accepted."""

    durable = True

    def __init__(self, book: Book, process: Process, clock: Clock, weather: Weather, judge: Judge) -> None:
        self.name = book.sink.name.lower()
        self._book = book
        self._process = process
        self._clock = clock
        self._weather = weather
        self._judge = judge

    async def open(self) -> None:
        """Open nothing."""

    async def publish(self, events: Sequence[Event]) -> None:
        if self._suffers(Kind.SINK_FAILS):
            msg = f"{self.name} fails"
            raise PublisherError(msg)
        if self._suffers(Kind.SINK_HANGS):
            await self._hang()
        elif self._suffers(Kind.SINK_SLOW):
            await self._clock.sleep(2.0)
        else:
            await asyncio.sleep(0)
        self.write(events)
        if self._suffers(Kind.SINK_REPEATS):
            msg = f"{self.name} accepted, and fails to say so"
            raise PublisherError(msg)

    async def close(self) -> None:
        if self._suffers(Kind.SINK_HANGS):
            await self._hang()

    def write(self, events: Sequence[Event]) -> None:
        """The moment at which a batch is durable."""
        for event in events:
            self._judge(self._process, self._book, event)
        self._book.accepted += len(events)

    async def _hang(self) -> None:
        while self._suffers(Kind.SINK_HANGS):
            await self._clock.sleep(1.0)

    def _suffers(self, kind: Kind) -> bool:
        number = self._book.sink.value
        if number is None:
            return False
        fault = self._weather.anywhere(kind, asyncio.get_running_loop().time())
        return fault is not None and fault.variant == number


class LiveSink(SimulatedSink):
    """Called in line."""

    durable = False

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.write(events)
        return len(events)
