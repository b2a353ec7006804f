"""Send requests to the ROUTER of a control plane's bus, several at a time, and give each its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import msgspec
import zmq

from discorder.bot.dealer import Dealer, ForeignAnswer, Part
from discorder.bot.sockets import LoadedKeys, Waiter

PARTS_AT_ONCE = 64  # between two turns of the loop


class BusSilent(Exception):
    """No answer came in time, or another program answers."""


class BusRenewed(Exception):
    """The connection broke while the request was open, which may have been lost; the next request makes a new one."""


class BusRefused(Exception):
    """A request was refused. ``reason`` is one word (docs/bus.md); ``retry_after`` is in seconds, None if it is not known."""

    def __init__(self, reason: str, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class Answer(NamedTuple):
    """A successful answer: the documents before the last part, and the last one."""

    parts: Sequence[bytes]
    last: bytes


class _Head(msgspec.Struct):
    ok: bool = False
    error: str = ""
    message: str = ""
    retry_after: float | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


class BusLink:
    """One connection to the ROUTER at ``address``. A request is sent at the latest when the ROUTER listens."""

    def __init__(self, address: str, keys: LoadedKeys | None) -> None:
        self._context = zmq.Context()
        self._waiter = Waiter()
        self._dealer = Dealer(self._context, address, keys, self._waiter, watched=True)
        self._open: dict[bytes, asyncio.Queue[Part | Exception]] = {}  # what came of each answer
        self._reader: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The address of the ROUTER."""
        return self._dealer.address

    async def ask(self, op: str, *, timeout: float, **fields: Any) -> Answer:
        """Send a request and return its answer. Else as `stream`."""
        parts = [part.document async for part in self.stream(op, timeout=timeout, **fields)]
        return Answer(parts[:-1], parts[-1])

    async def stream(self, op: str, *, timeout: float, **fields: Any) -> AsyncGenerator[Part]:
        """Send a request and yield the parts of its answer as they come. ``timeout``: seconds without a part.

        Raises `BusRefused`, `BusSilent` and `BusRenewed`.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="bus-link")
        number = self._dealer.request(op, **fields)
        self._waiter.wake()  # sending may have consumed the signal of an answer
        queue = self._open[number] = asyncio.Queue()
        try:
            while True:
                part = await self._next(queue, timeout)
                if not part.topic:
                    self._check(part.document)
                yield part
                if not part.topic:
                    return
        finally:
            self._open.pop(number, None)

    async def _next(self, queue: asyncio.Queue[Part | Exception], seconds: float) -> Part:
        try:
            async with asyncio.timeout(seconds):
                found = await queue.get()
        except TimeoutError:
            msg = f"no answer from {self._dealer.address} within {seconds:g} s"
            raise BusSilent(msg) from None
        if isinstance(found, Exception):
            raise found
        return found

    def renew(self) -> None:
        """Drop the connection. The open requests raise `BusRenewed`, in their order."""
        self._dealer.close()
        self._fail(BusRenewed(f"the connection to {self._dealer.address} broke"))

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._waiter.close()
        self._dealer.close()
        self._context.term()

    def _check(self, last: bytes) -> None:
        try:
            head = _decode_head(last)
        except (ValueError, RecursionError) as error:
            raise BusSilent(self._foreign(error)) from None
        if not head.ok:
            raise BusRefused(head.error, head.message, head.retry_after)

    async def _read(self) -> None:
        read = 0
        while True:
            try:
                part = self._dealer.read()
            except ForeignAnswer as error:
                self._fail(BusSilent(self._foreign(error)))
                continue
            if part is None:
                read = 0
                if self._dealer.is_cut():
                    self.renew()
                await self._waiter.wait(None)
                continue
            read += 1
            if read % PARTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            queue = self._open.get(part.id)
            if queue is not None:
                queue.put_nowait(part)

    def _foreign(self, error: Exception) -> str:
        return f"something else than Discorder's bus answers at {self._dealer.address}: {error}"

    def _fail(self, error: Exception) -> None:
        for queue in self._open.values():
            queue.put_nowait(error)
