"""Read a recorded session into a `Recording`, and check each line."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard, cast, get_args

from discorder.errors import ClosedBy, RecordingError
from discorder.transport.recording import FORMAT, FORMAT_VERSION
from discorder.transport.redact import GATEWAY_HOST, split_url
from discorder.wire import MAX_SEQ

HEADER_BYTES = 4096  # the first line is far shorter
MAX_SHARDS = 100_000  # as in the configuration: no bot has as many
LONGEST_PAUSE = 26 * 3_600_000  # ms between two entries: a shard without an IDENTIFY budget is parked for a day at most
YEARS = (2015, 2100)  # allowed for a recording: from Discord's start to well below datetime's limit
DEFAULT_CREATED = "2026-01-01T00:00:00+00:00"  # of a recording without a date
REMEDY = "the recording is damaged: take it from a copy, or record the session again"
GATEWAY_URL = f"wss://{GATEWAY_HOST}/"  # what a replay dials as the main gateway

Shard = tuple[int, int]


class EntryKind(StrEnum):
    """Name the kinds of entries."""

    DIAL = "dial"  # the client dialled `url`
    OPEN = "open"  # the upgrade succeeded
    IN = "in"  # `text` came from the gateway
    OUT = "out"  # `text` was sent to it
    CLOSE = "close"  # the connection ended: `code`, `by`
    FAIL = "fail"  # before `open`: the dial failed; after it: a message could not be read. `error`, `by`
    END = "end"  # the recording ended, with or without open connections


@dataclass(frozen=True, slots=True)
class RecordingEntry:
    """Hold one line. ``t`` is milliseconds since the start of the recording; ``line`` counts from 1, the header's line."""

    line: int
    t: int
    kind: EntryKind
    text: str = ""
    url: str = ""
    code: int | None = None
    by: ClosedBy = "network"
    error: str = ""
    status: int | None = None

    @property
    def message(self) -> bytes:
        """Return ``text`` as the received bytes, even if they were not UTF-8."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def op(self) -> int | None:
        """Return the opcode of a message, None if it is not a gateway frame."""
        frame = decoded(self.text)
        op = frame.get("op") if isinstance(frame, dict) else None
        return op if is_int(op) else None


@dataclass(frozen=True, slots=True)
class RecordedConnection:
    """Hold one recorded connection, beginning with its dial."""

    number: int
    shard: Shard
    entries: tuple[RecordingEntry, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """Hold a recorded session; ``shards`` is 0 if nothing was dialled.

    ``created`` is aware, UTC. ``ended`` is the entry of its regular end, None if the recorder was killed.
    """

    path: Path
    shards: int
    created: datetime
    filler: bool
    connections: tuple[RecordedConnection, ...]
    ended: RecordingEntry | None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read ``path``. Raises `RecordingError` naming file, line and problem.

        Ignores an incomplete last line, which a crash leaves.
        """
        return _Reader(Path(path)).read()

    def of_shard(self, shard: Shard) -> tuple[RecordedConnection, ...]:
        """Return the connections of ``shard`` in the order of the dials."""
        return tuple(connection for connection in self.connections if connection.shard == shard)


def decoded(text: str) -> Any:
    """Decode ``text``; return it unchanged if it is not JSON or is nested too deeply for Python."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def is_recording(path: Path) -> bool:
    """Return whether ``path`` begins like a recorded session of any version. Raises `RecordingError` when it cannot be read."""
    try:
        _require_file(path)
        with path.open("rb") as file:
            beginning = file.readline(HEADER_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return FORMAT.encode() in beginning and beginning.startswith(b"{")


def _require_file(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file: reading a device or a pipe may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file")


def _unreadable(path: Path, error: OSError | ValueError) -> RecordingError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return RecordingError(f"{path}:1: cannot be read: {reason}; name a file that 'discorder serve --record FILE' wrote")


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 1
        self._entries: dict[tuple[Shard, int], list[RecordingEntry]] = {}
        self._ended: RecordingEntry | None = None

    def read(self) -> Recording:
        try:
            _require_file(self._path)
            lines = self._path.read_bytes().split(b"\n")
        except (OSError, ValueError) as error:
            raise _unreadable(self._path, error) from error
        torn = lines.pop()  # the text after the last newline: nothing, or part of a line
        if not lines:
            raise self._wrong("the file is empty" if not torn else "the header is incomplete")
        shards, created, filler = self._header(self._object(lines[0]))
        last = 0
        for number, line in enumerate(lines[1:], 2):
            self._line = number
            last = self._entry(self._object(line), last)
        connections = tuple(
            RecordedConnection(c, shard, tuple(entries)) for (shard, c), entries in self._entries.items()
        )
        return Recording(self._path, shards, created, filler, connections, self._ended)

    def _header(self, header: dict[str, object]) -> tuple[int, datetime, bool]:
        if header.get("format") != FORMAT:
            raise self._wrong(f'not a recorded session: "format" is {shown(header.get("format"))}, expected {FORMAT!r}')
        if header.get("version") != FORMAT_VERSION:
            raise self._wrong(
                f"version {shown(header.get('version'))} is not known here; this program reads {FORMAT_VERSION}"
            )
        shards, created = header.get("shards"), header.get("created") or DEFAULT_CREATED
        if not is_int(shards) or not 0 <= shards <= MAX_SHARDS:
            raise self._wrong(f'"shards" must be a number from 0 to {MAX_SHARDS}, not {shown(shards)}')
        return shards, self._moment(created), header.get("filler") is True

    def _moment(self, created: object) -> datetime:
        try:
            moment = datetime.fromisoformat(str(created)).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is None or not YEARS[0] <= moment.year <= YEARS[1]:
            raise self._wrong(f'"created" is {shown(created)}, expected a time such as "{DEFAULT_CREATED}"')
        return moment

    def _entry(self, line: dict[str, object], last: int) -> int:
        """Check and store one entry, and return its time."""
        if self._ended is not None:
            raise self._wrong('nothing may follow "end"')
        t = line.get("t")
        if not is_int(t) or t < 0:
            raise self._wrong(f'"t" must be milliseconds since the start, not {shown(t)}')
        if t < last:
            raise self._wrong(f'"t" goes back from {last} to {t}')
        if t > last + LONGEST_PAUSE:
            raise self._wrong(f'"t" goes from {last} to {shown(t)}, further than a session ever pauses')
        try:
            kind = EntryKind(str(line.get("k")))
        except ValueError:
            raise self._wrong(f'"k" is {shown(line.get("k"))}; allowed: {", ".join(EntryKind)}') from None
        if kind is EntryKind.END:
            self._ended = RecordingEntry(self._line, t, kind)
            return t
        self._keep(self._key(line), self._facts(kind, t, line))
        return t

    def _keep(self, key: tuple[Shard, int], entry: RecordingEntry) -> None:
        """Append the entry if it may follow the earlier ones of its connection."""
        entries = self._entries.setdefault(key, [])
        kinds = [earlier.kind for earlier in entries[:2]]
        if (entry.kind is EntryKind.DIAL) != (not entries):
            raise self._wrong(f'connection {key[1]} of shard {list(key[0])} must begin with one "dial"')
        if entries and entries[-1].kind in (EntryKind.CLOSE, EntryKind.FAIL):
            raise self._wrong(
                f"connection {key[1]} of shard {list(key[0])} has ended in line {entries[-1].line} already"
            )
        if entry.kind is EntryKind.OPEN and len(entries) != 1:
            raise self._wrong('"open" follows "dial"')
        if entry.kind in (EntryKind.IN, EntryKind.OUT, EntryKind.CLOSE) and kinds[1:] != [EntryKind.OPEN]:
            raise self._wrong(f'"{entry.kind}" before "open"')
        entries.append(entry)

    def _key(self, line: dict[str, object]) -> tuple[Shard, int]:
        shard, number = line.get("shard"), line.get("c")
        if not is_int(number):
            raise self._wrong(f'"c" must be the number of a connection, not {shown(number)}')
        match shard:
            case [index, count] if is_int(index) and is_int(count) and 0 <= index < count <= MAX_SHARDS:
                return (index, count), number
        raise self._wrong(f'"shard" must be [id, count], not {shown(shard)}')

    def _facts(self, kind: EntryKind, t: int, line: dict[str, object]) -> RecordingEntry:
        text, url, error = line.get("text", ""), line.get("url", ""), line.get("error", "")
        code, status, by = line.get("code"), line.get("status"), line.get("by", "network")
        if kind in (EntryKind.IN, EntryKind.OUT) and "text" not in line:
            raise self._wrong(f'"{kind}" needs "text"')
        if not (isinstance(text, str) and isinstance(url, str) and isinstance(error, str)):
            raise self._wrong('"text", "url" and "error" are strings')
        if not (code is None or is_int(code)) or not (status is None or is_int(status)):
            raise self._wrong('"code" and "status" are numbers or null')
        if code is not None and not 0 <= code < 2**16:
            raise self._wrong(f'"code" must be a close code, not {shown(code)}')
        if not (isinstance(by, str) and by in get_args(ClosedBy)):
            raise self._wrong(f'"by" is {shown(by)}; allowed: peer, us, network')
        entry = RecordingEntry(self._line, t, kind, text, url, code, cast("ClosedBy", by), error, status)
        self._check(entry)
        return entry

    def _check(self, entry: RecordingEntry) -> None:
        """Check the values that a replay reads."""
        try:
            _ = entry.message
        except UnicodeEncodeError:
            raise self._wrong('"text" holds half of a surrogate pair') from None
        if entry.kind is EntryKind.DIAL and entry.url:
            parts = split_url(entry.url)
            if parts is None or parts.scheme not in {"ws", "wss"} or not parts.hostname:
                raise self._wrong(f'"url" is {shown(entry.url)}, expected a ws or wss URL')

    def _object(self, line: bytes) -> dict[str, object]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self._wrong(f"not JSON: {str(error)[:200]}") from None
        except RecursionError:
            raise self._wrong("not an entry: nested too deeply") from None
        if not isinstance(value, dict):
            raise self._wrong("not a JSON object")
        return value

    def _wrong(self, what: str) -> RecordingError:
        return RecordingError(f"{self._path}:{self._line}: {what}; {REMEDY}")


def shown(value: object) -> str:
    """Return a value as text for a message, shortened."""
    text = ascii(value) if not is_int(value) or abs(value) < MAX_SEQ else "a number of many digits"
    return text if len(text) <= 60 else text[:60] + "…"


def is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
