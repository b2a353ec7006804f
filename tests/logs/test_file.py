"""The log file among other people: rotated by them or not at all, mounted, linked, readable by too many, or no file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from discorder.config import Log
from discorder.errors import UnusableFile
from discorder.logs import LogSetup, configure_logs, logger

FULL = 400  # bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plane.log"


def opened(path: Path | str, rotate_bytes: int = 0, keep: int = 2) -> LogSetup:
    return configure_logs(Log(file=str(path), rotate_bytes=rotate_bytes, keep=keep), console=False)


@pytest.fixture
def log(path: Path) -> Iterator[LogSetup]:
    with opened(path) as setup:
        yield setup


def say(*numbers: int) -> None:
    for number in numbers:
        logger.info("Record", number=number)


def numbers_in(*paths: Path) -> list[int]:
    text = "".join(path.read_text() for path in paths)
    return [int(part.split()[0]) for part in text.split("number=")[1:]]


@pytest.mark.usefixtures("log")
def test_a_file_that_logrotate_renames_is_followed(path: Path) -> None:
    say(1)
    path.rename(path.with_name("old"))
    say(2)
    path.rename(path.with_name("older"))
    path.touch(mode=0o644)  # as "create" does
    say(3)
    assert [numbers_in(path.with_name(name)) for name in ("old", "older", "plane.log")] == [[1], [2], [3]]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("log")
def test_a_file_that_is_copied_and_cut_goes_on_at_its_start(path: Path) -> None:
    say(1)
    os.truncate(path, 0)
    say(2)
    assert numbers_in(path) == [2]
    assert b"\0" not in path.read_bytes()


@pytest.mark.usefixtures("log")
def test_a_file_that_was_removed_is_made_anew(path: Path) -> None:
    say(1)
    path.unlink()
    say(2)
    assert numbers_in(path) == [2]


@pytest.mark.usefixtures("log")
def test_a_file_that_was_moved_and_cannot_be_made_anew_is_written_on(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is somebody else's: the records are in the old file, and it is said once."""
    say(1)
    path.rename(path.with_name("old"))
    path.mkdir()
    say(2, 3)
    assert numbers_in(path.with_name("old")) == [1, 2, 3]
    assert capsys.readouterr().err.count("cannot be made anew") == 1
    path.rmdir()
    say(4)
    assert numbers_in(path) == [4]


def test_a_full_file_becomes_the_first_of_those_that_are_kept(path: Path) -> None:
    with opened(path, FULL):
        say(*range(20))
    rotated = [path.with_name(f"{path.name}.{number}") for number in (2, 1)]
    assert sorted(path.parent.iterdir()) == sorted([path, *rotated])
    numbers = numbers_in(*rotated, path)
    assert numbers == list(range(numbers[0], 20))
    assert all(one.stat().st_size <= FULL and one.stat().st_mode & 0o777 == 0o640 for one in (path, *rotated))


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EROFS])
def test_a_file_that_cannot_be_renamed_keeps_every_record(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is mounted as a file, or stands in a folder of somebody else. The files that were kept so far stay as well."""
    kept = path.with_name("plane.log.1")
    kept.write_text("earlier")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as mounted, opened(path, FULL):
        mounted.setattr("os.rename", refuse)
        say(*range(40))
    assert numbers_in(path) == list(range(40))
    assert kept.read_text() == "earlier"
    assert capsys.readouterr().err.count("cannot be rotated") == 1


def test_a_file_that_can_be_renamed_again_is_rotated_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    with opened(path, FULL, keep=9):
        with monkeypatch.context() as mounted:
            mounted.setattr("os.rename", refuse)
            say(*range(8))
        say(*range(8, 20))
    assert path.stat().st_size <= FULL
    rotated = sorted(path.parent.glob("plane.log.*"), reverse=True)
    assert numbers_in(*rotated, path) == list(range(20))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_other_user_may_read_it(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(path):
            assert path.stat().st_mode & 0o777 == 0o640 & ~umask
    finally:
        os.umask(before)


def test_an_existing_file_is_taken_away_from_other_users(path: Path) -> None:
    path.touch(mode=0o666)
    path.chmod(0o666)
    with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket, os.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    """A FIFO without a reader would hang the start, one with a slow reader the loop."""
    path = tmp_path / "x"
    assert callable(make)
    make(path)
    with pytest.raises(UnusableFile, match=r"log\.file"):
        opened(path)


def test_a_fifo_with_a_reader_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(UnusableFile, match="no regular file"):
            opened(path)
    finally:
        os.close(reader)


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with opened("~/home.log"):
        say(1)
    assert numbers_in(tmp_path / "home.log") == [1]


def test_a_tilde_of_nobody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnusableFile, match="has no home directory"):
        configure_logs(msgspec.structs.replace(Log(), file="~nobody-of-this-name/x.log"), console=False)
    assert list(tmp_path.iterdir()) == []
