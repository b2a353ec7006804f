"""Give each shard one owner with locks of the operating system, which releases them however the owner ends.

Each held shard is a file ``<bot>-<id>of<count>.lock`` under an exclusive ``flock``; its content names the owner, for people and
for `--take-over`. Shards of different layouts overlap when they share a guild, so taking a shard locks the files of all that
overlap. A mutex file serialises it.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from discorder.clock import Clock
from discorder.errors import StoreLocked
from discorder.sessions.holder import Holder, announce, ask_to_leave, content_of, read_holder
from discorder.sessions.store import Shard, overlap

TAKE_OVER_PATIENCE = 30.0  # seconds; a hand-over takes the owner about one
POLL = 0.1  # seconds between two tries while the owner leaves
START_PATIENCE = 5.0  # seconds for the mutex, which others hold for milliseconds

MUTEX = "mutex"  # the name of the file

_NAME = re.compile(r"(?P<bot>[0-9a-f]+)-(?P<id>\d+)of(?P<count>\d+)\.lock")


class ShardLocks:
    """The locks of one call of `hold_shards`, taken at ``since``. The end of the process releases them too."""

    def __init__(self, descriptors: Mapping[Shard, int], since: datetime) -> None:
        self._descriptors = dict(descriptors)
        self._since = since

    @property
    def shards(self) -> frozenset[Shard]:
        """Return the shards that are held."""
        return frozenset(self._descriptors)

    def write(self) -> None:
        """Name this process in the files of all shards that are held."""
        content = content_of(self.shards, self._since)
        for descriptor in self._descriptors.values():
            os.pwrite(descriptor, content, 0)
            if os.fstat(descriptor).st_size > len(content):
                os.ftruncate(descriptor, len(content))

    def release(self, shards: Collection[Shard] | None = None) -> None:
        """Release the locks of ``shards``, None for all. Idempotent."""
        released = [shard for shard in self._descriptors if shards is None or shard in shards]
        for shard in released:
            os.close(self._descriptors.pop(shard))
        if released:
            with suppress(OSError):  # a full disk: the files of the others go on naming the released shards, too
                self.write()


def lock_directory(store: Path) -> Path:
    """Return the folder of the lock files of a session store."""
    return store.with_name(f"{store.name}.locks")


async def hold_shards(
    directory: Path,
    bot: str,
    shards: Iterable[Shard],
    *,
    clock: Clock,
    take_over: bool = False,
    patience: float = 0.0,
    own: Collection[Shard] = (),
) -> ShardLocks:
    """Hold ``shards`` ((id, count)) of ``bot``, all or none. ``own``: what the caller holds already, which is in nobody's way.

    Waits up to ``patience`` seconds for the present owners; with ``take_over`` they are sent SIGTERM first and get at least
    30 s. Raises StoreLocked, which names them, and OSError when lock files cannot be made in ``directory``.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103  # as all file work here: microseconds, once at start
    wanted = frozenset(shards)
    if take_over:
        patience = max(patience, TAKE_OVER_PATIENCE)
    deadline = clock.monotonic() + patience
    mutex_deadline = clock.monotonic() + START_PATIENCE
    asked: set[int] = set()
    announced: set[int | None] = set()
    while True:
        with mutex(directory, blocking=False) as entered:
            outcome = _try_hold(directory, bot, wanted, clock.now(), own) if entered else None
        if isinstance(outcome, ShardLocks):
            return outcome
        if outcome is None and clock.monotonic() >= max(deadline, mutex_deadline):
            msg = f"another process has been starting on {directory} for {START_PATIENCE:.0f} s; wait for it or stop it"
            raise StoreLocked(msg)
        if outcome is not None:
            if take_over:
                ask_to_leave(outcome, asked, clock.now())
            if clock.monotonic() >= deadline:
                raise _locked(outcome, clock.now(), asked=bool(asked), patience=patience)
            announce(outcome, announced, clock.now(), deadline - clock.monotonic())
        await clock.sleep(POLL)


def find_holders(directory: Path, bot: str, shards: Iterable[Shard], *, patience: float) -> list[Holder]:
    """Return the processes that hold ``shards`` ((id, count)) of ``bot``, or shards that overlap with them. Changes nothing.

    Blocks for up to ``patience`` seconds while another process starts on ``directory``. Raises StoreLocked when it still starts,
    and OSError.
    """
    if not (directory / MUTEX).exists():
        return []
    deadline = time.monotonic() + patience
    while True:
        with mutex(directory, blocking=False) as entered:  # else a start could take the tests below for an owner
            if entered:
                rivals = _rivals(directory, bot, frozenset(shards)).values()
                return [read_holder(path) for path in rivals if path.exists() and _is_locked(path)]
        if time.monotonic() >= deadline:
            msg = f"another process is starting on {directory}; try again in a moment"
            raise StoreLocked(msg)
        time.sleep(POLL)


@contextmanager
def mutex(directory: Path, *, blocking: bool) -> Iterator[bool]:
    """Exclude the other processes that start on this store; yields whether that worked. Raises OSError where it is read-only."""
    descriptor = _open(directory / MUTEX)
    try:
        yield _lock(descriptor, blocking=blocking)
    finally:
        os.close(descriptor)


def _try_hold(
    directory: Path, bot: str, wanted: frozenset[Shard], now: datetime, own: Collection[Shard]
) -> ShardLocks | list[Holder]:
    """Take every wanted lock, or return the holders of those that are taken. The caller has the mutex."""
    taken: dict[Shard, int] = {}
    in_the_way: list[Holder] = []
    for shard, path in _rivals(directory, bot, wanted).items():
        if shard in own:
            continue
        descriptor = _open(path)
        if not _lock(descriptor, blocking=False):
            in_the_way.append(read_holder(path))
            os.close(descriptor)
        elif shard in wanted:
            taken[shard] = descriptor
        else:
            path.unlink()  # of another layout that has ended; no process can be taking it, because this one has the mutex
            os.close(descriptor)
    locks = ShardLocks(taken, now)
    if in_the_way:
        locks.release()
        return in_the_way
    try:
        locks.write()
    except OSError:
        locks.release()
        raise
    return locks


def _rivals(directory: Path, bot: str, wanted: frozenset[Shard]) -> dict[Shard, Path]:
    """Return the lock files of the wanted shards, and of all others of this bot that overlap with one of them."""
    prefix = bot[:16]
    found = {shard: directory / f"{prefix}-{shard[0]}of{shard[1]}.lock" for shard in sorted(wanted)}
    for path in sorted(directory.glob(f"{prefix}-*.lock")):
        match = _NAME.fullmatch(path.name)
        if match is None or int(match["count"]) < 1:
            continue
        shard = int(match["id"]), int(match["count"])
        if shard not in found and any(overlap(shard, one) for one in wanted):
            found[shard] = path
    return found


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _lock(descriptor, blocking=False)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, blocking: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _locked(holders: list[Holder], now: datetime, *, asked: bool, patience: float) -> StoreLocked:
    lines = "; ".join(holder.describe(now) for holder in holders[:3])
    more = f"; and {len(holders) - 3} more" if len(holders) > 3 else ""
    waited = f"; {'asked to hand over and ' if asked else ''}waited {patience:g} s" if patience > 0 else ""
    remedy = (
        "Stop that process, start with --take-over to make it hand over, "
        "or use another store ([session] store) or other shards ([gateway] shards)"
    )
    return StoreLocked(f"{lines}{more}{waited}", holders[0].pid, remedy)
