"""Run the subscriber of the demo: a process of its own that prints events, of which the console shows a few per second."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from rich.console import Console
from rich.markup import escape

from discorder.cli.tail import readable
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import ReceivedEvent, decode_document

SHOWN_PER_SECOND = 2  # lines; the rest is counted
LONGEST_LINE = 2**26  # bytes; a guild of some megabytes is one line
SUBSCRIBE_SECONDS = 20.0  # for the other process to start and subscribe


class Subscriber:
    """`discorder tail --json` in its own process. Counts the events that it prints."""

    def __init__(self, publisher: ZmqPublisher, console: Console) -> None:
        self._publisher = publisher
        self._console = console
        self._received: set[tuple[str | None, int]] = set()  # session and sequence
        self._arrived = asyncio.Event()
        self._second = 0.0  # when the present second of the console began
        self._shown = 0  # lines in it
        self._hidden = 0  # events that it does not show

    @property
    def received(self) -> int:
        """How many different events have arrived."""
        return len(self._received)

    async def __aenter__(self) -> Subscriber:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "tail", "--json", self._publisher.endpoints[0]),
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        await asyncio.gather(self._process.wait(), self._reading)

    async def subscribed(self) -> None:
        """Wait until the publisher has the subscription. Raises TimeoutError."""
        async with asyncio.timeout(SUBSCRIBE_SECONDS):
            while self._publisher.subscriptions == 0:  # noqa: ASYNC110  # the publisher has no event for it
                await asyncio.sleep(0.02)

    async def catch_up(self, count: int, seconds: float) -> None:
        """Wait until ``count`` events have arrived, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.received < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        self._say_what_is_hidden()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  # asked for with PIPE
        async for line in self._process.stdout:
            event = decode_document(line)
            if event.seq is not None:  # not one of the control plane's own records
                self._received.add((event.session, event.seq))
                self._arrived.set()
                self._show(event)

    def _show(self, event: ReceivedEvent) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._say_what_is_hidden()
            self._second, self._shown = now, 0
        if self._shown < SHOWN_PER_SECOND:
            self._shown += 1
            self._console.print(escape(readable(event)), highlight=False, soft_wrap=True)
        else:
            self._hidden += 1

    def _say_what_is_hidden(self) -> None:
        if self._hidden:
            events = "event that is" if self._hidden == 1 else "events that are"
            self._console.print(f"[dim]  … and {self._hidden} more {events} counted, not shown[/]", highlight=False)
            self._hidden = 0
