"""The file on disk: its columns, rotation, repair, and failing writes."""

from __future__ import annotations

import asyncio
import csv
import json
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.errors import ConfigError, PublisherError, UnusableFile
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.wire import Event

MakeEvent = Callable[..., Event]

FULL_DISK = """
    import asyncio, resource, sys
    from datetime import UTC, datetime
    from discorder.errors import PublisherError
    from discorder.publishers.delimited_file import DelimitedFileEventPublisher
    from discorder.wire import Event

    def event(seq, size):
        return Event("A", (0, 1), seq, None, "s", datetime.now(UTC), b"x" * size)

    async def main():
        publisher = DelimitedFileEventPublisher(sys.argv[1])
        await publisher.open()
        await publisher.publish([event(1, 10)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        try:
            await publisher.publish([event(2, 10), event(3, 9000)])
        except PublisherError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await publisher.publish([event(2, 10), event(3, 9000)])
        await publisher.close()

    asyncio.run(main())
"""

FULL_FOR_A_WHILE = """
    import asyncio, resource, sys
    from datetime import UTC, datetime
    from discorder.clock import FakeClock
    from discorder.publishers.delimited_file import DelimitedFileEventPublisher
    from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut
    from discorder.wire import Event

    ROOM = resource.RLIM_INFINITY

    def events(*numbers):
        return [Event("A", (0, 1), n, None, "s", datetime.now(UTC), b"x" * 1000) for n in numbers]

    async def main(path, required):
        clock = FakeClock()
        fan_out = FanOut(clock)
        publisher = DelimitedFileEventPublisher(path, name="audit", clock=clock)
        fan_out.add(publisher, DeliveryOptions(required=required, max_events=5))
        await fan_out.open()
        shard = fan_out.shard(0)
        shard.hand_over(events(1))
        await until(clock, lambda: fan_out.health[0].accepted == 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, ROOM))
        for seq in range(2, 21):
            shard.hand_over(events(seq))
            await clock.advance(2.0, settle=lambda: asyncio.sleep(0.005))
        health = fan_out.health[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
        print(health.state, health.last_error)
        shard.connection_opened()
        shard.hand_over(events(*range(shard.resume_seq("s", 20) + 1, 22)))  # what it had to refuse is replayed
        await until(clock, lambda: fan_out.health[0].queued_events + fan_out.health[0].in_flight == 0)
        await until(clock, lambda: fan_out.health[0].state == "healthy")
        await fan_out.close()

    async def until(clock, predicate):
        while not predicate():
            await clock.advance(1.0, settle=lambda: asyncio.sleep(0.005))

    asyncio.run(main(sys.argv[1], sys.argv[2] == "required"))
"""


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t"))


def seqs(path: Path) -> list[int]:
    return [int(row[4]) for row in rows(path)]


def run_script(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_the_columns_are_type_timestamp_session_shard_seq_prev_data(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "e.csv", ";")
    await publisher.open()
    await publisher.publish([make_event(5, data=b'{"a":"x;y"}', prev=3), make_event(6, data=b"null")])
    assert (tmp_path / "e.csv").read_text() == (
        'MESSAGE_CREATE;2026-01-01T00:00:00.000000Z;0123456789abcdef;0/1;5;3;"{""a"":""x;y""}"\n'
        "MESSAGE_CREATE;2026-01-01T00:00:00.000000Z;0123456789abcdef;0/1;6;;null\n"
    ), "accepted means that the operating system has it, before close"
    await publisher.close()


async def test_one_event_is_one_line_whatever_its_data_looks_like(tmp_path: Path, make_event: MakeEvent) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "e.tsv")
    await publisher.open()
    await publisher.publish([make_event(1, data=b'{\r\n "a":\n1}')])
    await publisher.close()
    assert (tmp_path / "e.tsv").read_bytes().count(b"\n") == 1
    assert (tmp_path / "e.tsv").read_bytes().endswith(b'"{   ""a"": 1}"\n')


async def test_it_is_for_the_owners_eyes_only(tmp_path: Path) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "e.tsv")
    await publisher.open()
    await publisher.close()
    assert stat.S_IMODE((tmp_path / "e.tsv").stat().st_mode) == 0o600


async def test_rotation_keeps_the_newest_files_and_splits_no_batch(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "e.tsv"
    publisher = DelimitedFileEventPublisher(path, rotate_bytes=300, keep=2)
    await publisher.open()
    for seq in range(1, 21, 2):
        await publisher.publish([make_event(seq), make_event(seq + 1)])
    await publisher.close()
    files = [path.with_name("e.tsv.2"), path.with_name("e.tsv.1"), path]
    assert files_in(tmp_path) == sorted(files)
    assert all(file.stat().st_size <= 300 for file in files)
    kept = [seq for file in files for seq in seqs(file)]
    assert kept == list(range(kept[0], 21))
    assert kept[0] % 2 == 1


async def test_not_even_a_type_with_line_breaks_spans_lines(tmp_path: Path, make_event: MakeEvent) -> None:
    """A peer may use any event name; an incomplete line must still be recognizable."""
    publisher = DelimitedFileEventPublisher(tmp_path / "e.tsv")
    await publisher.open()
    await publisher.publish([make_event(1, kind="A\r\nB")])
    await publisher.close()
    assert rows(tmp_path / "e.tsv")[0][0] == "A  B"


@pytest.mark.parametrize("torn", [b"MESSAGE_CREATE\t2026", b"x" * 200_000], ids=["short", "longer than one step back"])
async def test_a_torn_last_line_is_cut_off_at_open(
    tmp_path: Path, make_event: MakeEvent, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.tsv"
    publisher = DelimitedFileEventPublisher(path)
    await publisher.open()
    await publisher.publish([make_event(1)])
    await publisher.close()
    with path.open("ab") as file:
        file.write(torn)
    await publisher.open()
    await publisher.publish([make_event(2)])
    await publisher.close()
    assert seqs(path) == [1, 2]
    assert f"torn last line of {len(torn)} bytes" in caplog.text


async def test_a_gap_that_a_crash_left_between_rotated_files_is_filled_first(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    """The process was killed between two renames: the next rotation moves the files up to the gap and keeps the oldest one."""
    path = tmp_path / "e.tsv"
    for number in (1, 3, 4):
        path.with_name(f"e.tsv.{number}").write_text(f"file {number}\n")
    publisher = DelimitedFileEventPublisher(path, rotate_bytes=1, keep=4)
    await publisher.open()
    await publisher.publish([make_event(seq=1)])
    await publisher.publish([make_event(seq=2)])
    await publisher.close()
    assert [path.with_name(f"e.tsv.{number}").read_text() for number in (2, 3, 4)] == [
        "file 1\n",
        "file 3\n",
        "file 4\n",
    ]
    assert "\t1\t" in path.with_name("e.tsv.1").read_text()


@pytest.mark.parametrize("away", ["moved", "deleted"])
async def test_a_file_that_somebody_rotated_away_is_made_anew(tmp_path: Path, make_event: MakeEvent, away: str) -> None:
    path = tmp_path / "e.tsv"
    publisher = DelimitedFileEventPublisher(path)
    await publisher.open()
    await publisher.publish([make_event(1)])
    if away == "moved":
        path.rename(tmp_path / "old.tsv")
    else:
        path.unlink()
    await publisher.publish([make_event(2)])
    await publisher.close()
    assert seqs(path) == [2]


def test_a_full_disk_leaves_no_half_batch_and_the_retry_no_duplicate(tmp_path: Path) -> None:
    """A file size limit simulates the full disk: the write is cut short, then refused."""
    path = tmp_path / "e.tsv"
    assert run_script(FULL_DISK, str(path)) == f"cannot write to {path}: File too large\n"
    assert seqs(path) == [1, 2, 3]


def test_a_disk_that_is_full_for_a_while_costs_a_required_file_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.tsv"
    said = run_script(FULL_FOR_A_WHILE, str(path), "required")
    assert said == f"retrying PublisherError: cannot write to {path}: File too large\n"
    assert seqs(path) == list(range(1, 22))


def test_a_disk_that_is_full_for_a_while_leaves_one_gap_in_a_file_of_best_effort(tmp_path: Path) -> None:
    """It is retried with back-off, parked, and restored when there is room; the gap is at the place of the dropped events."""
    path = tmp_path / "e.tsv"
    said = run_script(FULL_FOR_A_WHILE, str(path), "best effort")
    assert said == f"parked PublisherError: cannot write to {path}: File too large\n"
    found = rows(path)
    (gap,) = (index for index, row in enumerate(found) if row[0] == "DISCORDER_GAP")
    assert found[gap][4] == "", "a record has no seq"
    data = json.loads(found[gap][6])
    assert (data["kind"], data["publisher"]) == ("publisher", "audit")
    assert "File too large" in data["cause"]
    before = [int(row[4]) for row in found[:gap]]
    after = [int(row[4]) for row in found[gap + 1 :]]
    missing = list(range(data["from_seq"], data["to_seq"] + 1))
    assert before + missing + after == list(range(1, 22)), "nothing is missing but what the gap tells of"
    assert len(after) == 5


async def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first, second = (DelimitedFileEventPublisher(tmp_path / "e.tsv", name="audit") for _ in range(2))
    await first.open()
    with pytest.raises(ConfigError, match=r"publishers\.audit\.path: another process or publisher appends to"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_file_that_cannot_be_opened_is_named_with_its_key(tmp_path: Path) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "missing" / "e.tsv", name="audit")
    with pytest.raises(UnusableFile, match=r"publishers\.audit\.path: cannot append to .*e\.tsv: No such file"):
        await publisher.open()


async def test_publish_says_what_is_wrong_and_recovers(tmp_path: Path, make_event: MakeEvent) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    publisher = DelimitedFileEventPublisher(folder / "e.tsv")
    await publisher.open()
    (folder / "e.tsv").unlink()
    folder.rmdir()
    with pytest.raises(PublisherError, match="cannot write to"):
        await publisher.publish([make_event(1)])
    folder.mkdir()
    await publisher.publish([make_event(1)])
    await publisher.close()
    assert seqs(folder / "e.tsv") == [1]


@pytest.mark.parametrize("fsync", ["batch", 2.0])
async def test_syncing_policies_accept_batches(
    tmp_path: Path, make_event: MakeEvent, fsync: float, clock: FakeClock
) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "e.tsv", fsync=fsync, rotate_bytes=100, clock=clock)
    await publisher.open()
    for seq in (1, 2):
        await publisher.publish([make_event(seq)])
        await clock.advance(3.0)
    await publisher.close()
    await asyncio.sleep(0)
    assert seqs(tmp_path / "e.tsv.1") + seqs(tmp_path / "e.tsv") == [1, 2]
    assert clock.next_due() is None


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", " "])
def test_a_delimiter_that_cannot_delimit_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ConfigError, match=r"delimiter: .* is no delimiter"):
        DelimitedFileEventPublisher(tmp_path / "e.tsv", delimiter)
