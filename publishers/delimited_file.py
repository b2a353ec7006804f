"""Appends events to a file, one line each. The waiting for the disk happens in one worker thread, never on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from discorder.clock import Clock, SystemClock, Timer
from discorder.errors import ConfigError, PublisherError
from discorder.publishers.appender import Appender
from discorder.publishers.lines import encode_lines
from discorder.publishers.options import DeliveryOptions, PositiveInt
from discorder.publishers.workers import finish
from discorder.wire import Event

DEFAULT_KEEP = 5  # rotated files

T = TypeVar("T")
Fsync = Literal["never", "batch"] | float


class DelimitedFileOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a ``delimited_file`` publisher's table."""

    path: Annotated[str, Meta(min_length=1, description="the file to append to")]
    delimiter: Annotated[str, Meta(min_length=1, max_length=1, description="one character")] = "\t"
    rotate_bytes: Annotated[int, Meta(ge=0, description="bytes; 0 = never rotate")] = 0
    keep: PositiveInt = DEFAULT_KEEP
    fsync: Annotated[
        Literal["never", "batch"] | Annotated[float, Meta(gt=0)],
        Meta(description='"never", "batch", or seconds above 0'),
    ] = "never"


class DelimitedFileEventPublisher:
    """Appends to ``path``: columns type, timestamp, session, shard, seq, data, separated by ``delimiter``.

    No header line, so that files can be cut and joined; one event is one line, quoted by the csv module; see
    `discorder.publishers.lines`. Relative paths start at the working directory. The file is made with mode 0600: it holds what
    the bot's users wrote.

    ``rotate_bytes``: a file that a batch would take above this becomes ``path.1``, ``path.1`` becomes ``path.2``, and of these
    ``keep`` are kept; 0 = never. ``fsync``: ``"never"`` (an accepted event survives this process), ``"batch"`` (each batch is
    on the disk before it is accepted, so it survives the machine), or seconds between two syncs.
    """

    Options = DelimitedFileOptions
    durable = True

    def __init__(
        self,
        path: str | Path,
        delimiter: str = "\t",
        *,
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
        self.path = Path(path)
        self._delimiter = delimiter
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._file = Appender(self.path, name, rotate_bytes=rotate_bytes, keep=keep, sync_each=fsync == "batch")
        self._worker: ThreadPoolExecutor | None = None
        self._sync_timer: Timer | None = None
        self._sync_failure: BaseException | None = None

    async def open(self) -> None:
        """Open the file for appending, cutting off a torn last line. Raises UnusableFile or ConfigError."""
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

        Raises PublisherError, for instance when the disk is full; then nothing of the batch stays in the file.
        """
        if (failure := self._sync_failure) is not None:
            self._sync_failure = None
            msg = f"{self.path}: earlier events could not be synced to the disk: {failure}"
            raise PublisherError(msg) from failure
        await self._in_worker(lambda: self._file.append(encode_lines(events, self._delimiter)))
        if isinstance(self._fsync, int | float) and self._sync_timer is None:
            self._sync_timer = self._clock.call_later(self._fsync, self._start_sync)

    async def close(self) -> None:
        """Finish what is being written, close the file and join the thread."""
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
        except OSError as error:
            self._sync_failure = error  # the next batch reports it

    async def _in_worker(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)
