"""Reads the buses of several control planes of one bot as one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from discorder.bot.cursor import Cursor, FileCursor, dump
from discorder.bot.positions import Gap
from discorder.bot.progress import close_cursor
from discorder.bot.subscription import Subscription
from discorder.paths import IPC, resolve_endpoint
from discorder.wire import ReceivedEvent

READ_AHEAD = 256  # items of one bus that wait for the bot; without a cursor
LOOK_EVERY = 1.0  # seconds between two looks into a folder for new sockets
REPLAY_SUFFIX = ".replay"
VERSION = 2  # of the cursor; that of one bus has 1

logger = logging.getLogger(__name__)
E = TypeVar("E", bound=ReceivedEvent)
Open = Callable[[str, Cursor | None], Subscription[E]]


def folder_of(address: str) -> Path | None:
    """Return the folder that ``address`` names, None for the address of one bus: ``ipc://PATH/``, or a path that is a folder."""
    if not address.startswith(IPC) or address == IPC:
        return None
    path = Path(resolve_endpoint(address).removeprefix(IPC))
    return path if address.endswith("/") or path.is_dir() else None


def sockets_in(folder: Path) -> set[Path]:
    """Return the sockets of buses in a folder; not those that answer requests."""
    return {path for path in folder.glob("*") if path.is_socket() and path.suffix != REPLAY_SUFFIX}


class MergedSubscription(Subscription[E]):
    """A `Subscription` to several buses; ``open_bus`` makes that of one. Each shard is expected on one of them.

    Items of one shard keep their order. With a cursor each bus waits until its last item is processed; without one up to
    `READ_AHEAD` items of a bus are read ahead of the bot.
    """

    def __init__(
        self, addresses: Sequence[str], types: frozenset[str] | None, open_bus: Open[E], cursor: Cursor | None
    ) -> None:
        self.address = ", ".join(addresses)
        self.types = types
        self._open_bus = open_bus
        self._folders = [folder for address in addresses if (folder := folder_of(address)) is not None]
        self._shared = None if cursor is None else SharedCursor(cursor)
        self._inbox: _Inbox[E] = _Inbox()
        self._limit = READ_AHEAD if cursor is None else 1
        self._buses: dict[str, Subscription[E]] = {}
        self._pumps: dict[str, _Pump[E]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._current: _Pump[E] | None = None
        self._is_open = True
        try:
            for address in addresses:
                if folder_of(address) is None:
                    self._add(address)
        except BaseException:
            self._release()
            raise

    async def __anext__(self) -> E | Gap:
        """See `Subscription.__anext__`."""
        self._finish()
        while self._is_open:
            self._start_tasks()
            if (entry := self._inbox.take()) is not None:
                self._current, item = entry
                if isinstance(item, Exception):
                    raise item
                return item
            await self._inbox.news.wait()
        raise StopAsyncIteration

    async def commit(self) -> None:
        """See `Subscription.commit`."""
        self._finish()
        await self._commit()

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        if not self._is_open:
            return
        self._is_open = False
        self._inbox.news.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            with contextlib.suppress(OSError):  # closing the buses tries again, and logs it
                await self._commit()
            for bus in self._buses.values():
                await bus.aclose()
        finally:
            self._release()

    def __del__(self) -> None:
        if hasattr(self, "_tasks"):
            self._release()

    async def _commit(self) -> None:
        """Write the cursor for the buses of which the bot has processed every item that was read."""
        if self._shared is not None:
            for pump in self._pumps.values():
                if pump.is_idle:
                    await pump.bus.commit()

    def _add(self, address: str) -> None:
        part = None if self._shared is None else CursorPart(self._shared, address)
        self._buses[address] = self._open_bus(address, part)

    def _start_tasks(self) -> None:
        """Start a task for each bus that has none, and one that looks into the folders."""
        if self._folders and "" not in self._tasks:
            self._tasks[""] = asyncio.create_task(_look(self._folders, self._inbox))
        while self._inbox.found:
            address = self._inbox.found.pop()
            if address not in self._buses:
                self._add(address)
        for address, bus in self._buses.items():
            if address not in self._tasks:
                pump = self._pumps[address] = _Pump(bus, self._inbox, self._limit)
                self._tasks[address] = asyncio.create_task(pump.run())

    def _finish(self) -> None:
        pump, self._current = self._current, None
        if pump is not None:
            pump.finish()

    def _release(self) -> None:
        for task in self._tasks.values():
            if not task.get_loop().is_closed():
                task.cancel()
        if self._shared is not None:
            self._shared.close()


class _Inbox(Generic[E]):
    """The items of all buses that wait for the bot, and the sockets that were found."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.found: list[str] = []
        self._items: deque[tuple[_Pump[E], E | Gap | Exception]] = deque()

    def put(self, pump: _Pump[E], item: E | Gap | Exception) -> None:
        """Add an item, or the error that the bus raised in its place."""
        self._items.append((pump, item))
        self.news.set()

    def take(self) -> tuple[_Pump[E], E | Gap | Exception] | None:
        """Return the oldest item, None if there is none."""
        if self._items:
            return self._items.popleft()
        self.news.clear()
        return None


class _Pump(Generic[E]):
    """Reads the items of one bus into the inbox, at most ``limit`` that the bot has not processed."""

    def __init__(self, bus: Subscription[E], inbox: _Inbox[E], limit: int) -> None:
        self.bus = bus
        self._inbox = inbox
        self._limit = limit
        self._open_items = 0
        self._room = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether the bot has processed every item that was read from the bus."""
        return self._open_items == 0

    async def run(self) -> None:
        """Run until the subscription is closed."""
        while True:
            item: E | Gap | Exception
            try:
                item = await anext(self.bus)
            except StopAsyncIteration:
                return
            except Exception as error:  # noqa: BLE001  # raised where the bot iterates
                item = error
            self._open_items += 1
            self._inbox.put(self, item)
            while self._open_items >= self._limit:
                self._room.clear()
                await self._room.wait()

    def finish(self) -> None:
        """Count an item as processed."""
        self._open_items -= 1
        self._room.set()


async def _look(folders: Sequence[Path], inbox: _Inbox[E]) -> None:
    """Look for sockets in the folders: one that appears is a bus, except for those that answer requests."""
    known: set[Path] = set()
    while True:
        for folder in folders:
            found = sockets_in(folder) - known
            if found:
                inbox.found += [f"{IPC}{path}" for path in sorted(found)]
                inbox.news.set()
                known |= found
        await asyncio.sleep(LOOK_EVERY)


class _State(msgspec.Struct):
    v: int
    buses: dict[str, msgspec.Raw]


class SharedCursor:
    """One cursor for several buses, with the state of each by its address."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        if isinstance(cursor, FileCursor):
            cursor.lock()
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        state = self._cursor.load()
        self._existed = state is not None
        self._buses: dict[str, msgspec.Raw] = {}
        if state is None:
            return
        try:
            decoded = msgspec.json.decode(state, type=_State)
        except (ValueError, RecursionError) as error:
            logger.warning("The cursor is not one of several buses, so each starts at its oldest event: %s", error)
        else:
            self._buses = decoded.buses

    def load(self, address: str) -> bytes | None:
        """Return the state of one bus. One that is new in this cursor begins with the oldest event that it can repeat."""
        if address in self._buses:
            return bytes(self._buses[address])
        return dump(()) if self._existed else None

    def save(self, address: str, state: bytes) -> None:
        """Write the state of all buses, with that of one replaced."""
        self._buses[address] = msgspec.Raw(state)
        self._cursor.save(msgspec.json.encode(_State(VERSION, self._buses)))

    def close(self) -> None:
        """Release the lock of a file."""
        close_cursor(self._cursor)


@dataclass(frozen=True, slots=True)
class CursorPart:
    """The part of a `SharedCursor` that belongs to one bus."""

    shared: SharedCursor
    address: str

    def load(self) -> bytes | None:
        """See `Cursor`."""
        return self.shared.load(self.address)

    def save(self, state: bytes) -> None:
        """See `Cursor`."""
        self.shared.save(self.address, state)
