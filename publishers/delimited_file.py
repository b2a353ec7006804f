"""Append events to a file, one line each. All disk access happens in one worker thread, never on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from discorder.clock import Clock, SystemClock, Timer
from discorder.errors import ConfigError, PublisherError
from discorder.paths import resolve_path
from discorder.publishers.append_only_file import AppendOnlyFile
from discorder.publishers.csv_format import RowFormat
from discorder.publishers.executor import finish
from discorder.publishers.options import MAX_COUNT, MAX_SECONDS, DeliveryOptions
from discorder.wire import Event

DEFAULT_KEEP = 5  # rotated files
MAX_KEEP = 100_000  # a rotation checks each of them, which takes half a second for this many

T = TypeVar("T")
Fsync = Literal["never", "batch"] | float


class DelimitedFileOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``delimited_file`` publisher's table."""

    path: Annotated[str, Meta(min_length=1, description="the file to append to")]
    delimiter: Annotated[str, Meta(min_length=1, max_length=1, description="one character")] = "\t"
    header: Annotated[bool, Meta(description="true or false")] = False
    rotate_bytes: Annotated[int, Meta(ge=0, le=MAX_COUNT, description="bytes, 0 (never rotate) to 2**50")] = 0
    keep: Annotated[int, Meta(ge=1, le=MAX_KEEP, description=f"1 to {MAX_KEEP} rotated files")] = DEFAULT_KEEP
    fsync: Annotated[
        Literal["never", "batch"] | Annotated[float, Meta(gt=0, le=MAX_SECONDS)],
        Meta(description='"never", "batch", or seconds above 0, at most 86400'),
    ] = "never"


class DelimitedFileEventPublisher:
    """Append to ``path``: columns type, timestamp, session, shard, seq, prev, data, separated by ``delimiter``.

    One event is one line, quoted by the csv module; see docs/delivery.md. ``header``: each file begins with a line of the
    column names; without it, files can be cut and joined. The file is created with mode 0600, because it holds the users' texts.
    A file that does not begin with such a row or header is refused and not changed.

    ``rotate_bytes``: before a batch would exceed this size, the file becomes ``path.1``, ``path.1`` becomes ``path.2``, and so
    on; ``keep`` of these are kept. 0 = never. While the rotation fails, events go into the same file.

    ``fsync``: ``"never"`` (an accepted event survives this process), ``"batch"`` (each batch is on the disk before it is
    accepted, so it survives the machine), or seconds between two syncs.
    """

    Options = DelimitedFileOptions
    durable = True

    def __init__(
        self,
        path: str | Path,
        delimiter: str = "\t",
        *,
        header: bool = False,
        rotate_bytes: int = 0,
        keep: int = DEFAULT_KEEP,
        fsync: Fsync = "never",
        name: str = "delimited_file",
        clock: Clock | None = None,
    ) -> None:
        if len(delimiter) != 1 or delimiter in '"\r\n ':
            msg = (
                f"publishers.{name}.delimiter: {delimiter!r} is no delimiter; allowed: one character, no quote or space"
            )
            raise ConfigError(msg)
        self.name = name
        try:
            self.path = resolve_path(path)
        except ValueError as error:
            msg = f"publishers.{name}.path: {error}"
            raise ConfigError(msg) from error
        self._rows = RowFormat(delimiter)
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._file = AppendOnlyFile(
            self.path,
            name,
            self._rows,
            header=header,
            rotate_bytes=rotate_bytes,
            keep=keep,
            sync_each=fsync == "batch",
            sync_rotated=fsync != "never",
        )
        self._worker: ThreadPoolExecutor | None = None
        self._sync_timer: Timer | None = None
        self._sync_failure: BaseException | None = None

    async def open(self) -> None:
        """Open the file for appending, cutting off a torn last line. Raises UnusableFile or ConfigError.

        UnusableFile also for a file that this publisher did not write, which is not changed.
        """
        if self._worker is not None:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._worker = ThreadPoolExecutor(1, f"{self.name}-file")
        try:
            await self._in_worker(self._file.open)
        except BaseException:
            await self.close()
            raise

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the operating system has the batch (with ``fsync="batch"``: the disk).

        Raises PublisherError, for instance when the disk is full; then no part of the batch stays in the file.
        """
        if (failure := self._sync_failure) is not None:
            self._sync_failure = None
            msg = f"{self.path}: earlier events could not be synced to the disk: {failure}"
            raise PublisherError(msg) from failure
        await self._in_worker(lambda: self._file.append(self._rows.encode(events)))
        if isinstance(self._fsync, int | float) and self._sync_timer is None:
            self._sync_timer = self._clock.call_later(self._fsync, self._start_sync)

    async def close(self) -> None:
        """Finish the current write, close the file and join the thread."""
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        worker, self._worker = self._worker, None
        if worker is not None:
            await finish(worker, self._file.close)

    def _start_sync(self) -> None:
        self._sync_timer = None
        if self._worker is not None:
            self._worker.submit(self._sync)

    def _sync(self) -> None:
        try:
            self._file.sync()
        except BaseException as error:  # noqa: BLE001  # no caller waits for this call: the next batch reports the error
            self._sync_failure = error

    async def _in_worker(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)
