"""Make the tables of the commands."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table


def plain_table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """Return a table without lines, whose cells are text and not markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
