"""The tasks and deadlines of each state, and what enforces them, compared with a second copy that was written by hand."""

from __future__ import annotations

from discorder.statemachine import RUNS, State, Task
from discorder.statemachine.table import (
    CLOSINGS,
    DEADLINES,
    DIAL_SECONDS,
    FINAL,
    INITIAL,
    LIVE,
    READY_DEADLINE,
    STABLE_AFTER,
    WIRE,
    Name,
)
from discorder.statemachine.terms import Keeper

HANDSHAKE = {Task.MASTER, Task.PROCESSOR, Task.DOCTOR}
ALL = HANDSHAKE | {Task.HEARTBEAT}
HERE = "a state was added or changed; this test, in tests/statemachine/test_states.py,"


def test_each_state_runs_its_coroutines_and_no_others() -> None:
    """There is no heartbeat before Hello, and no task runs once a connection is given up."""
    assert dict(RUNS) == {
        State.DISCONNECTED: set(),
        State.CONNECTING: HANDSHAKE,
        State.IDENTIFYING: ALL,
        State.RESUMING: ALL,
        State.READY: ALL,
        State.UNHEALTHY: set(),
        State.RESTARTING: set(),
        State.STOPPING: set(),
        State.EXITED: set(),
    }, f"{HERE} has the tasks of each state by hand"


def test_the_deadlines_are_those_of_the_rules() -> None:
    """Hello 15 s, the slot 65 s, READY 60 s from IDENTIFY, 30 s without progress, 6 s to close, 0.5 s to stop."""
    assert {state: (deadline.seconds, deadline.extended_by_dispatch) for state, deadline in DEADLINES.items()} == {
        State.CONNECTING: (15.0, False),
        State.IDENTIFYING: (65.0, False),
        State.RESUMING: (30.0, True),
        State.UNHEALTHY: (6.0, False),
        State.STOPPING: (0.5, False),
    }, f"{HERE} has the deadlines by hand"
    assert (READY_DEADLINE.seconds, DIAL_SECONDS, STABLE_AFTER) == (60.0, 10.0, {State.READY: 120.0})


def test_a_deadline_is_kept_by_somebody_who_runs() -> None:
    """The driver enforces the deadline where the doctor may hang or has ended."""
    for state, deadline in DEADLINES.items():
        assert deadline.keeper is (Keeper.DOCTOR if state in LIVE else Keeper.DRIVER)
        assert deadline.keeper is Keeper.DRIVER or Task.DOCTOR in RUNS[state]


def test_the_socket_is_closed_within_a_second_and_at_a_stop_within_a_quarter_of_it() -> None:
    """A silent peer costs no more time. The verdict follows in Unhealthy, the end in Stopping."""
    assert {state: (closing.seconds, closing.then) for state, closing in CLOSINGS.items()} == {
        State.UNHEALTHY: (1.0, Name.DIAGNOSED),
        State.STOPPING: (0.25, Name.STOPPED),
    }


def test_a_live_state_is_one_in_which_the_socket_is_read() -> None:
    """The processor runs in exactly those states, and no task runs in the first and the last ones."""
    assert {state for state in State if Task.PROCESSOR in RUNS[state]} == LIVE
    assert RUNS[INITIAL] == RUNS[FINAL] == set()


def test_every_state_says_what_it_means() -> None:
    """The diagrams and the docs print it."""
    assert all(state.meaning for state in State)


def test_the_peer_causes_only_what_comes_from_the_wire() -> None:
    """Such a trigger in the wrong state is a breach of protocol; any other one would be a bug of ours."""
    assert set(WIRE) == {
        *(Name.HELLO, Name.RECONNECT, Name.INVALID_SESSION, Name.INVALID_RESUMABLE),
        *(Name.READY, Name.RESUMED, Name.CLOSED),
    }
