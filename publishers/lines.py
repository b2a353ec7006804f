"""Events as lines of delimited text. Pure: no files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from discorder.wire import Event, format_timestamp

COLUMNS = ("type", "timestamp", "session", "shard", "seq", "data")


def encode_lines(events: Sequence[Event], delimiter: str) -> bytes:
    """One line per event in UTF-8, ended by ``\\n``; ``shard`` is id/count, as in ``0/1``. A record's ``seq`` is empty.

    Line breaks, which JSON allows in ``data`` only between its tokens, become spaces: no field ever spans lines, so that a torn
    last line can be told, and line tools work. Discord sends none.
    """
    text = io.StringIO(newline="")
    write = csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow
    for event in events:
        kind, data = _on_one_line(event.type), _on_one_line(event.data.decode())
        shard = f"{event.shard[0]}/{event.shard[1]}"
        write((kind, format_timestamp(event.received_at), event.session, shard, event.seq, data))
    return text.getvalue().encode()


def _on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")
