"""The search finds the shortest run that shows the fault of a damaged table. (That it finds none in the real one: tests/cli.)"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from discorder.proofs.compiled import Compiled
from discorder.proofs.liveness import LIVENESS
from discorder.proofs.model import THE_TABLE, Table, table_model
from discorder.proofs.properties import Property
from discorder.proofs.reports import proofs
from discorder.proofs.search import search
from discorder.proofs.transcript import transcript
from discorder.statemachine import State
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Action
from tests.proofs.conftest import row_of, without

if TYPE_CHECKING:
    from tests.proofs.conftest import Break


def violated(table: Table) -> tuple[Property, list[str]]:
    """Return the property that the search reports as violated."""
    model = table_model(table)
    wrong = search(model).counterexample
    assert wrong is not None
    return wrong.broken, list(transcript(Compiled(model), wrong.beginning, wrong.steps))


@pytest.mark.parametrize(
    ("source", "trigger", "action", "wrong"),
    [
        (State.IDENTIFYING, Name.STOP, Action.RELEASE_SLOT, Property.NO_TICKET_LOST),
        (State.IDENTIFYING, Name.CLOSED, Action.NOTE_CAUSE, Property.CAUSE_IS_RIGHT),
        (State.IDENTIFYING, Name.READY, Action.SAVE_SESSION, Property.NO_READY_LOST),
        (State.CONNECTING, Name.CONNECT_FAILED, Action.DEMOTE_HOST, Property.OTHER_HOST),
        (State.RESUMING, Name.INVALID_SESSION, Action.DROP_SESSION, Property.REFUSED_SESSION),
        (State.RESUMING, Name.CLOSED, Action.SUSPECT_SESSION, Property.SUSPICION),
        (State.RESUMING, Name.RESUMED, Action.TRUST_SESSION, Property.SUSPICION),
        (State.READY, Name.STABLE, Action.RESET_ATTEMPTS, Property.ENDS_FOR_A_REASON),
        (State.UNHEALTHY, Name.SLOT_REFUSED, Action.NOTE_UNTIL, Property.NOT_BEFORE_UNTIL),
        (State.UNHEALTHY, Name.SLOT_DEFERRED, Action.NOTE_UNTIL, Property.NOT_BEFORE_UNTIL),
        (State.IDENTIFYING, Name.SLOT_DEFERRED, Action.NOTE_UNTIL, Property.NOT_BEFORE_UNTIL),
        (State.IDENTIFYING, Name.SLOT_DEFERRED, Action.NOTE_PLANNED, Property.CAUSE_IS_RIGHT),
        (State.UNHEALTHY, Name.TIMEOUT, Action.ABORT_SOCKET, Property.VERDICT_AT_ONCE),
        (State.CONNECTING, Name.STOP, Action.NOTE_STOP, Property.GOODBYE_ENDS),
        (State.STOPPING, Name.STOPPED, Action.ABORT_SOCKET, Property.NOTHING_LEFT),
    ],
)
def test_a_dropped_action_is_noticed(
    broken: Break, source: State, trigger: Name, action: Action, wrong: Property
) -> None:
    """It violates the property for which the action exists."""
    table = broken(source, trigger, actions=without(row_of(source, trigger).actions, action))
    assert violated(table)[0] is wrong


@pytest.mark.parametrize(
    ("source", "trigger", "target", "wrong"),
    [
        (State.READY, Name.CLOSED, State.RESTARTING, Property.BACK_OFF),
        (State.CONNECTING, Name.HELLO, State.READY, Property.HANDSHAKE),
        (State.CONNECTING, Name.TIMEOUT, None, Property.END_IS_END),
        (State.READY, Name.ZOMBIE, None, Property.END_IS_END),
        (State.UNHEALTHY, Name.DIAGNOSED, State.EXITED, Property.ENDS_FOR_A_REASON),
    ],
)
def test_a_swapped_target_is_noticed(
    broken: Break, source: State, trigger: Name, target: State | None, wrong: Property
) -> None:
    """It violates the first property that the wrong target breaks."""
    assert violated(broken(source, trigger, target=target))[0] is wrong


def test_a_restart_that_is_never_due_is_a_dead_end() -> None:
    """Each state is valid by itself, but no step leaves it."""
    rows = [
        replace(row, actions=without(row.actions, Action.REARM_RESTART)) if row.trigger is Name.RESTART_DUE else row
        for row in THE_TABLE.rows
    ]
    assert violated(replace(THE_TABLE, rows=rows))[0] is Property.NO_DEAD_END


def test_the_counterexample_is_a_transcript(broken: Break) -> None:
    """It shows each step, with its actor and the changed variables, and is as short as possible."""
    table = broken(State.IDENTIFYING, Name.STOP, actions=(Action.NOTE_STOP,))
    _, lines = violated(table)
    assert "\n".join(lines) == (
        "   1  machine     start: open_socket\n"
        "                  Disconnected → Connecting; deadline: yes; socket: dialling; inbox: empty\n"
        "   2  gateway     the dial succeeds\n"
        "                  socket: open\n"
        "   3  gateway     Hello comes\n"
        "                  phase: greeted; inbox: hello\n"
        "   4  machine     hello: request_slot\n"
        "                  Connecting → Identifying; slot: asked; inbox: empty\n"
        "   5  operator    stop: note_stop\n"
        "                  Identifying → Stopping; closing: running; phase: silent; reader: ended"
    )


def test_a_table_that_is_statically_wrong_is_not_searched(broken: Break) -> None:
    """A failed layer of checks ends the run."""
    lines = list(proofs(LIVENESS, broken(State.READY, Name.CLOSED, target=State.READY)))
    assert [(line.sound, line.text) for line in lines] == [
        (False, "static    Ready x closed: a row leads to the state it comes from; to stay, write None")
    ]


def test_the_report_tells_the_property_and_the_run(broken: Break) -> None:
    """The report is in words, and says nothing is sound once one property fails."""
    lines = list(proofs(LIVENESS, broken(State.READY, Name.ZOMBIE, target=None)))
    assert lines[0].sound
    assert lines[1].text.startswith(
        "search    violated: what ends a connection leads out of the live states (END_IS_END in discorder/proofs/properties.py)"
    )
    assert "session = " in lines[2].text
    assert not any(line.sound for line in lines[1:])
    assert "no heartbeat is acknowledged" in "\n".join(line.text for line in lines)
