"""One owner per shard: locks of the operating system, freed by it however the owner dies.

Each shard that is held is a file ``<bot>-<id>of<count>.lock`` under an exclusive ``flock``; its content only tells people and
`--take-over` who holds it, the lock itself is the kernel's. Shards of different layouts overlap when they share a guild, so
taking one tries the files of all that overlap. A mutex file serialises the taking.

Must not: open the store, or signal a process that is not proved to be the holder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from discorder.clock import Clock
from discorder.errors import StoreLocked
from discorder.logs import logger
from discorder.sessions.store import Shard, overlap

TAKE_OVER_PATIENCE = 30.0  # seconds; a hand-over takes the owner about one
POLL = 0.1  # seconds between two tries while the owner leaves
CONTENT_STEP = (
    512  # bytes that a lock file is padded to: cutting a file costs milliseconds, times the shards of a large bot
)
START_PATIENCE = 5.0  # seconds for the mutex, which others hold for milliseconds

_NAME = re.compile(r"(?P<bot>[0-9a-f]+)-(?P<id>\d+)of(?P<count>\d+)\.lock")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock file, as far as its content tells. ``started``: the kernel's start time of the process, in ticks."""

    path: Path
    shards: str = "an overlapping shard"
    pid: int | None = None
    started: int | None = None
    host: str = ""
    since: datetime | None = None

    @property
    def is_this_process(self) -> bool:
        return (
            self.pid == os.getpid() and self.host == socket.gethostname() and self.started == process_start(os.getpid())
        )

    def describe(self, now: datetime) -> str:
        """One sentence: which shards, which process, since when, through which file."""
        who = "another process" if self.pid is None else f"process {self.pid}"
        if self.is_this_process:
            who = f"this very process ({self.pid})"
        elif self.host and self.host != socket.gethostname():
            who += f" on {self.host}"
        age = (
            ""
            if self.since is None
            else f" since {self.since.isoformat(timespec='seconds')} ({_age(now - self.since)})"
        )
        return f"{self.shards} of this bot: held by {who}{age}, lock file {self.path}"


class ShardLocks:
    """Locks that are held; the process's end releases them too."""

    def __init__(self, descriptors: Iterable[int] = ()) -> None:
        self._descriptors = list(descriptors)

    def release(self) -> None:
        """Let go; idempotent."""
        while self._descriptors:
            os.close(self._descriptors.pop())


async def hold_shards(
    directory: Path, bot: str, shards: Iterable[Shard], *, clock: Clock, take_over: bool = False, patience: float = 0.0
) -> ShardLocks:
    """Hold ``shards`` ((id, count)) of ``bot``, all or none.

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
            outcome = _try_hold(directory, bot, wanted, clock.now()) if entered else None
        if isinstance(outcome, ShardLocks):
            return outcome
        if outcome is None and clock.monotonic() >= max(deadline, mutex_deadline):
            msg = f"another process has been starting on {directory} for {START_PATIENCE:.0f} s; wait for it or stop it"
            raise StoreLocked(msg)
        if outcome is not None:
            if take_over:
                _ask_to_leave(outcome, asked, clock.now())
            if clock.monotonic() >= deadline:
                raise _locked(outcome, clock.now(), asked=bool(asked), patience=patience)
            _announce(outcome, announced, clock.now(), deadline - clock.monotonic())
        await clock.sleep(POLL)


@contextmanager
def mutex(directory: Path, *, blocking: bool) -> Iterator[bool]:
    """Be alone among those who start on this store; yields whether one is. Raises OSError when ``directory`` is not writable."""
    descriptor = _open(directory / "mutex")
    try:
        yield _lock(descriptor, blocking=blocking)
    finally:
        os.close(descriptor)


def process_start(pid: int) -> int | None:
    """When the kernel started process ``pid``, in clock ticks since boot; None where that cannot be read or it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(
        stat.rpartition(")")[2].split()[19]
    )  # field 22 (proc(5)), counted after the name, which may contain blanks


def _try_hold(directory: Path, bot: str, wanted: frozenset[Shard], now: datetime) -> ShardLocks | list[Holder]:
    """Take every wanted lock, or tell who is in the way. The caller has the mutex."""
    taken: list[int] = []
    in_the_way: list[Holder] = []
    for shard, path in _rivals(directory, bot, wanted).items():
        descriptor = _open(path)
        if not _lock(descriptor, blocking=False):
            in_the_way.append(_read_holder(path))
            os.close(descriptor)
        elif shard in wanted:
            taken.append(descriptor)
        else:
            path.unlink()  # left behind by another layout; nobody can be taking it, we have the mutex
            os.close(descriptor)
    locks = ShardLocks(taken)
    if in_the_way:
        locks.release()
        return in_the_way
    content = json.dumps(
        {
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "host": socket.gethostname(),
            "since": now.isoformat(),
            "shards": _name(wanted),
        }
    ).encode()
    content = content.ljust(-(-len(content) // CONTENT_STEP) * CONTENT_STEP)
    try:
        for descriptor in taken:
            os.pwrite(descriptor, content, 0)
            if os.fstat(descriptor).st_size > len(content):
                os.ftruncate(descriptor, len(content))
    except OSError:
        locks.release()
        raise
    return locks


def _rivals(directory: Path, bot: str, wanted: frozenset[Shard]) -> dict[Shard, Path]:
    """The wanted shards and all others of this bot that have a file and overlap with one of them."""
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


def _lock(descriptor: int, *, blocking: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _read_holder(path: Path) -> Holder:
    """What the file says; a holder that died while it wrote leaves an unreadable one, which names nobody."""
    try:
        content = json.loads(path.read_bytes())
        return Holder(
            path=path,
            shards=str(content["shards"]),
            pid=int(content["pid"]),
            started=None if content["started"] is None else int(content["started"]),
            host=str(content["host"]),
            since=datetime.fromisoformat(content["since"]),
        )
    except (ValueError, KeyError, TypeError, OSError):
        return Holder(path)


def _ask_to_leave(holders: list[Holder], asked: set[int], now: datetime) -> None:
    """SIGTERM each holder once. Raises StoreLocked for one that is not surely the process that took the lock."""
    for holder in holders:
        if holder.pid is None or holder.pid in asked:
            continue
        if holder.is_this_process or holder.host != socket.gethostname():
            why = (
                "it is this very process"
                if holder.is_this_process
                else "it runs on another host or in another container"
            )
            msg = f"cannot take over {holder.describe(now)}: {why}"
            raise StoreLocked(msg, holder.pid)
        if _terminate(holder.pid, holder.started):
            asked.add(holder.pid)
            logger.info("Asked the holder of the shards to hand over", pid=holder.pid)


def _announce(holders: list[Holder], announced: set[int | None], now: datetime, seconds: float) -> None:
    """Say once of each holder that it is waited for."""
    for holder in holders:
        if holder.pid not in announced:
            announced.add(holder.pid)
            logger.info(
                "Waiting for the holder of the shards", holder=holder.describe(now), at_most_seconds=round(seconds, 1)
            )


def _terminate(pid: int, started: int | None) -> bool:
    """SIGTERM ``pid`` if it still is the process that started at ``started``; False if it is gone or another one by now."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except (ProcessLookupError, PermissionError):
        return False
    try:
        if process_start(pid) != started:
            return False
        if handle is not None:
            signal.pidfd_send_signal(
                handle, signal.SIGTERM
            )  # the handle names the process, so the id cannot be reused here
        else:
            os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _locked(holders: list[Holder], now: datetime, *, asked: bool, patience: float) -> StoreLocked:
    lines = "; ".join(holder.describe(now) for holder in holders[:3])
    more = f"; and {len(holders) - 3} more" if len(holders) > 3 else ""
    waited = f"; {'asked to hand over and ' if asked else ''}waited {patience:g} s" if patience > 0 else ""
    msg = (
        f"{lines}{more}{waited}. Stop that process, start with --take-over to make it hand over, "
        "or use another store ([session] store) or other shards ([gateway] shards)"
    )
    return StoreLocked(msg, holders[0].pid)


def _name(shards: frozenset[Shard]) -> str:
    """``all shards``, ``shard 0 of 4``, ``shards 0, 2 of 4``."""
    if (0, 1) in shards:
        return "all shards"
    by_count: dict[int, list[int]] = {}
    for shard_id, count in sorted(shards):
        by_count.setdefault(count, []).append(shard_id)
    return " and ".join(
        f"shard{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))} of {count}" for count, ids in by_count.items()
    )


def _age(span: timedelta) -> str:
    minutes, seconds = divmod(max(0, int(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
