"""Write the log: a private loguru logger, its console and file, and the bridge from standard-library records.

How to log above this layer (driver, control plane, rest, sessions, cli)::

    from discorder.logs import logger

    logger.info("Starting a new control plane", generation=3, mode="resume")
    logger.opt(exception=error).error("Stopped task", name="processor")

The text is a constant without braces, since loguru formats it with the keyword arguments (a test checks the sources for this;
braces in values are safe). For permanent fields use ``log = logger.bind(shard=0)``. Below this layer, use the standard
library's ``extra={"publisher": name}``.

A record has the time with its zone, level, text, fields as key=value (as keys in JSON), file and line of the caller. A
`Redactor` removes tokens from text, fields and tracebacks before any sink gets them; tracebacks never print local variables.
Without `configure_logs` nothing is written. A sink that fails never raises into the caller. The sinks, handlers and levels of
an embedding program stay untouched.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import loguru

from discorder.errors import UnusableFile
from discorder.logs.file import RotatedFile
from discorder.logs.format import JSON_FORMAT, TEXT_FORMAT, prepare_record
from discorder.paths import resolve_path
from discorder.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Logger, Record

EVENTS = "discorder.events"  # the standard-library logger of the log publisher

__all__ = ["LogOptions", "LogSetup", "configure_logs", "logger", "redact_everywhere"]


class LogOptions(Protocol):
    """The values of the ``[log]`` section that `configure_logs` reads."""

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
    """Create a logger that shares no sink, patcher or `disable` with an embedding program.

    loguru recommends a deep copy, which would copy the program's sinks and fail on an open file. So the copy gets a new core
    without sinks.
    """
    core = loguru.logger._core  # type: ignore[attr-defined]  # noqa: SLF001 - the stubs hide it; there is no public constructor
    return copy.deepcopy(loguru.logger, {id(core): type(core)()})


logger: Logger = _private_logger()


class LogSetup:
    """The sinks of one `configure_logs`. A context manager; `close` removes them and is idempotent."""

    def __init__(self, log: LogOptions, *, console: bool, secrets: Iterable[str]) -> None:
        self.level = log.level.upper()
        self.secrets = frozenset(secrets)
        self._console = console
        self._sinks: list[int] = []
        self._closed = False
        file = _open_file(log)
        _active.add(self)
        self._add_sinks(log, file)

    def redact(self, *secrets: str) -> None:
        """Redact these too. The token is known only after the log is open."""
        self.secrets |= set(secrets)
        _active.refresh()

    def apply(self, log: LogOptions) -> None:
        """Write as ``log`` says from now on; open the file again. Raises `UnusableFile`, with everything as it was.

        Does nothing after `close`.
        """
        if self._closed:
            return
        file = _open_file(log)
        before, self._sinks = self._sinks, []
        self.level = log.level.upper()
        self._add_sinks(log, file)
        for sink in before:
            logger.remove(sink)
        _active.refresh()

    def close(self) -> None:
        """Remove the sinks, close the file, and restore the standard-library loggers when no other setup is open."""
        if not self._closed:
            self._closed = True
            _active.remove(self)
            for sink in self._sinks:
                logger.remove(sink)

    def _add_sinks(self, log: LogOptions, file: RotatedFile | None) -> None:
        if file is not None:
            template = JSON_FORMAT if log.format == "json" else TEXT_FORMAT
            self._sinks.append(logger.add(file, level=self.level, format=template, backtrace=False, diagnose=False))
        if self._console and sys.stderr is not None:  # None: a process without a console
            level = "INFO" if file is not None and self.level == "DEBUG" else self.level
            self._sinks.append(
                logger.add(
                    _Console(sys.stderr),
                    level=level,
                    format=TEXT_FORMAT,
                    filter=None if file is None else _is_no_event,
                    backtrace=False,
                    diagnose=False,
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def configure_logs(log: LogOptions, *, console: bool, secrets: Iterable[str] = ()) -> LogSetup:
    """Open the sinks of ``[log]``, until the returned setup is closed.

    The console is the current ``sys.stderr``, coloured if it is a terminal. With a file, it shows only INFO and above, and no
    events. Several setups may be open (several control planes in one process): each has its own sinks, and each sink gets the
    records of all, without the secrets of all. Raises `UnusableFile`, with nothing opened, when the file cannot be written.
    """
    return LogSetup(log, console=console, secrets=secrets)


def redact_everywhere(secret: str) -> None:
    """Redact ``secret`` in the records of all setups, until the last one is closed: for a secret that is known below them."""
    _active.redact(secret)


def _is_no_event(record: Record) -> bool:
    return record["name"] != EVENTS


def _open_file(log: LogOptions) -> RotatedFile | None:
    if not log.file:
        return None
    try:
        return RotatedFile(resolve_path(log.file), log.rotate_bytes, log.keep, _report)
    except (OSError, ValueError) as error:  # ValueError: no path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "create the directory" if isinstance(error, FileNotFoundError) else "give a file that can be written"
        remedy += ', or set log.file to "" for the console alone'
        msg = f"log.file = {log.file!r}: the log cannot be written: {reason}; {remedy}"
        raise UnusableFile(Redactor()(msg)) from None


class _Console:
    """A stream that ignores its own write errors, since there is no other place to report them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        """Whether loguru may use colours."""
        return not self._stream.closed and self._stream.isatty()

    def write(self, message: str) -> None:
        try:
            self._stream.write(message)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            return


def _report(text: str) -> None:
    if sys.stderr is not None:
        _Console(sys.stderr).write(f"discorder: {text}\n")


class _Bridge(logging.Handler):
    """Passes standard-library records to `logger`, with their file and line."""

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
    """The open setups, and what they share: secrets, and the changes to standard-library loggers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._setups: list[LogSetup] = []
        self._secrets: set[str] = set()  # of no setup in particular
        self._redactor = Redactor()
        self._bridges = {"discorder": _Bridge(), "aiohttp": _Bridge(level=logging.WARNING)}
        self._before = (logging.NOTSET, True)  # level and propagation of the `discorder` logger

    def prepare(self, record: Record) -> None:
        """Prepare a record for all sinks. loguru calls this once per record."""
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
                self._secrets.clear()
                self._restore()
        self.refresh()

    def redact(self, secret: str) -> None:
        """Redact ``secret``, too."""
        with self._lock:
            self._secrets.add(secret)
        self.refresh()

    def refresh(self) -> None:
        """Recompute the secrets and the lowest level of all setups."""
        with self._lock:
            self._redactor = Redactor(self._secrets.union(*(setup.secrets for setup in self._setups)))
            if self._setups:
                levels = (logging.getLevelNamesMapping()[setup.level] for setup in self._setups)
                logging.getLogger("discorder").setLevel(min(levels))

    def _intercept(self) -> None:
        ours = logging.getLogger("discorder")
        self._before = (ours.level, ours.propagate)
        ours.propagate = False  # else the handlers of the root logger would get each record unredacted
        # aiohttp's records still reach the root: the program may use aiohttp too
        for (
            name,
            bridge,
        ) in self._bridges.items():
            logging.getLogger(name).addHandler(bridge)

    def _restore(self) -> None:
        for name, bridge in self._bridges.items():
            logging.getLogger(name).removeHandler(bridge)
        ours = logging.getLogger("discorder")
        ours.setLevel(self._before[0])
        ours.propagate = self._before[1]


_active = _Active()
logger.configure(patcher=_active.prepare)
