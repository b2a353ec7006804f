"""Headers, and a rotation that fails: the events are appended to the current file."""

from __future__ import annotations

import csv
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherState
from discorder.wire import Event

MakeEvent = Callable[..., Event]

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text()
COLUMNS = ["type", "timestamp", "session", "shard", "seq", "prev", "data"]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t"))


def run_python(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def seqs(path: Path) -> list[str]:
    return [row[4] for row in rows(path)]


async def publish_each(publisher: DelimitedFileEventPublisher, make_event: MakeEvent, *numbers: int) -> None:
    for seq in numbers:
        await publisher.publish([make_event(seq)])


@contextmanager
def no_renaming(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[None]:
    """Make the system refuse to rename ``path``, as for a file that was mounted."""
    real = os.replace

    def refuse(source: str | Path, target: str | Path) -> None:
        if Path(source) == path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        patch.setattr(Path, "replace", refuse)
        yield


async def test_with_a_header_each_file_begins_with_the_names_of_the_columns(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    path = tmp_path / "events.tsv"
    publisher = DelimitedFileEventPublisher(path, header=True, rotate_bytes=150)
    await publisher.open()
    assert rows(path) == [COLUMNS]
    await publish_each(publisher, make_event, 1, 2)
    await publisher.close()
    await publisher.open()
    await publish_each(publisher, make_event, 3)
    path.write_bytes(b"")  # as logrotate does with copytruncate
    await publish_each(publisher, make_event, 4)
    await publisher.close()
    assert seqs(path.with_name("events.tsv.2")) == ["seq", "1"]
    assert seqs(path.with_name("events.tsv.1")) == ["seq", "2"]
    assert seqs(path) == ["seq", "4"]


async def test_a_batch_larger_than_a_file_rotates_no_file_that_holds_only_a_header(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    publisher = DelimitedFileEventPublisher(tmp_path / "events.tsv", header=True, rotate_bytes=10)
    await publisher.open()
    await publish_each(publisher, make_event, 1)
    await publisher.close()
    assert names_in(tmp_path) == ["events.tsv"]


@pytest.mark.parametrize("header", [True, False])
async def test_a_header_may_be_switched_on_or_off_between_two_starts(
    tmp_path: Path, make_event: MakeEvent, *, header: bool
) -> None:
    path = tmp_path / "events.tsv"
    for seq, has_header in ((1, header), (2, not header)):
        publisher = DelimitedFileEventPublisher(path, header=has_header)
        await publisher.open()
        await publish_each(publisher, make_event, seq)
        await publisher.close()
    assert seqs(path) == ["seq", "1", "2"][not header :]


async def test_a_rotation_that_fails_goes_on_in_the_old_file_says_so_and_is_tried_again(
    tmp_path: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "events.tsv"
    publisher = DelimitedFileEventPublisher(path, name="audit", rotate_bytes=200, keep=2)
    await publisher.open()
    await publish_each(publisher, make_event, *range(1, 7))
    before = {number: seqs(path.with_name(f"events.tsv.{number}")) for number in (1, 2)}
    with no_renaming(monkeypatch, path):
        await publish_each(publisher, make_event, *range(7, 12))
        held = [int(seq) for seq in seqs(path)]
        assert held[-5:] == list(range(7, 12))
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f"Publisher audit cannot rotate {path}" in warnings[0]
        assert "Device or resource busy" in warnings[0]
        assert "it goes on in that file and tries again at each batch" in warnings[0]
        assert 1 <= len(warnings) <= 3, "once, and once more for each file's worth that it has grown"
    kept = [seq for number in (2, 3) for seq in seqs(path.with_name(f"events.tsv.{number}"))]
    assert sorted(kept) == sorted(before[1] + before[2]), "nothing was pushed out by a rotation that failed"
    await publish_each(publisher, make_event, 12)
    await publisher.close()
    assert "Publisher audit rotates" in caplog.text
    assert seqs(path) == ["12"]
    assert [int(seq) for seq in seqs(path.with_name("events.tsv.1"))] == held
    assert names_in(tmp_path) == ["events.tsv", "events.tsv.1", "events.tsv.2"]


@pytest.mark.parametrize("number", [2, 3])
async def test_a_file_of_somebody_else_is_not_dropped_by_a_rotation(
    tmp_path: Path, make_event: MakeEvent, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """A file with the name of a rotated one is kept, even beyond the last number that we keep."""
    path = tmp_path / "events.tsv"
    theirs = path.with_name(f"events.tsv.{number}")
    publisher = DelimitedFileEventPublisher(path, rotate_bytes=1, keep=2)
    await publisher.open()
    await publish_each(publisher, make_event, 1, 2)
    theirs.write_text("alpha\nbeta\n")
    await publish_each(publisher, make_event, 3, 4)
    assert theirs.read_text() == "alpha\nbeta\n"
    assert f"{theirs} would have to be dropped, and is not a file of this publisher" in caplog.text
    theirs.unlink()
    await publish_each(publisher, make_event, 5, 6)
    await publisher.close()
    assert seqs(path) == ["6"]
    assert names_in(tmp_path) == ["events.tsv", "events.tsv.1", "events.tsv.2"]


async def test_when_no_new_file_can_be_made_the_old_one_gets_its_name_back(
    tmp_path: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.tsv"
    publisher = DelimitedFileEventPublisher(path, rotate_bytes=100)
    await publisher.open()
    await publish_each(publisher, make_event, 1)
    real = os.open

    def no_inode(name: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not Path(name).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(name, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_inode)
        await publish_each(publisher, make_event, 2, 3)
        assert seqs(path) == ["1", "2", "3"]
        assert names_in(tmp_path) == ["events.tsv"]
    await publish_each(publisher, make_event, 4)
    await publisher.close()
    assert (seqs(path.with_name("events.tsv.1")), seqs(path)) == (["1", "2", "3"], ["4"])


async def test_a_required_file_that_cannot_rotate_holds_up_nothing(
    tmp_path: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.tsv"
    clock = FakeClock()
    fan_out = FanOut(clock)
    publisher = DelimitedFileEventPublisher(path, name="audit", rotate_bytes=300, clock=clock)
    fan_out.add(publisher, DeliveryOptions(required=True, max_events=5))
    await fan_out.open()
    with no_renaming(monkeypatch, path):
        for seq in range(1, 31):
            fan_out.shard(0).hand_over([make_event(seq)])
            while fan_out.health[0].accepted < seq:
                await clock.advance(0.1)
    health = fan_out.health[0]
    assert seqs(path) == [str(seq) for seq in range(1, 31)]
    assert (health.state, health.failures) == (PublisherState.HEALTHY, 0)
    assert fan_out.shard(0).delivered("0123456789abcdef") == 30
    await fan_out.close()


async def test_the_documentation_names_the_columns_and_reads_the_file(tmp_path: Path, make_event: MakeEvent) -> None:
    section = DOCUMENTATION.partition("## The delimited file")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section.partition("<!--")[0], re.MULTILINE) == COLUMNS
    publisher = DelimitedFileEventPublisher(tmp_path / "events.tsv")
    await publisher.open()
    await publisher.publish(
        [make_event(1, data=b'{"id":"7","c":"' + b"x" * 200_000 + b'"}'), make_event(2, kind="READY")]
    )
    await publisher.close()
    (code,) = re.findall(r"<!-- run: file -->\n```python\n(.*?)```", section, re.DOTALL)
    assert run_python(code, tmp_path) == "1 7\n"
