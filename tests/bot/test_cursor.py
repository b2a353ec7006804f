"""When a cursor is written; a cursor that cannot be read, written or locked; sequences that begin at 0."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.bot import progress
from discorder.bot.cursor import load
from discorder.bot.positions import SavedPosition
from discorder.bot.subscriber import FileCursor, subscribe
from discorder.errors import CursorInUse
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Disk:
    """A cursor on a disk that is full at times."""

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.full = False
        self.attempts = 0

    def load(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        self.attempts += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.state = state


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:*")
    await made.open()
    yield made
    await made.close()


def events(first: int, last: int) -> list[Event]:
    return [Event("A", (0, 1), seq, seq - 1, "s" * 16, MOMENT, b"{}") for seq in range(first, last + 1)]


async def test_commit_raises_when_it_cannot_write_and_writes_when_it_can(bus: ZmqPublisher) -> None:
    disk = Disk()
    bus.publish_nowait(events(1, 3))
    async with asyncio.timeout(30), subscribe(bus.endpoints[0], cursor=disk, start="oldest") as reading:
        await anext(reading)
        disk.full = True
        for _ in range(2):
            attempts = disk.attempts
            with pytest.raises(OSError, match="No space left"):
                await reading.commit()
            assert disk.attempts == attempts + 1
        disk.full = False
        await reading.commit()
        assert disk.state is not None
        assert b'"A":1' in disk.state


async def test_the_cursor_has_a_position_before_the_first_item_of_a_shard_is_delivered(bus: ZmqPublisher) -> None:
    """After a kill the next start gets this event again, or a gap that covers it."""
    disk = Disk()
    bus.publish_nowait(events(1, 2))
    async with asyncio.timeout(30), subscribe(bus.endpoints[0], cursor=disk, start="oldest") as reading:
        await anext(reading)
        assert load(disk.state or b"") == (SavedPosition((0, 1), "s" * 16, 0),)


async def test_events_go_on_while_a_cursor_cannot_be_written(
    bus: ZmqPublisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SAVE_EVERY", 0.02)
    disk = Disk()
    bus.publish_nowait(events(1, 20))
    async with asyncio.timeout(30), subscribe(bus.endpoints[0], cursor=disk, start="oldest") as reading:
        disk.full = True
        for seq in range(1, 21):
            item = await anext(reading)
            assert item.seq == seq  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        assert disk.attempts > 3
        disk.full = False
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(anext(reading))
        while disk.state is None or b"20" not in disk.state:  # noqa: ASYNC110  # a cursor is looked at
            await asyncio.sleep(0.01)
        waiting.cancel()
        disk.full = True
    assert caplog.text.count("The cursor cannot be written") == 2, "once while it was full, once at the end"


async def test_events_go_on_when_the_folder_of_the_cursor_is_removed(bus: ZmqPublisher, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    bus.publish_nowait(events(1, 2))
    async with asyncio.timeout(30), subscribe(bus.endpoints[0], cursor=folder / "c", start="oldest") as reading:
        (folder / "c.lock").unlink()
        (folder / "c").unlink(missing_ok=True)
        folder.rmdir()
        assert [(await anext(reading)).seq for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
        with pytest.raises(FileNotFoundError):
            await reading.commit()


async def test_a_second_bot_with_the_same_cursor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    link = tmp_path / "link"
    link.symlink_to(path)
    first = subscribe("tcp://127.0.0.1:6000", cursor=path)
    for same in (path, link, FileCursor(path)):
        with pytest.raises(CursorInUse, match="in use by another bot; give each bot a cursor of its own"):
            subscribe("tcp://127.0.0.1:6000", cursor=same)
    code = f"import discorder; discorder.subscribe(cursor={str(path)!r})"
    other = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert "CursorInUse" in other.stderr
    await first.aclose()
    await subscribe("tcp://127.0.0.1:6000", cursor=path).aclose()


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_cursor_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cursor"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(OSError, match="cursor"):
        subscribe("tcp://127.0.0.1:6000", cursor=path)


async def test_a_session_that_numbers_from_0_misses_nothing(bus: ZmqPublisher) -> None:
    disk = Disk()
    for session in ("a" * 16, "b" * 16):
        made = [Event("A", (0, 1), seq, max(0, seq - 1), session, MOMENT, b"{}") for seq in range(3)]
        bus.publish_nowait([Event("READY", (0, 1), 0, 0, session, MOMENT, b"{}"), *made[1:]])
    async with asyncio.timeout(30), subscribe(bus.endpoints[0], cursor=disk, start="oldest") as reading:
        seen = [(await anext(reading)) for _ in range(7)]
        assert [item.seq for item in seen if item.type != "DISCORDER_GAP"] == [0, 1, 2, 0, 1, 2]  # type: ignore[union-attr]
