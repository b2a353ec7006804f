"""Build a `transitions.Machine` from the table. All shards of the process share it; each shard is a model (`machine.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transitions import Machine

from discorder.statemachine.table import ENTRY, EXIT, INITIAL, ROWS, Row, State
from discorder.statemachine.terms import Action


class TableError(Exception):
    """Signal that no row of the table is enabled for a trigger. `check.py` proves that this cannot happen."""


Actions = Mapping[State, tuple[Action, ...]]


def build_machine(rows: Sequence[Row], entry: Actions = ENTRY, exit: Actions = EXIT) -> Machine:  # noqa: A002  # the usual term
    """Build a `transitions.Machine` with these rows and actions only: no automatic transitions, no wildcards.

    An incomplete table does not raise here, so that `check.py` can report what is missing.
    """
    machine = Machine(
        model=None,
        states=[{"name": state, "on_enter": _names(entry, state), "on_exit": _names(exit, state)} for state in State],
        initial=INITIAL,
        send_event=True,
        auto_transitions=False,
        ignore_invalid_triggers=False,
        after_state_change="arm_deadline",
    )
    for row in rows:
        machine.add_transition(
            str(row.trigger),
            list(row.sources),
            row.target,
            conditions=[str(guard) for guard in row.when],
            unless=[str(guard) for guard in row.unless],
            before=[str(action) for action in row.actions],
        )
    return machine


def _names(actions: Actions, state: State) -> list[str]:
    return [str(action) for action in actions.get(state, ())]


LIFE_CYCLE = build_machine(ROWS)
"""The machine that all shards of the process share. A model costs a third of a separate machine."""
