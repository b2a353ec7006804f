"""`transitions.Machine` built from the table. One for all shards of the process; a shard is a model on it (`machine.py`)."""

from __future__ import annotations

from transitions import Machine

from discorder.statemachine.table import INITIAL, ROWS, State


class TableError(Exception):
    """No row of the table was enabled where one should be: `check.py` proves that this cannot happen."""


def build_machine() -> Machine:
    """`transitions.Machine` with the rows of the table and nothing else: no automatic transitions, no wildcards."""
    machine = Machine(
        model=None,
        states=list(State),
        initial=INITIAL,
        send_event=True,
        auto_transitions=False,
        ignore_invalid_triggers=False,
        after_state_change="arm_deadline",
    )
    for row in ROWS:
        machine.add_transition(
            row.trigger.value,
            [source.name for source in row.sources],
            None if row.target is None else row.target.name,
            conditions=[guard.value for guard in row.when],
            unless=[guard.value for guard in row.unless],
            before=[action.value for action in row.actions],
        )
    return machine


LIFE_CYCLE = build_machine()
"""Shared by all shards of the process: a model costs a third of what a machine of its own would."""
