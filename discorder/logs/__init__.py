"""The log: a private loguru logger, its console and file, and the bridge from standard-library records.

How to log. Above this layer (driver, control plane, rest, sessions, cli)::

    from discorder.logs import logger

    logger.info("Starting a new control plane", generation=3, mode="resume")
    logger.opt(exception=error).error("Stopped task", name="processor")

The text is a constant without braces, the values are keyword arguments: loguru formats the text with them, so a brace in
the text would be taken for a place-holder (braces in values are safe; a test reads the sources for this). For fields that
stay, ``log = logger.bind(shard=0)``. Below this layer, fields are the standard library's ``extra={"publisher": name}``.

What is written: time with zone, level, text, fields as key=value (as keys in JSON), file and line of the caller. No record
gets out with a token in it: text, fields and tracebacks pass a `Redactor` before any sink sees them. Tracebacks never
print local variables. Without `configure_logs` nothing is written. A sink that fails never raises into the caller.

Must not: touch a sink, a handler or a level that belongs to the program that embeds us.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import loguru

from discorder.errors import UnusableFile
from discorder.logs.format import JSON_FORMAT, TEXT_FORMAT, prepare_record
from discorder.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Logger, Record

EVENTS = "discorder.events"  # the standard-library logger of the log publisher

__all__ = ["LogOptions", "LogSetup", "configure_logs", "logger"]


class LogOptions(Protocol):
    """What `configure_logs` reads of the ``[log]`` section."""

    @property
    def level(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def rotate_bytes(self) -> int: ...
    @property
    def keep(self) -> int: ...


def _private_logger() -> Logger:
    """A logger of our own, so that no sink, patcher or `disable` of an embedding program acts on us, nor ours on it.

    loguru's recipe is to deep-copy its logger. That would copy the program's sinks along, and fail on an open file: so the
    copy is told to use a fresh core, which has no sinks and is silent.
    """
    core = loguru.logger._core  # type: ignore[attr-defined]  # noqa: SLF001 - the stubs hide it; there is no public constructor
    return copy.deepcopy(loguru.logger, {id(core): type(core)()})


logger: Logger = _private_logger()


class LogSetup:
    """The sinks of one `configure_logs`. A context manager; `close` gives them back and is idempotent."""

    def __init__(self, level: str, secrets: Iterable[str]) -> None:
        self.level = level.upper()
        self.secrets = frozenset(secrets)
        self._sinks: list[int] = []
        self._closed = False

    def redact(self, *secrets: str) -> None:
        """Keep these out of the log too: the token is known only after the log is open."""
        self.secrets |= set(secrets)
        _active.refresh()

    def add_console(self, level: str, *, events: bool) -> None:
        """Write to what is ``sys.stderr`` now, coloured if it is a terminal; with ``events`` also what the bot receives."""
        if sys.stderr is not None:  # None: a process without a console
            console, wanted = _Console(sys.stderr), None if events else _is_no_event
            self._sinks.append(
                logger.add(console, level=level, format=TEXT_FORMAT, filter=wanted, backtrace=False, diagnose=False)
            )

    def add_file(self, file: RotatedFile, template: str) -> None:
        """Write to ``file``, which is closed with this setup."""
        self._sinks.append(logger.add(file, level=self.level, format=template, backtrace=False, diagnose=False))

    def close(self) -> None:
        """Remove the sinks, close the file, and give standard-library loggers back when no other setup is open."""
        if not self._closed:
            self._closed = True
            _active.remove(self)
            for sink in self._sinks:
                logger.remove(sink)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def configure_logs(log: LogOptions, *, console: bool, secrets: Iterable[str] = ()) -> LogSetup:
    """Open the sinks that ``[log]`` asks for, until the returned setup is closed.

    With a file, the console shows INFO and above only, and no events: those of a busy bot would bury everything else.
    Several setups may be open (several control planes in one process): each has its own sinks, each sink gets the records
    of all, and the secrets of all are kept out of each.
    Raises `UnusableFile`, with nothing opened, when the file cannot be written.
    """
    setup = LogSetup(log.level, secrets)
    file = _open_file(log) if log.file else None
    _active.add(setup)
    if file is not None:
        setup.add_file(file, JSON_FORMAT if log.format == "json" else TEXT_FORMAT)
    if console:
        level = "INFO" if file is not None and setup.level == "DEBUG" else setup.level
        setup.add_console(level, events=file is None)
    return setup


def _is_no_event(record: Record) -> bool:
    return record["name"] != EVENTS


def _open_file(log: LogOptions) -> RotatedFile:
    try:
        path = Path(log.file).expanduser()
        return RotatedFile(path, log.rotate_bytes, log.keep)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the path; RuntimeError: no home for ~
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "create the directory" if isinstance(error, FileNotFoundError) else "give a file that can be written"
        remedy += ', or set log.file to "" for the console alone'
        msg = f"log.file = {log.file!r}: the log cannot be written: {reason}; {remedy}"
        raise UnusableFile(Redactor()(msg)) from None


class RotatedFile(RotatingFileHandler):
    """A log file that is appended to; when full it becomes ``name.1``, and the oldest of ``keep`` goes.

    A write that fails (disk full, directory gone) loses the record, is told once on stderr, and again when it is over.
    """

    def __init__(self, path: Path, rotate_bytes: int, keep: int) -> None:
        super().__init__(path, maxBytes=rotate_bytes, backupCount=keep, encoding="utf-8", errors="backslashreplace")
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost = self._lost
        super().emit(record)
        if lost and self._lost == lost:
            self._lost = 0
            _tell(f"the log file {self.baseFilename} can be written again; {lost} records were lost")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the standard library's signature
        self._lost += 1
        if self._lost == 1:
            _tell(
                f"the log file {self.baseFilename} cannot be written: {sys.exc_info()[1]}; records are lost until it can"
            )

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            _tell(f"the log file {self.baseFilename} could not be closed cleanly: {error}")


class _Console:
    """A stream that swallows its own failure: a closed or broken console leaves nowhere to tell it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        """Asked by loguru to decide on colours."""
        return not self._stream.closed and self._stream.isatty()

    def write(self, message: str) -> None:
        try:
            self._stream.write(message)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            return


def _tell(text: str) -> None:
    if sys.stderr is not None:
        _Console(sys.stderr).write(f"discorder: {text}\n")


class _Bridge(logging.Handler):
    """Hands standard-library records to `logger`, as coming from where they came from."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError) as error:  # the caller's place-holders and arguments do not fit
            text = f"{record.msg} ({error})"
        level = record.levelname if record.levelname in _LEVELS else record.levelno
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        logger.opt(exception=exception).bind(origin=record).log(level, text)


_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class _Active:
    """The setups that are open, and what is shared among them: secrets, and the hold on standard-library loggers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._setups: list[LogSetup] = []
        self._redactor = Redactor()
        self._bridges = {"discorder": _Bridge(), "aiohttp": _Bridge(level=logging.WARNING)}
        self._before = (logging.NOTSET, True)  # level and propagation of the `discorder` logger

    def prepare(self, record: Record) -> None:
        """The patcher of `logger`: every record passes here once, before any sink."""
        prepare_record(record, self._redactor)

    def add(self, setup: LogSetup) -> None:
        with self._lock:
            if not self._setups:
                self._intercept()
            self._setups.append(setup)
        self.refresh()

    def remove(self, setup: LogSetup) -> None:
        with self._lock:
            self._setups.remove(setup)
            if not self._setups:
                self._restore()
        self.refresh()

    def refresh(self) -> None:
        """Recompute what follows from the setups: the secrets of all, and the lowest level of all."""
        with self._lock:
            self._redactor = Redactor(secret for setup in self._setups for secret in setup.secrets)
            if self._setups:
                levels = (logging.getLevelNamesMapping()[setup.level] for setup in self._setups)
                logging.getLogger("discorder").setLevel(min(levels))

    def _intercept(self) -> None:
        ours = logging.getLogger("discorder")
        self._before = (ours.level, ours.propagate)
        ours.propagate = False  # else each record would also reach the handlers of the root logger, token and all
        for name, bridge in self._bridges.items():  # aiohttp's go on to the root too: the program may use it itself
            logging.getLogger(name).addHandler(bridge)

    def _restore(self) -> None:
        for name, bridge in self._bridges.items():
            logging.getLogger(name).removeHandler(bridge)
        ours = logging.getLogger("discorder")
        ours.setLevel(self._before[0])
        ours.propagate = self._before[1]


_active = _Active()
logger.configure(patcher=_active.prepare)
