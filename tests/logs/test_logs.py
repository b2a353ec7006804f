"""The log: what a record looks like, what never gets into it, and that nobody else's logging is touched."""

from __future__ import annotations

import ast
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import discorder
from discorder.config import Log, LogFormat, LogLevel
from discorder.errors import UnusableFile
from discorder.logs import LogSetup, configure_logs, logger
from discorder.publishers.log import LogPublisher
from discorder.wire import Event

TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAw.GabcdE.abcdefghijklmnopqrstuvwxyz0123456789AB"
SECRET = 'hunter"2\\é'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bot.log"


@pytest.fixture
def text_log(path: Path) -> Iterator[LogSetup]:
    """A debug log in text, in ``path``."""
    with configure_logs(Log(level=LogLevel.DEBUG, file=str(path)), console=False, secrets=[SECRET]) as setup:
        yield setup


@pytest.fixture
def json_log(path: Path) -> Iterator[LogSetup]:
    """A debug log in JSON, in ``path``."""
    options = Log(level=LogLevel.DEBUG, file=str(path), format=LogFormat.JSON)
    with configure_logs(options, console=False, secrets=[SECRET]) as setup:
        yield setup


def documents(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def this_line() -> int:
    return sys._getframe(1).f_lineno  # noqa: SLF001 - the public name for "the line this is on" is longer than the test


def fail_with(secret: str) -> None:
    local = secret
    raise ValueError(f"refused: {local}")


def test_a_text_record_has_time_with_zone_level_message_fields_and_origin(path: Path, text_log: LogSetup) -> None:
    logger.info("Starting a new control plane", generation=3, mode="resume", url="ws://a b")
    line = this_line() - 1
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO     Starting a new control plane "
        rf'generation=3 mode=resume url="ws://a b" \[test_logs\.py:{line}\]\n',
        path.read_text(),
    )


def test_a_json_record_is_one_line_with_its_fields_as_keys(path: Path, json_log: LogSetup) -> None:
    logger.bind(shard=0).info(
        "Sleeping before restart", seconds=1.5, level="mine", odd=float("nan"), deep={"a": [1, None]}
    )
    [document] = documents(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", str(document.pop("time")))
    assert isinstance(document.pop("line"), int)
    assert document == {
        "level": "INFO",
        "message": "Sleeping before restart",
        "file": "test_logs.py",
        "shard": 0,
        "seconds": 1.5,
        "level_": "mine",
        "odd": "nan",
        "deep": {"a": [1, None]},
    }


def test_braces_tags_and_control_characters_in_values_do_no_harm(path: Path, json_log: LogSetup) -> None:
    value = "{} {0} {x!r} <red>%s\x1b[31m\n\u2028\ud800"
    logger.info("Stopped task", reason=value)
    logger.info(f"as text {value}")
    [first, second] = documents(path)
    assert str(first["reason"]).startswith("{} {0} {x!r} <red>%s")
    assert "\x1b" not in str(second["message"])


def test_a_text_record_without_a_traceback_is_one_line(path: Path, text_log: LogSetup) -> None:
    logger.info("a\nb\r\x1b[2J", reason="c\nd\x85", data={"k": "e\nf"})
    assert path.read_bytes().count(b"\n") == 1
    assert b"\x1b" not in path.read_bytes()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_value_that_cannot_be_printed_does_not_cost_the_record(path: Path, json_log: LogSetup) -> None:
    logger.info("Stopped task", value=_Unprintable(), number=10**5000)
    [document] = documents(path)
    assert document["value"] == "<_Unprintable without a text: RuntimeError>"


@pytest.mark.parametrize("secret", [SECRET, TOKEN, f"Bot {TOKEN}"])
@pytest.mark.parametrize("format_", list(LogFormat))
def test_a_secret_gets_into_no_part_of_a_record(path: Path, format_: LogFormat, secret: str) -> None:
    with configure_logs(Log(file=str(path), format=format_), console=False, secrets=[SECRET]):
        logger.info(f"message {secret}")
        logger.info("fields", plain=secret, quoted=[{"a": secret}], keyed={secret: 1}, error=ValueError(secret))
        logger.info("nested", represented=repr(secret), encoded=json.dumps({"token": secret}), raw=secret.encode())
        logging.getLogger("discorder.x").warning("stdlib %s", secret, extra={"field": secret})
        try:
            fail_with(secret)
        except ValueError as error:
            logger.opt(exception=error).error("Stopped task")
    written = path.read_text(encoding="utf-8")
    assert "Traceback" in written
    assert "local = secret" not in written
    for part in ("hunter", "2\\é", TOKEN, TOKEN[:24], TOKEN[-20:]):
        assert part not in written
    assert written.count("<token>") >= 9


def test_a_secret_learned_later_is_kept_out_of_every_open_log(tmp_path: Path) -> None:
    paths = [tmp_path / "a.log", tmp_path / "b.log"]
    with (
        configure_logs(Log(file=str(paths[0])), console=False),
        configure_logs(Log(file=str(paths[1])), console=False) as second,
    ):
        second.redact("late-secret")
        logger.info("Sending IDENTIFY", token="late-secret")
    assert all("<token>" in path.read_text() for path in paths)
    assert not any("late-secret" in path.read_text() for path in paths)


def test_an_exception_is_written_without_local_variables(path: Path, text_log: LogSetup) -> None:
    try:
        fail_with("visible")
    except ValueError as error:
        logger.opt(exception=error).error("Stopped task", name="processor")
    lines = path.read_text().splitlines()
    assert lines[0].endswith("]")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: refused: visible"


def test_the_file_is_appended_to_and_rotated_by_size(path: Path) -> None:
    path.write_text("before\n")
    options = Log(file=str(path), rotate_bytes=1000, keep=2)
    with configure_logs(options, console=False):
        logger.info("first")
        assert path.read_text().startswith("before\n")
        for number in range(60):
            logger.info("Sleeping before restart", number=number)
    assert sorted(file.name for file in path.parent.iterdir()) == ["bot.log", "bot.log.1", "bot.log.2"]
    assert all(file.stat().st_size <= 1000 for file in path.parent.iterdir())
    assert "number=59" in path.read_text()


def test_with_a_file_the_console_shows_info_and_above_only(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with configure_logs(Log(level=LogLevel.DEBUG, file=str(path)), console=True):
        logger.debug("quiet")
        logger.info("loud")
    shown = capsys.readouterr().err
    assert "loud" in shown
    assert "quiet" not in shown
    assert "quiet" in path.read_text()


def test_without_a_file_the_console_shows_what_the_level_says(capsys: pytest.CaptureFixture[str]) -> None:
    with configure_logs(Log(level=LogLevel.DEBUG), console=True):
        logger.debug("quiet")
    with configure_logs(Log(level=LogLevel.ERROR), console=True):
        logger.warning("dropped")
    shown = capsys.readouterr().err
    assert "quiet" in shown
    assert "dropped" not in shown


EVENT = Event("MESSAGE_CREATE", (0, 1), 42, 37, "0" * 16, datetime(2026, 1, 1, tzinfo=UTC), b'{"content":"{} secret"}')


def test_events_fill_the_file_and_stay_off_the_console(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the default level, as an operator expects who asks for them."""
    with configure_logs(Log(file=str(path)), console=True):
        LogPublisher().publish_nowait([EVENT])
        logger.info("Control plane started")
    assert "Control plane started" in (shown := capsys.readouterr().err)
    assert "MESSAGE_CREATE" not in shown
    line = path.read_text().splitlines()[0]
    assert (
        'INFO     MESSAGE_CREATE shard=0/1 seq=42 size=23 session=0000000000000000 data={"content":"{} secret"}' in line
    )


def test_without_a_file_events_are_shown_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    with configure_logs(Log(), console=True):
        LogPublisher().publish_nowait([EVENT])
    with configure_logs(Log(level=LogLevel.WARNING), console=True):
        LogPublisher().publish_nowait([EVENT])
    assert capsys.readouterr().err.count("MESSAGE_CREATE") == 1


def test_without_a_setup_and_after_it_nothing_is_written(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger.error("before")
    setup = configure_logs(Log(file=str(path)), console=True)
    setup.close()
    setup.close()
    logger.error("after")
    assert path.read_text() == ""
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "Is a directory"), ("none/x", "No such file"), ("file/x", "Not a directory"), ("a\0b", "null")],
)
def test_a_file_that_cannot_be_written_is_refused_with_path_reason_and_remedy(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    options = msgspec.structs.replace(Log(), file=f"{tmp_path}/{name}")
    with pytest.raises(UnusableFile, match=reason) as caught:
        configure_logs(options, console=True)
    assert str(tmp_path) in str(caught.value)
    assert "log.file" in str(caught.value)
    assert caught.value.exit_code == 74
    assert logging.getLogger("discorder").handlers == []


def test_a_full_disk_is_told_once_and_never_reaches_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    with configure_logs(Log(file="/dev/full"), console=False, secrets=["hunter2"]):
        for _ in range(3):
            logger.info("Sending IDENTIFY", token="hunter2")
    shown = capsys.readouterr().err
    assert shown.count("cannot be written") == 1
    assert "No space left" in shown
    assert "hunter2" not in shown


def test_standard_library_records_are_bridged_from_where_they_were_made(path: Path, json_log: LogSetup) -> None:
    logging.getLogger("discorder.publishers.x").debug("fill %d%% {}", 80, extra={"publisher": "zmq"})
    line = this_line() - 1
    logging.getLogger("aiohttp.client").info("too quiet")
    logging.getLogger("aiohttp.client").warning("unclosed")
    logging.getLogger("somebody.else").error("not ours")
    [ours, theirs] = documents(path)
    assert (ours["message"], ours["level"], ours["publisher"]) == ("fill 80% {}", "DEBUG", "zmq")
    assert (ours["file"], ours["line"]) == ("test_logs.py", line)
    assert theirs["message"] == "unclosed"


WRONG_ARGUMENTS = """
import logging
from discorder.config import Log
from discorder.logs import configure_logs
with configure_logs(Log(), console=True):
    logging.getLogger("discorder.x").warning("%d of", "three")
"""


def test_a_standard_library_record_with_the_wrong_arguments_is_still_written() -> None:
    done = subprocess.run([sys.executable, "-c", WRONG_ARGUMENTS], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1  # a process of its own: pytest's handler would raise first
    assert "%d of (" in done.stderr


def test_standard_library_loggers_are_given_back_when_the_last_setup_closes(tmp_path: Path) -> None:
    names = (None, "discorder", "aiohttp")

    def state() -> list[tuple[list[logging.Handler], int, bool]]:
        loggers = [logging.getLogger(name) for name in names]
        return [(list(each.handlers), each.level, each.propagate) for each in loggers]

    before = state()
    first = configure_logs(Log(file=str(tmp_path / "a.log")), console=False)
    second = configure_logs(Log(file=str(tmp_path / "b.log"), level=LogLevel.DEBUG), console=False)
    assert state()[0] == before[0]
    assert state()[1] != before[1]
    first.close()
    logging.getLogger("discorder.x").debug("only once")
    second.close()
    assert state() == before
    assert (tmp_path / "b.log").read_text().count("only once") == 1
    assert (tmp_path / "a.log").read_text() == ""


EMBEDDING = """
import sys, loguru
loguru.logger.remove()
loguru.logger.add(open(sys.argv[1], "w"), format="{message}")
loguru.logger.configure(patcher=lambda record: record.update(message="patched"))
from discorder.config import Log
from discorder.logs import configure_logs, logger
with configure_logs(Log(), console=True):
    logger.info("ours")
    loguru.logger.info("theirs")
loguru.logger.info("theirs")
"""


def test_the_loguru_sinks_of_an_embedding_program_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.log"
    done = subprocess.run([sys.executable, "-c", EMBEDDING, theirs], capture_output=True, text=True, check=True)
    assert theirs.read_text() == "patched\npatched\n"
    assert done.stderr.count("\n") == 1
    assert " ours " in done.stderr


LEVELS = {"trace", "debug", "info", "success", "warning", "error", "critical", "exception"}


def uses_private_logger(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "discorder.logs" for node in ast.walk(tree))


def test_every_log_text_with_fields_is_a_constant_without_braces() -> None:
    sources = [path for path in Path(discorder.__file__).parent.rglob("*.py") if path.name != "logs.py"]
    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not uses_private_logger(tree):
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and node.keywords
            ):
                text = node.args[0] if node.args else None
                constant = (
                    isinstance(text, ast.Constant) and isinstance(text.value, str) and not set("{}") & set(text.value)
                )
                assert constant, f"{path.name}:{node.lineno}"
