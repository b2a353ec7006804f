"""Name the process that holds a shard, in its lock file and from it, and ask it to leave.

Only a process that is proved to be the owner gets a signal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from discorder.errors import StoreLocked
from discorder.logs import logger
from discorder.sessions.store import Shard

# bytes that a lock file is padded to: cutting a file costs milliseconds, times the shards of a large bot
CONTENT_STEP = 512


@dataclass(frozen=True, slots=True)
class Holder:
    """The owner of a lock file, by its content. ``started``: the kernel's start time of the process, in ticks."""

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
        """Return a sentence: which shards, which process, since when, through which file."""
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


def content_of(shards: frozenset[Shard], now: datetime) -> bytes:
    """Return the content of the lock files of ``shards``, which this process takes."""
    content = json.dumps(
        {
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "host": socket.gethostname(),
            "since": now.isoformat(),
            "shards": _name(shards),
        }
    ).encode()
    return content.ljust(-(-len(content) // CONTENT_STEP) * CONTENT_STEP)


def read_holder(path: Path) -> Holder:
    """Read the file; one that a process left half written names no owner."""
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


def ask_to_leave(holders: list[Holder], asked: set[int], now: datetime) -> None:
    """Send SIGTERM to each holder once. Raises StoreLocked for a process that may not be the one that took the lock."""
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


def announce(holders: list[Holder], announced: set[int | None], now: datetime, seconds: float) -> None:
    """Log once for each holder that this process waits for it."""
    for holder in holders:
        if holder.pid not in announced:
            announced.add(holder.pid)
            logger.info(
                "Waiting for the holder of the shards", holder=holder.describe(now), at_most_seconds=round(seconds, 1)
            )


def process_start(pid: int) -> int | None:
    """Return when the kernel started process ``pid``, in clock ticks since boot; None if that cannot be read or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # field 22 (proc(5)), counted after the name, which may contain blanks
    return int(stat.rpartition(")")[2].split()[19])


def _terminate(pid: int, started: int | None) -> bool:
    """Send SIGTERM to ``pid`` if it still is the process that started at ``started``. Returns False if it is not."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except (ProcessLookupError, PermissionError):
        return False
    try:
        if process_start(pid) != started:
            return False
        if handle is not None:
            # the handle names the process, so the id cannot be reused here
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _name(shards: frozenset[Shard]) -> str:
    """Return ``all shards``, ``shard 0 of 4`` or ``shards 0, 2 of 4``."""
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
