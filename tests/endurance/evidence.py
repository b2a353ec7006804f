"""Compare what was sent with what arrived, for every test that kills, drops or stalls something.

"In order" means, for each session by itself: within one life of the process the rows run on without a gap and without a
repetition, and a life begins at or below one past the newest row so far. So the first occurrences are the whole stream in its
order, and what comes twice is a replay that a kill has caused, never a reordering.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from discorder.records import PREFIX
from discorder.simulator import SentDocument
from discorder.wire import session_label


class Row(NamedTuple):
    """One line of a delimited file. ``session`` is a label; ``data`` the JSON of ``d``. ``seq`` 0: a record of the plane."""

    type: str
    session: str
    seq: int
    data: bytes

    @property
    def is_event(self) -> bool:
        """Whether it is an event of Discord's, and no record."""
        return not self.type.startswith(PREFIX)


@dataclass(slots=True)
class Account:
    """The verdict. ``missing`` and ``duplicates`` count events by the number of the life that began with them.

    ``faults``: sentences about what is neither missing nor a duplicate: out of order, altered, never sent.
    """

    missing: Counter[int] = field(default_factory=Counter)
    duplicates: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing is missing and nothing is out of order."""
        return not self.faults and not self.missing.total()


def compare(sent: Iterable[SentDocument], lives: Sequence[Sequence[Row]], *, disowned: Collection[str] = ()) -> Account:
    """Compare what arrived, life by life, with what was sent.

    ``disowned``: session ids of which nothing need have arrived: they were lost before READY was stored.
    """
    documents = {(session_label(document.session_id), document.seq): document for document in sent}
    account = Account()
    found: set[tuple[str, int]] = set()
    newest: dict[str, int] = {}
    for life, rows in enumerate(lives):
        last: dict[str, int] = {}
        for row in filter(lambda row: row.is_event, rows):
            key = row.session, row.seq
            _check_content(account, life, row, documents.get(key))
            _check_place(account, life, row, last.get(row.session), newest.get(row.session, 0))
            account.duplicates[life] += key in found
            found.add(key)
            last[row.session] = row.seq
            newest[row.session] = max(row.seq, newest.get(row.session, 0))
    unknown = {session_label(session) for session in disowned}
    tops = [_tops(rows) for rows in lives]
    for session, seq in documents.keys() - found:
        if session not in unknown:
            skipped = (life for life, top in enumerate(tops) if top.get(session, 0) > seq)
            account.missing[next(skipped, len(lives) - 1)] += 1
    return account


def _check_content(account: Account, life: int, row: Row, document: SentDocument | None) -> None:
    where = f"life {life}: {row.type} {row.session}/{row.seq}"
    if document is None:
        account.faults.append(f"{where} was never sent")
    elif (row.type, row.data) != (document.type, document.data):
        account.faults.append(f"{where} is not what was sent, which was a {document.type}")


def _check_place(account: Account, life: int, row: Row, last: int | None, newest: int) -> None:
    where = f"life {life}: {row.type} {row.session}/{row.seq}"
    if last is None and row.seq > newest + 1:
        account.faults.append(f"{where} comes first, and the newest so far is {newest}")
    elif last is not None and row.seq != last + 1:
        account.faults.append(f"{where} comes after {last}")


def _tops(rows: Sequence[Row]) -> dict[str, int]:
    """The highest number of each session in one life."""
    tops: dict[str, int] = {}
    for row in rows:
        tops[row.session] = max(row.seq, tops.get(row.session, 0))
    return tops


# ------------------------------------------------------------------------------------------------ files


def files_of(path: Path) -> list[Path]:
    """Return the file and its rotated parts, oldest first."""
    rotated = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()]
    rotated.sort(key=lambda file: int(file.suffix[1:]), reverse=True)
    return [*rotated, *([path] if path.exists() else [])]


def size_of(path: Path) -> int:
    """Return the bytes of all parts; while files are being renamed the number is a guess, and changes."""
    size = 0
    for file in files_of(path):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def count_lines(path: Path) -> int:
    """Count the whole lines, while nobody writes; a torn last line does not count."""
    return sum(file.read_bytes().count(b"\n") for file in files_of(path))


def read_rows(path: Path) -> list[Row]:
    """Return every row, while nobody writes. Raises ValueError for a line that is none, such as two that were spliced."""
    rows: list[Row] = []
    for file in files_of(path):
        with file.open(newline="", encoding="utf-8") as lines:
            for fields in csv.reader(lines, delimiter="\t"):
                if len(fields) != 7:
                    msg = f"{file.name}: a line of {len(fields)} fields after {rows[-1:]}"
                    raise ValueError(msg)
                kind, _, session, _, seq, _, data = fields
                rows.append(Row(kind, session, int(seq or 0), data.encode()))
    return rows


def split(rows: Sequence[Row], ends: Sequence[int]) -> list[Sequence[Row]]:
    """The rows by lives; ``ends``: how many there were at the end of each life but the last."""
    starts = [0, *ends]
    return [rows[start:end] for start, end in zip(starts, [*ends, len(rows)], strict=True)]
