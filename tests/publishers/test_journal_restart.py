"""What another process finds in a journal: after a close, a kill at any moment, a power cut, damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from discorder.publishers.journal.records import Decoder
from discorder.wire import StreamPosition
from tests.publishers.journals import (
    LATER,
    SESSION,
    event,
    killed,
    messages,
    names,
    opened,
    opening,
    read_all,
    segments,
)
from tests.publishers.test_journal import is_held, saved


@pytest.mark.parametrize("gracefully", [True, False])
async def test_a_new_process_has_the_guilds_and_the_events(tmp_path: Path, gracefully: bool) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        await journal.publish([event(4, "GUILD_UPDATE", {"id": "1", "name": "new"}), *messages(5, 20)])
        place = tmp_path / "j" if gracefully else killed(tmp_path / "j")
    async with opened(place) as journal:
        assert journal.end(0) == (SESSION, 24)
        assert names(journal) == {1: "new", 2: "guild 2"}
        assert read_all(journal, 0) == list(range(1, 25))
        await journal.publish(messages(20, 10))  # Discord replays from a point that lags
        assert read_all(journal, 0) == list(range(1, 30))


async def test_a_file_that_is_cut_at_any_byte_of_its_last_records_keeps_the_whole_ones(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        await journal.publish([event(4, "GUILD_UPDATE", {"id": "1", "name": "new"}), *messages(5, 2, size=10)])
        killed(tmp_path / "j")
    [segment] = segments(tmp_path / "killed")
    content = segment.read_bytes()
    records = list(Decoder().scan(content))
    for size in range(records[-4].end, len(content) + 1):
        place = killed(tmp_path / "killed", f"cut at {size}")
        os.truncate(segments(place)[0], size)
        whole = [record for record in records if record.end <= size]
        async with opened(place) as journal:
            assert journal.end(0) == (SESSION, whole[-1].seq)
            assert names(journal)[1] == ("new" if len(whole) >= 4 else "guild 1")
            await journal.publish(messages(len(whole) + 1, 3))
            assert read_all(journal, 0) == list(range(1, len(whole) + 4))
        shutil.rmtree(place)


async def test_a_byte_that_changed_ends_the_journal_before_its_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(), *messages(4, 9)])
        place = killed(tmp_path / "j")
    content = bytearray(segments(place)[0].read_bytes())
    content[-300] ^= 1
    segments(place)[0].write_bytes(content)
    async with opened(place) as journal:
        end = journal.end(0)
        assert end is not None
        assert 3 < end.seq < 12
    assert "of a torn record off" in caplog.text


@pytest.mark.parametrize("snapshot", [True, False])
async def test_two_sessions_in_one_segment(tmp_path: Path, snapshot: bool) -> None:
    """With a snapshot in the second session, the events of the first one must not touch it."""
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(3), *messages(5, 5)])
        await journal.publish([*opening(1, session=LATER), *messages(3, 5, session=LATER)])
        place = killed(tmp_path / "j")
    for directory in (tmp_path / "j", place):
        if not snapshot:
            (directory / "snapshot").unlink(missing_ok=True)
        async with opened(directory) as journal:
            assert journal.end(0) == (LATER, 7)
            assert names(journal) == {1: "guild 1"}
            assert read_all(journal, 0, session=LATER) == list(range(1, 8))


async def test_a_session_after_the_snapshot_replaces_its_guilds(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(3), *messages(5, 5)])
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening(1, session=LATER))
        place = killed(tmp_path / "j")
    async with opened(place) as journal:
        assert journal.end(0) == (LATER, 2)
        assert names(journal) == {1: "guild 1"}


async def test_a_shard_without_ready_is_in_no_snapshot(tmp_path: Path) -> None:
    """An empty state in it would be taken for the guilds of the session, for good."""
    async with opened(tmp_path / "j") as journal:
        await journal.publish(messages(50, 5))
    async with opened(tmp_path / "j") as journal:
        assert journal.end(0) is None
        await journal.publish(opening(2, session=LATER))
    async with opened(tmp_path / "j") as journal:
        assert len(names(journal)) == 2


async def test_a_kill_at_any_step_of_a_snapshot_and_of_the_retention_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that changes the directory is preceded by a copy of it: what a kill there would leave."""
    copies: list[tuple[Path, int]] = []
    sent = 0

    def copied(module: Any, name: str) -> None:
        act = getattr(module, name)

        def then(*arguments: Any, **options: Any) -> Any:
            copies.append((killed(tmp_path / "j", f"before {name} {len(copies)}"), sent))
            return act(*arguments, **options)

        monkeypatch.setattr(module, name, then)

    async with opened(tmp_path / "j", ring_bytes=20_000) as journal:
        await journal.publish([*opening(), event(4, "GUILD_UPDATE", {"id": "1", "name": "new"})])
        sent = 4
        for name in ("fsync", "ftruncate"):
            copied(os, name)
        for name in ("replace", "unlink"):
            copied(Path, name)
        for seq in range(5, 400):
            await journal.publish(messages(seq, 1))
            sent = seq
            if seq % 10 == 0:
                await saved(journal)
        monkeypatch.undo()
    assert {copy.name.split()[1] for copy, _ in copies} == {"fsync", "replace", "unlink"}
    for copy, seq in copies:
        async with opened(copy, ring_bytes=20_000) as journal:
            end = journal.end(0)
            assert end is not None, copy.name
            assert end.seq >= seq, copy.name
            assert names(journal) == {1: "new", 2: "guild 2"}, copy.name
            assert read_all(journal, end.seq - 10) == list(range(end.seq - 9, end.seq + 1)), copy.name


async def many_segments(directory: Path) -> list[Path]:
    """Leave a journal with a snapshot at 400 and several segments that hold all events."""
    async with opened(directory, ring_bytes=40_000) as journal:
        await journal.publish(opening())
        for seq in range(4, 100):
            await journal.publish(messages(seq, 1))
    return list(segments(directory))


async def test_a_power_cut_that_tears_an_older_segment_costs_the_replay_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The snapshot is synced, the segments are not."""
    files = await many_segments(tmp_path / "j")
    assert len(files) > 2
    os.truncate(files[-2], 200)
    async with opened(tmp_path / "j", ring_bytes=40_000) as journal:
        assert journal.end(0) == (SESSION, 99)
        assert len(names(journal)) == 2
        assert is_held(journal, 98)
        assert not is_held(journal, 20)
        await journal.publish(messages(100, 3))
        assert read_all(journal, 99) == [100, 101, 102]
    assert "cannot be replayed" in caplog.text


async def test_a_power_cut_after_the_snapshot_leaves_its_state(tmp_path: Path) -> None:
    for file in await many_segments(tmp_path / "j"):
        file.unlink()
    async with opened(tmp_path / "j") as journal:
        assert (journal.end(0), len(names(journal))) == ((SESSION, 99), 2)
        assert not is_held(journal, 98)
        await journal.publish(messages(100, 3))
    async with opened(tmp_path / "j") as journal:
        assert (journal.end(0), read_all(journal, 99)) == ((SESSION, 102), [100, 101, 102])


async def test_without_a_snapshot_events_behind_a_hole_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = await many_segments(tmp_path / "j")
    (tmp_path / "j" / "snapshot").unlink()
    os.truncate(files[1], 200)
    async with opened(tmp_path / "j") as journal:
        end = journal.end(0)
        assert end is not None
        assert 3 < end.seq < 60
        assert read_all(journal, 0) == list(range(1, end.seq + 1))
    assert "records before it are missing" in caplog.text


@pytest.mark.parametrize("damage", ["short", "flipped", "empty", "foreign"])
async def test_a_damaged_snapshot_is_set_aside_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(), *messages(4, 5)])
    path = tmp_path / "j" / "snapshot"
    content = path.read_bytes()
    flipped = bytes([*content[:-20], content[-20] ^ 1, *content[-19:]])
    path.write_bytes({"short": content[:-9], "flipped": flipped, "empty": b"", "foreign": b"a letter " * 99}[damage])
    async with opened(tmp_path / "j") as journal:
        assert journal.end(0) == (SESSION, 8), "its READY is among the events"
        assert len(names(journal)) == 2
    assert "was moved to" in caplog.text
    assert (tmp_path / "j" / "snapshot.damaged").exists()


async def test_without_snapshot_and_ready_a_session_has_no_place(tmp_path: Path) -> None:
    files = await many_segments(tmp_path / "j")
    (tmp_path / "j" / "snapshot").unlink()
    files[0].unlink()
    async with opened(tmp_path / "j") as journal:
        assert journal.end(0) is None


async def test_a_segment_whose_header_is_torn_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
    for number, content in enumerate((b"", b"disc", b"\0" * 32, b"discorder journal 1\n\0\0")):
        torn = tmp_path / "j" / f"segment.{number + 2:08d}"
        torn.write_bytes(content)
        async with opened(tmp_path / "j") as journal:
            assert journal.end(0) == StreamPosition(SESSION, 3)
        assert not torn.exists()
