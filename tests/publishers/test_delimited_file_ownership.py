"""Existing files: our own are continued, even after a crash; those of others are refused and not changed."""

from __future__ import annotations

import csv
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from discorder.errors import ConfigError, UnusableFile
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.wire import Event

MakeEvent = Callable[..., Event]

ROW = b'MESSAGE_CREATE\t2026-01-01T00:00:00.000000Z\t0123456789abcdef\t0/1\t1\t\t"{""id"":""1""}"\n'
OLD_ROW = b'MESSAGE_CREATE\t2026-01-01T00:00:00.000000Z\t0123456789abcdef\t0/1\t1\t"{""id"":""1""}"\n'
HEADER = b"type\ttimestamp\tsession\tshard\tseq\tprev\tdata\n"

FOREIGN = {
    "one line without an end": b"my password is hunter2",
    "one word": b"MESSAGE",
    "a word of the header": b"type",
    "a line break": b"\n",
    "text": b"alpha\nbeta\ngamma",
    "text that ends": b"alpha\nbeta\n",
    "another table": b"type\ttimestamp\tsession\n1\t2\t3\n",
    "another table of seven columns": b"a\tb\tc\td\te\tf\tg\n",
    "binary": bytes(range(256)) * 300,
    "long without a line": b"x" * 300_000,
    "a row of ours behind a line of others": b"# events\n" + ROW,
    "json lines": b'{"type":"MESSAGE_CREATE"}\n',
    "a log": b"2026-01-01 00:00:00.000+00:00 INFO     Opened the session store\n",
    "the end of a row": ROW[30:],
    "ours and then others": ROW + b"alpha\tbeta\tgamma",
    "no text at all": b"\x00" * 5_000,
}


def seqs(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[4] for row in csv.reader(file, delimiter="\t")]


async def append(path: Path, event: Event, **options: object) -> None:
    publisher = DelimitedFileEventPublisher(path, name="audit", **options)  # type: ignore[arg-type]
    await publisher.open()
    await publisher.publish([event])
    await publisher.close()


@pytest.mark.parametrize("by", ["name", "symbolic link", "hard link"])
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("header", [False, True])
async def test_what_somebody_else_wrote_is_refused_and_left_as_it_is(
    tmp_path: Path, make_event: MakeEvent, content: bytes, by: str, *, header: bool
) -> None:
    theirs = path = tmp_path / "theirs"
    theirs.write_bytes(content)
    if by != "name":
        path = tmp_path / "events.tsv"
        (path.symlink_to if by == "symbolic link" else path.hardlink_to)(theirs)
    with pytest.raises(
        UnusableFile, match=r"publishers\.audit\.path: cannot append to .*(not a file of this|not ours)"
    ):
        await append(path, make_event(2), header=header)
    assert theirs.read_bytes() == content


async def test_a_database_is_refused_and_left_as_it_is(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "sessions.db"
    with sqlite3.connect(path) as database:
        database.execute("create table t (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(UnusableFile, match="not a file of this publisher"):
        await append(path, make_event(1))
    assert path.read_bytes() == before


async def test_a_file_with_the_columns_of_an_earlier_version_says_so(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "events.tsv"
    for content in (OLD_ROW, OLD_ROW + OLD_ROW[:40], OLD_ROW[:-1]):
        path.write_bytes(content)
        with pytest.raises(UnusableFile, match=r"earlier version, without the column prev.*; move it away"):
            await append(path, make_event(2))
        assert path.read_bytes() == content


async def test_a_file_with_another_delimiter_is_refused(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "events.tsv"
    await append(path, make_event(1))
    with pytest.raises(UnusableFile, match="with ',' between them"):
        await append(path, make_event(2), delimiter=",")
    assert seqs(path) == ["1"]


@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|", "0", "A", "-", ":", "_", "/", "é", "\x1f"])
async def test_whatever_it_wrote_itself_it_goes_on_with(tmp_path: Path, make_event: MakeEvent, delimiter: str) -> None:
    path = tmp_path / "events.tsv"
    events = [
        make_event(1, kind="ODD,\t;NAME", data=b'{"a":"' + b"x" * 200_000 + b'"}', prev=0),
        make_event(2, data=b"null", session="0123456789abcdef-2"),
        make_event(3, kind="\ud83d", data='{"a":"é,;|\t\\u2028\u2028"}'.encode()),
        make_event(4, kind="", data=b"5"),
    ]
    for event in events:
        await append(tmp_path / f"{event.seq}.tsv", event, delimiter=delimiter)
        await append(tmp_path / f"{event.seq}.tsv", event, delimiter=delimiter)
        await append(path, event, delimiter=delimiter)
    with path.open(newline="", encoding="utf-8") as file:
        assert sum(1 for _ in csv.reader(file, delimiter=delimiter)) == 4
    assert path.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize("cut", [len(ROW) - 5, 100, 60, 1], ids=lambda cut: f"{cut} bytes short of a row")
@pytest.mark.parametrize("before", [ROW, HEADER, HEADER + ROW], ids=["row", "header", "header and row"])
async def test_a_torn_last_row_is_cut_off_and_comes_again(
    tmp_path: Path, make_event: MakeEvent, before: bytes, cut: int
) -> None:
    path = tmp_path / "events.tsv"
    long = make_event(2, data=b'{"content":"' + b"x" * 200 + b'"}')
    await append(tmp_path / "long.tsv", long)
    torn = (tmp_path / "long.tsv").read_bytes()[: -1 - cut]
    path.write_bytes(before + torn)
    await append(path, long)
    assert path.read_bytes() == before + (tmp_path / "long.tsv").read_bytes()


async def test_a_torn_only_row_is_cut_off_if_it_shows_whose_it_is(tmp_path: Path, make_event: MakeEvent) -> None:
    path = tmp_path / "events.tsv"
    path.write_bytes(ROW[:75])
    await append(path, make_event(2))
    assert seqs(path) == ["2"]


@pytest.mark.parametrize("length", [20, len(HEADER) - 1])
async def test_a_torn_header_is_written_again(tmp_path: Path, make_event: MakeEvent, length: int) -> None:
    path = tmp_path / "events.tsv"
    path.write_bytes(HEADER[:length])
    await append(path, make_event(2), header=True)
    assert seqs(path) == ["seq", "2"]


@pytest.mark.parametrize("before", [b"", ROW])
async def test_a_row_that_lacks_only_its_line_break_is_kept(
    tmp_path: Path, make_event: MakeEvent, before: bytes
) -> None:
    """An editor removed the line break. The event in that row was accepted."""
    path = tmp_path / "events.tsv"
    path.write_bytes(before + ROW[:-1])
    await append(path, make_event(2))
    assert path.read_bytes().startswith(before + ROW)
    assert seqs(path)[-1] == "2"


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket"])
async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make_event: MakeEvent, kind: str) -> None:
    path = tmp_path / "events.tsv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    with pytest.raises(UnusableFile, match=r"publishers\.audit\.path: cannot append to"):
        await append(path, make_event(1))


async def test_a_path_that_can_be_none_is_named_with_its_key(make_event: MakeEvent) -> None:
    with pytest.raises(ConfigError, match=r"publishers\.audit\.path: a path cannot hold a null character"):
        await append(Path("a\0b"), make_event(1))


async def test_a_file_of_somebody_else_that_takes_the_place_while_it_runs_is_left_as_it_is(
    tmp_path: Path, make_event: MakeEvent
) -> None:
    path = tmp_path / "events.tsv"
    publisher = DelimitedFileEventPublisher(path, name="audit")
    await publisher.open()
    await publisher.publish([make_event(1)])
    path.unlink()
    path.write_text("alpha\nbeta")
    for _ in range(2):
        with pytest.raises(UnusableFile, match="not a file of this publisher"):
            await publisher.publish([make_event(2)])
    assert path.read_text() == "alpha\nbeta"
    path.unlink()
    await publisher.publish([make_event(2)])
    await publisher.close()
    assert seqs(path) == ["2"]


async def test_two_publishers_of_one_process_do_not_share_a_file(tmp_path: Path, make_event: MakeEvent) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "events.tsv")
    first = DelimitedFileEventPublisher(tmp_path / "events.tsv")
    await first.open()
    with pytest.raises(ConfigError, match="another process or publisher"):
        await append(tmp_path / "link", make_event(1))
    await first.close()
