"""The moments at which a control plane can be made to kill itself, by name. Only tests/kills/child.py arms them.

A point is a place in the product's own code, reached by wrapping the real function around it: the product knows nothing of it.
A name that no longer leads anywhere fails at arming, with AttributeError.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from discorder.plane.session_persistence import Sessions
from discorder.plane.session_writer import SessionWriter
from discorder.publishers.append_only_file import AppendOnlyFile
from discorder.publishers.delivery.fanout import FanOut
from discorder.publishers.delivery.lossless import LosslessQueue
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.publishers.journal import segments, snapshot_file
from discorder.publishers.journal.loading import Loader
from discorder.publishers.journal.segments import Segments
from discorder.sessions import ShardLocks, SqliteSessionStore, database
from discorder.sessions.database import Database
from discorder.shard.dispatches import Dispatches
from discorder.shard.driver import ShardDriver
from discorder.shard.handshake import Handshake
from discorder.shard.receiver import Receiver
from discorder.statemachine.table import Name
from discorder.tracking.shard_tracker import Transition
from discorder.transport import inflate

Strike = Callable[[], None]
Arm = Callable[[Strike], None]


class Life(Enum):
    """The lives in which a point is reached."""

    FIRST = "the one that identifies"
    LATER = "one that resumes"
    ANY = "every one"
    STOPPING = "one that was asked to stop"


@dataclass(frozen=True, slots=True)
class Point:
    """``passes``: of these one is drawn."""

    name: str
    life: Life
    arm: Arm
    passes: int = 1


class Trap:
    """Kills this process ``delay`` seconds after the ``passes``-th pass; no handler, no flush, no exit."""

    def __init__(self, passes: int, delay: float) -> None:
        self._left = passes
        self._delay = delay

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            if self._delay:
                threading.Thread(target=self._kill_later, daemon=True).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def _kill_later(self) -> None:
        time.sleep(self._delay)
        os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------ ways to wrap


def before(owner: Any, name: str) -> Arm:
    """Strike when ``owner.name`` is called."""

    def arm(strike: Strike) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            strike()
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    return arm


def after(owner: Any, name: str) -> Arm:
    """Strike when ``owner.name``, which is no coroutine function, has returned."""

    def arm(strike: Strike) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            strike()
            return result

        setattr(owner, name, wrapped)

    return arm


def each(*arms: Arm) -> Arm:
    """Every one of them counts."""

    def arm(strike: Strike) -> None:
        for one in arms:
            one(strike)

    return arm


SLOW = (0.0, 0.005, 0.02, 0.4)  # seconds that a slow disk takes for a batch, one of them drawn by lot


def slow_disk() -> None:
    """Slow the file down, so that the publisher is congested again and again."""
    original = AppendOnlyFile.append

    def append(self: AppendOnlyFile, lines: bytes) -> None:
        time.sleep(random.choice(SLOW))
        original(self, lines)

    AppendOnlyFile.append = append  # type: ignore[method-assign]


def torn(strike: Strike) -> None:
    """Strike when half of a batch's bytes are in the file: a torn last line."""
    original = AppendOnlyFile._write  # noqa: SLF001  # the point lies inside

    def write(self: AppendOnlyFile, lines: bytes) -> None:
        half = len(lines) // 2
        original(self, lines[:half])
        strike()
        original(self, lines[half:])

    AppendOnlyFile._write = write  # type: ignore[method-assign]  # noqa: SLF001


def renamed(strike: Strike) -> None:
    """Strike after each rename of a rotation."""
    original = Path.replace

    def replace(self: Path, target: Any) -> Path:
        result = original(self, target)
        if Path(target).suffix[1:].isdigit():
            strike()
        return result

    Path.replace = replace  # type: ignore[method-assign,assignment]


def torn_record(strike: Strike) -> None:
    """Strike when half of a batch's bytes are in the journal."""
    original = segments._write_all  # noqa: SLF001  # the point lies inside

    def write(descriptor: int, content: bytes, place: int) -> None:
        half = len(content) // 2
        original(descriptor, content[:half], place)
        strike()
        original(descriptor, content[half:], place + half)

    segments._write_all = write  # noqa: SLF001


def snapshot_complete(strike: Strike) -> None:
    """Strike when a snapshot is on the disk and has not replaced the one before."""
    original = Path.replace

    def replace(self: Path, target: Any) -> Path:
        if self.name == snapshot_file.NEW_NAME:
            strike()
        return original(self, target)

    Path.replace = replace  # type: ignore[method-assign,assignment]


def resumed(strike: Strike) -> None:
    """Strike when the driver has entered Ready by RESUMED."""
    original = ShardDriver._enter  # noqa: SLF001  # the point lies inside

    def enter(self: ShardDriver, step: Transition) -> None:
        original(self, step)
        if step.trigger is Name.RESUMED:
            strike()

    ShardDriver._enter = enter  # type: ignore[method-assign]  # noqa: SLF001


_WRITTEN = each(after(database, "move_session"), after(database, "replace_session"))
# Counted where messages are handed on, too: payload compression is asked for in IDENTIFY, so a RESUME brings plain text.
_INFLATED = each(
    *(after(getattr(inflate, name), "feed") for name in ("_ZlibStream", "_ZstdStream", "_Payload")),
    before(Receiver, "take"),
)

_ALL = (
    # the way to a session
    Point("ledger: before the transaction", Life.FIRST, before(Database, "change_ledger"), passes=3),
    Point("ledger: before COMMIT", Life.FIRST, after(database, "write_ledger"), passes=3),
    Point("ledger: after COMMIT", Life.FIRST, after(Database, "change_ledger"), passes=3),
    Point("IDENTIFY sent", Life.FIRST, after(Handshake, "identify")),
    Point("READY read", Life.FIRST, after(Dispatches, "_open_session")),
    Point("READY not yet stored", Life.FIRST, before(SessionWriter, "save")),
    Point("READY: before COMMIT", Life.FIRST, after(database, "replace_session")),
    Point("READY stored", Life.FIRST, after(Database, "write_sessions")),
    # an event on its way
    Point("inflated", Life.ANY, _INFLATED, passes=120),
    Point("before the fan-out", Life.ANY, before(ShardDelivery, "hand_over"), passes=60),
    Point("after the fan-out", Life.ANY, after(ShardDelivery, "hand_over"), passes=60),
    Point("before the file", Life.ANY, before(AppendOnlyFile, "append"), passes=60),
    Point("half a batch in the file", Life.ANY, torn, passes=60),
    Point("in the file, not yet accepted", Life.ANY, after(AppendOnlyFile, "append"), passes=60),
    Point("accepted", Life.ANY, after(LosslessQueue, "_note_accepted"), passes=60),
    # the file changes
    Point("rotation: before", Life.ANY, before(AppendOnlyFile, "_rotate"), passes=2),
    Point("rotation: between two renames", Life.ANY, renamed, passes=6),
    Point("rotation: after", Life.ANY, after(AppendOnlyFile, "_rotate"), passes=2),
    # the journal
    Point("journal: half a batch in the file", Life.ANY, torn_record, passes=60),
    Point("journal: in the file, not yet accepted", Life.ANY, after(Segments, "append"), passes=60),
    Point("journal: segment begun", Life.ANY, after(Segments, "begin")),
    Point("journal: snapshot not yet in its place", Life.ANY, snapshot_complete),
    Point("journal: snapshot in its place", Life.ANY, after(snapshot_file, "write")),
    Point("journal: oldest segment removed", Life.ANY, after(Segments, "drop_oldest")),
    Point("journal: read at the start", Life.ANY, after(Loader, "load")),
    Point("journal: last snapshot", Life.STOPPING, before(snapshot_file, "write")),
    # the checkpoint
    Point("checkpoint: before", Life.ANY, before(Sessions, "checkpoint"), passes=2),
    Point("checkpoint: queued", Life.ANY, after(Sessions, "checkpoint"), passes=2),
    Point("store: before the write", Life.ANY, before(Database, "write_sessions"), passes=2),
    Point("store: before COMMIT", Life.ANY, _WRITTEN, passes=2),
    Point("store: after the write", Life.ANY, after(Database, "write_sessions"), passes=2),
    # a new life
    Point("start: store open", Life.LATER, after(Database, "open")),
    Point("start: file checked", Life.LATER, after(AppendOnlyFile, "_check")),
    Point("start: session adopted", Life.LATER, after(Receiver, "adopt")),
    Point("RESUME: before", Life.LATER, before(Handshake, "resume")),
    Point("RESUME sent", Life.LATER, after(Handshake, "resume")),
    Point("RESUMED", Life.LATER, resumed),
    # a graceful end
    Point("stop: socket closed", Life.STOPPING, before(FanOut, "drain")),
    Point("stop: drained", Life.STOPPING, before(FanOut, "close")),
    Point("stop: file closed", Life.STOPPING, before(Sessions, "close")),
    Point("stop: before the last flush", Life.STOPPING, before(SqliteSessionStore, "close")),
    Point("stop: store closed", Life.STOPPING, after(ShardLocks, "release")),
)
POINTS = {point.name: point for point in _ALL}
