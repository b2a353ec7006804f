"""Reading a recorded session back: a file becomes a `Recording`, checked line by line. Nothing here plays it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeGuard, cast, get_args

from discorder.errors import ClosedBy, RecordingError
from discorder.transport.recording import FORMAT, FORMAT_VERSION
from discorder.transport.redact import GATEWAY_HOST

HEADER_BYTES = 4096  # the first line is far shorter
GATEWAY_URL = f"wss://{GATEWAY_HOST}/"  # what a replay dials as the main gateway

Shard = tuple[int, int]


class Kind(StrEnum):
    """What an entry tells."""

    DIAL = "dial"  # the client dialled `url`
    OPEN = "open"  # the upgrade succeeded
    IN = "in"  # `text` came from the gateway
    OUT = "out"  # `text` was sent to it
    CLOSE = "close"  # the connection ended: `code`, `by`
    FAIL = "fail"  # before `open`: the dial failed; after it: what came could not be read. `error`, `by`
    END = "end"  # the recording was ended, whatever was open


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``t`` is milliseconds since the start of the recording; ``line`` counts from 1, the header's line."""

    line: int
    t: int
    kind: Kind
    text: str = ""
    url: str = ""
    code: int | None = None
    by: ClosedBy = "network"
    error: str = ""
    status: int | None = None

    @property
    def message(self) -> bytes:
        """``text`` as the bytes that were on the wire, even where those were no UTF-8."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def op(self) -> int | None:
        """The opcode of a message, None for what is no gateway frame."""
        try:
            frame = json.loads(self.text)
        except ValueError:
            return None
        return frame.get("op") if isinstance(frame, dict) else None


@dataclass(frozen=True, slots=True)
class Connection:
    """One recorded connection, from its dial on."""

    number: int
    shard: Shard
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded session; ``shards`` is 0 if nothing was dialled.

    ``ended`` is the entry of its regular end, None when the recorder was killed.
    """

    path: Path
    shards: int
    created: str
    filler: bool
    connections: tuple[Connection, ...]
    ended: Entry | None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read ``path``. Raises `RecordingError` naming file, line and what is wrong.

        A torn last line is what a crash leaves and is left out; anything else that is wrong is an error.
        """
        return _Reader(Path(path)).read()

    def of_shard(self, shard: Shard) -> tuple[Connection, ...]:
        """The connections of ``shard`` in the order of their dials."""
        return tuple(connection for connection in self.connections if connection.shard == shard)


def is_recording(path: Path) -> bool:
    """Whether ``path`` begins like a recorded session, of whatever version. Raises `RecordingError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            beginning = file.readline(HEADER_BYTES)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise RecordingError(msg) from error
    return FORMAT.encode() in beginning and beginning.startswith(b"{")


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 1
        self._entries: dict[tuple[Shard, int], list[Entry]] = {}
        self._ended: Entry | None = None

    def read(self) -> Recording:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except OSError as error:
            msg = f"the recording {self._path} cannot be read: {error.strerror}"
            raise RecordingError(msg) from error
        torn = lines.pop()  # what follows the last newline: nothing, or half a line
        if not lines:
            raise self._wrong("the file is empty" if not torn else "the header is incomplete")
        shards, created, filler = self._header(self._object(lines[0]))
        last = 0
        for number, line in enumerate(lines[1:], 2):
            self._line = number
            last = self._entry(self._object(line), last)
        connections = tuple(Connection(c, shard, tuple(entries)) for (shard, c), entries in self._entries.items())
        return Recording(self._path, shards, created, filler, connections, self._ended)

    def _header(self, header: dict[str, object]) -> tuple[int, str, bool]:
        if header.get("format") != FORMAT:
            raise self._wrong(f'not a recorded session: "format" is {header.get("format")!r}, expected {FORMAT!r}')
        if header.get("version") != FORMAT_VERSION:
            raise self._wrong(
                f"version {header.get('version')!r} is not known here; this program reads {FORMAT_VERSION}"
            )
        shards, created = header.get("shards"), header.get("created", "")
        if not _is_int(shards) or shards < 0:
            raise self._wrong(f'"shards" must be a number, not {shards!r}')
        return shards, str(created), header.get("filler") is True

    def _entry(self, line: dict[str, object], last: int) -> int:
        """Check and keep one entry; its time."""
        if self._ended is not None:
            raise self._wrong('nothing may follow "end"')
        t = line.get("t")
        if not _is_int(t) or t < 0:
            raise self._wrong(f'"t" must be milliseconds since the start, not {t!r}')
        if t < last:
            raise self._wrong(f'"t" goes back from {last} to {t}')
        try:
            kind = Kind(str(line.get("k")))
        except ValueError:
            raise self._wrong(f'"k" is {line.get("k")!r}; allowed: {", ".join(Kind)}') from None
        if kind is Kind.END:
            self._ended = Entry(self._line, t, kind)
            return t
        self._keep(self._key(line), self._facts(kind, t, line))
        return t

    def _keep(self, key: tuple[Shard, int], entry: Entry) -> None:
        """Append, if the entry may follow what the connection already has."""
        entries = self._entries.setdefault(key, [])
        kinds = [earlier.kind for earlier in entries[:2]]
        if (entry.kind is Kind.DIAL) != (not entries):
            raise self._wrong(f'connection {key[1]} of shard {list(key[0])} must begin with one "dial"')
        if entries and entries[-1].kind in (Kind.CLOSE, Kind.FAIL):
            raise self._wrong(
                f"connection {key[1]} of shard {list(key[0])} has ended in line {entries[-1].line} already"
            )
        if entry.kind is Kind.OPEN and len(entries) != 1:
            raise self._wrong('"open" follows "dial"')
        if entry.kind in (Kind.IN, Kind.OUT, Kind.CLOSE) and kinds[1:] != [Kind.OPEN]:
            raise self._wrong(f'"{entry.kind}" before "open"')
        entries.append(entry)

    def _key(self, line: dict[str, object]) -> tuple[Shard, int]:
        shard, number = line.get("shard"), line.get("c")
        if not _is_int(number):
            raise self._wrong(f'"c" must be the number of a connection, not {number!r}')
        match shard:
            case [int(index), int(count)] if 0 <= index < count:
                return (index, count), number
        raise self._wrong(f'"shard" must be [id, count], not {shard!r}')

    def _facts(self, kind: Kind, t: int, line: dict[str, object]) -> Entry:
        text, url, error = line.get("text", ""), line.get("url", ""), line.get("error", "")
        code, status, by = line.get("code"), line.get("status"), line.get("by", "network")
        if kind in (Kind.IN, Kind.OUT) and "text" not in line:
            raise self._wrong(f'"{kind}" needs "text"')
        if not (isinstance(text, str) and isinstance(url, str) and isinstance(error, str)):
            raise self._wrong('"text", "url" and "error" are strings')
        if not (code is None or _is_int(code)) or not (status is None or _is_int(status)):
            raise self._wrong('"code" and "status" are numbers or null')
        if by not in get_args(ClosedBy):
            raise self._wrong(f'"by" is {by!r}; allowed: peer, us, network')
        return Entry(self._line, t, kind, text, url, code, cast("ClosedBy", by), error, status)

    def _object(self, line: bytes) -> dict[str, object]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self._wrong(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise self._wrong("not a JSON object")
        return value

    def _wrong(self, what: str) -> RecordingError:
        return RecordingError(f"{self._path}:{self._line}: {what}")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
