"""The journal while it runs: the guilds, the events after a place, retention, and failing writes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.errors import ConfigError, PublisherError, UnusableFile
from discorder.guilds.feed import NotHeld
from discorder.publishers.journal import Journal
from discorder.wire import StreamPosition
from tests.publishers.journals import LATER, SESSION, event, guild, messages, names, opened, opening, read_all, segments


async def test_it_shows_the_guilds_at_the_place_of_the_newest_event(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        assert (journal.end(0), journal.snapshot(0)) == (None, None)
        await journal.publish(opening())
        await journal.publish([event(4, "GUILD_UPDATE", {"id": "1", "name": "new"}), *messages(5, 1)])
        snapshot = journal.snapshot(0)
        assert snapshot is not None
        assert snapshot.place == journal.end(0) == StreamPosition(SESSION, 5)
        assert names(journal) == {1: "new", 2: "guild 2"}
        await journal.publish([event(6, "GUILD_DELETE", {"id": "2"})])
        assert snapshot.guilds.guild_ids == [1, 2], "a snapshot does not change"
        assert names(journal) == {1: "new"}


@pytest.mark.parametrize("most_bytes", [1, 1000, 100_000])
async def test_the_events_after_a_place_are_those_that_were_published(tmp_path: Path, most_bytes: int) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        for seq in range(4, 3000, 9):
            await journal.publish(messages(seq, 9))
        sent = list(range(1, 3001))
        for after in (0, 1, 2, 1500, 2500, 2999, 3000):
            assert read_all(journal, after, most_bytes=most_bytes) == sent[after:]
        [create] = journal.entries(0, StreamPosition(SESSION, 1), 1)
        assert (create.type, create.data) == ("GUILD_CREATE", opening()[1].data)


async def test_the_shards_have_their_own_events_and_guilds(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        for shard in (0, 1):
            await journal.publish(opening(1 + shard, session=f"session {shard}", shard=(shard, 2)))
        await journal.publish([event(3, "TYPING_START", {}, session="session 0", shard=(0, 2))])
        assert [len(names(journal, shard)) for shard in (0, 1)] == [1, 2]
        assert [journal.end(shard) for shard in (0, 1)] == [("session 0", 3), ("session 1", 3)]
        assert read_all(journal, 0, session="session 0") == [1, 2, 3]
        journal.use_layout([1], 2)
        assert journal.layout == ([1], 2)
        assert journal.end(0) is None


async def test_a_new_session_ends_the_places_of_the_one_before(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening(3))
        await journal.publish(opening(1, session=LATER))
        assert names(journal) == {1: "guild 1"}
        assert read_all(journal, 0, session=LATER) == [1, 2]
        with pytest.raises(NotHeld):
            journal.entries(0, StreamPosition(SESSION, 1), 1000)


async def test_without_ready_there_is_no_place(tmp_path: Path) -> None:
    """A session that began before the journal did: its guilds are not known."""
    async with opened(tmp_path / "j") as journal:
        await journal.publish(messages(70, 3))
        assert (journal.end(0), journal.snapshot(0)) == (None, None)
        with pytest.raises(NotHeld):
            journal.entries(0, StreamPosition(SESSION, 70), 1000)


async def test_an_event_that_comes_again_is_not_written_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        await journal.publish([*messages(4, 3), *messages(4, 5)])
        assert read_all(journal, 0) == list(range(1, 9))


async def test_a_record_of_lost_events_comes_with_the_event_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish([*opening(), event(None, "DISCORDER_GAP", {"from_seq": 4})])
        assert read_all(journal, 3) == [], "an answer that ends with it would have no place"
        await journal.publish(messages(5, 2))
        assert read_all(journal, 3) == [None, 5, 6]
        assert read_all(journal, 2, most_bytes=1) == [3, None, 5, 6]
        assert read_all(journal, 5) == [6]


async def test_a_watcher_is_called_with_the_shard_after_new_events(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        woken: list[int] = []
        end = journal.watch(woken.append)
        await journal.publish(opening())
        await journal.publish([event(1, "READY", {}, shard=(1, 2))])
        end()
        await journal.publish(messages(4, 1))
        assert woken == [0, 1]


async def test_old_events_are_removed_behind_a_snapshot_and_their_places_are_not_held(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", ring_bytes=40_000) as journal:
        await journal.publish(opening())
        for seq in range(4, 1000):
            await journal.publish(messages(seq, 1))
            if seq % 10 == 0:
                await saved(journal)
        assert sum(path.stat().st_size for path in segments(tmp_path / "j")) < 50_000
        assert len(names(journal)) == 2
        with pytest.raises(NotHeld):
            journal.entries(0, StreamPosition(SESSION, 3), 1000)
        held = next(after for after in range(1000) if is_held(journal, after))
        assert read_all(journal, held) == list(range(held + 1, 1000))
    async with opened(tmp_path / "j", ring_bytes=40_000) as journal:
        assert (journal.end(0), len(names(journal))) == ((SESSION, 999), 2)
        assert is_held(journal, held)
        assert not is_held(journal, held - 1)


async def test_events_are_removed_after_their_time(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "j", ring_seconds=80.0, clock=clock) as journal:
        await journal.publish(opening())
        for number in range(40):
            await journal.publish(messages(4 + number, 1, seconds=number * 5.0))
            await clock.advance(5.0)
            await saved(journal)
        assert not is_held(journal, 4)
        assert is_held(journal, 30)


async def saved(journal: Journal) -> None:
    """Wait for the snapshot that is being written."""
    if journal._snapshots.saving is not None:  # noqa: SLF001  # no seam tells when a file in the background is complete
        await journal._snapshots.saving  # noqa: SLF001


def is_held(journal: Journal, after: int) -> bool:
    try:
        journal.entries(0, StreamPosition(SESSION, after), 1)
    except NotHeld:
        return False
    return True


async def test_a_full_disk_refuses_the_batch_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(descriptor: int, content: bytes, place: int) -> int:
        if len(content) < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, bytes(content)[:40], place)  # a part fits

    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(PublisherError, match=r"cannot write to .*segment.*No space left"):
            await journal.publish([event(4, "GUILD_CREATE", guild(3)), *messages(5, 2)])
        assert (journal.end(0), len(names(journal))) == ((SESSION, 3), 2)
        monkeypatch.undo()
        await journal.publish([event(4, "GUILD_CREATE", guild(3)), *messages(5, 2)])
        assert read_all(journal, 0) == list(range(1, 7))
    async with opened(tmp_path / "j") as journal:
        assert (journal.end(0), len(names(journal))) == ((SESSION, 6), 3)


async def test_two_processes_never_share_a_journal(tmp_path: Path) -> None:
    async with opened(tmp_path / "j"):
        with pytest.raises(ConfigError, match="another process keeps its journal"):
            await Journal(tmp_path / "j").open()
    async with opened(tmp_path / "j"):
        pass


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.publish(opening())
        journal.save_places(b"[]")
    paths = [tmp_path / "j", *(tmp_path / "j").iterdir()]
    assert {path.name for path in paths} == {"j", "lock", "clients.json", "snapshot", "segment.00000001"}
    assert [path.name for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_a_file_of_another_program_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "segment.00000001").write_bytes(b"a letter to a friend\n" * 5)
    with pytest.raises(UnusableFile, match=r"segment\.00000001 is not a segment of a journal; move it away"):
        await Journal(tmp_path / "j").open()
    assert (tmp_path / "j" / "segment.00000001").read_bytes().startswith(b"a letter")
    (tmp_path / "j" / "segment.00000001").write_bytes(b"discorder journal 9\n" * 5)
    with pytest.raises(UnusableFile, match="another version of Discorder"):
        await Journal(tmp_path / "j").open()


async def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "missing" / "j"):
        with pytest.raises(UnusableFile, match="name a directory"):
            await Journal(path).open()


async def test_the_places_of_the_clients_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        assert journal.load_places() == []
        journal.save_places(b"[1]")
        journal.save_places(b"[2]")
    async with opened(tmp_path / "j") as journal:
        assert journal.load_places() == [b"[2]"]


async def test_an_empty_journal_may_begin_as_a_copy_of_one_in_use(tmp_path: Path) -> None:
    """Snapshot, events and places; one that holds something is left as it is."""
    async with opened(tmp_path / "j") as original:
        await original.publish([*opening(), *messages(4, 3)])
    async with opened(tmp_path / "j") as original:  # with a snapshot
        await original.publish(messages(7, 2))
        original.save_places(b"[1]")
        options = {"other": tmp_path / "j", "begin_as_copy": True}
        async with opened(tmp_path / "copy", **options) as copy:
            assert names(copy) == names(original)
            assert read_all(copy, 3) == [4, 5, 6, 7, 8]
            assert copy.load_places() == [b"[1]"]
            copy.save_places(b"[2]")
        await original.publish(messages(9, 1))
        async with opened(tmp_path / "copy", **options) as copy:
            assert read_all(copy, 3) == [4, 5, 6, 7, 8]
            assert copy.load_places() == [b"[2]", b"[1]"]
    paths = (tmp_path / "copy").iterdir()
    assert [path.name for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_a_copy_that_fails_is_empty(tmp_path: Path) -> None:
    """A file of the original that is none: nothing of a half copy is left."""
    async with opened(tmp_path / "j") as original:
        await original.publish(opening())
        (tmp_path / "j" / "segment.00000009").mkdir()
        async with opened(tmp_path / "copy", other=tmp_path / "j", begin_as_copy=True) as copy:
            assert copy.end(0) is None
            await copy.publish(opening())


async def test_a_copy_of_nothing_is_empty(tmp_path: Path) -> None:
    async with opened(tmp_path / "copy", other=tmp_path / "j", begin_as_copy=True) as copy:
        assert copy.end(0) is None
