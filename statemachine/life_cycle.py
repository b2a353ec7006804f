"""`transitions.Machine` built from the table. One for all shards of the process; a shard is a model on it (`machine.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from transitions import Machine

from discorder.statemachine.table import INITIAL, ROWS, Row, State


class TableError(Exception):
    """No row of the table was enabled where one should be: `check.py` proves that this cannot happen."""


def build_machine(rows: Sequence[Row]) -> Machine:
    """`transitions.Machine` with ``rows`` and nothing else: no automatic transitions, no wildcards.

    It takes a table that is half-written, too: `check.py` says what is wrong with it, and could not if this raised.
    """
    machine = Machine(
        model=None,
        states=list(State),
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


LIFE_CYCLE = build_machine(ROWS)
"""Shared by all shards of the process: a model costs a third of what a machine of its own would."""
