"""The real table and damaged copies of it, each in the abstract environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from discorder.proofs.compiled import Compiled
from discorder.proofs.model import THE_TABLE, Table, TableModel, table_model
from discorder.statemachine import State
from discorder.statemachine.table import Name, Row
from discorder.statemachine.terms import Action

Break = Callable[..., Table]


@pytest.fixture(scope="session")
def model() -> TableModel:
    """Return the environment of the real table."""
    return table_model()


@pytest.fixture(scope="session")
def compiled(model: TableModel) -> Compiled:
    """Return the same, compiled for the search."""
    return Compiled(model)


@pytest.fixture
def broken() -> Break:
    """Return a copy of the table in which the row of a pair is different."""

    def change(source: State, trigger: Name, **changes: object) -> Table:
        row = next(row for row in THE_TABLE.rows if source in row.sources and row.trigger is trigger)
        instead = replace(row, **changes)  # type: ignore[arg-type]
        return replace(THE_TABLE, rows=[instead if other is row else other for other in THE_TABLE.rows])

    return change


def without(row_actions: tuple[Action, ...], action: Action) -> tuple[Action, ...]:
    """Return the actions without one of them."""
    return tuple(other for other in row_actions if other is not action)


def row_of(source: State, trigger: Name) -> Row:
    """Return the first row of a pair."""
    return next(row for row in THE_TABLE.rows if source in row.sources and row.trigger is trigger)
