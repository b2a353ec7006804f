"""What belongs to each state, written down a second time and by hand: coroutines, deadlines, and who keeps them."""

from __future__ import annotations

from discorder.statemachine import RUNS, State, Task
from discorder.statemachine.table import (
    DEADLINES,
    DIAL_SECONDS,
    FINAL,
    INITIAL,
    LIVE,
    READY_DEADLINE,
    STABLE_SECONDS,
    WIRE,
    Name,
)
from discorder.statemachine.terms import Keeper

HANDSHAKE = {Task.MASTER, Task.PROCESSOR, Task.DOCTOR}
ALL = HANDSHAKE | {Task.HEARTBEAT}
HERE = "a state was added or changed; this test, in tests/statemachine/test_states.py,"


def test_each_state_runs_its_coroutines_and_no_others() -> None:
    """No heartbeat before Hello, nobody reads once a connection is given up, nothing outlives Unhealthy."""
    assert dict(RUNS) == {
        State.DISCONNECTED: set(),
        State.CONNECTING: HANDSHAKE,
        State.IDENTIFYING: ALL,
        State.RESUMING: ALL,
        State.READY: ALL,
        State.UNHEALTHY: {Task.MASTER, Task.DOCTOR},
        State.RESTARTING: set(),
        State.STOPPING: set(),
        State.EXITED: set(),
    }, f"{HERE} has the tasks of each state by hand"


def test_the_deadlines_are_those_of_the_rules() -> None:
    """Hello 15 s, the slot 65 s, READY 60 s from IDENTIFY, 30 s without progress, 6 s to close, 0.5 s to stop."""
    assert {state: deadline.seconds for state, deadline in DEADLINES.items()} == {
        State.CONNECTING: 15.0,
        State.IDENTIFYING: 65.0,
        State.RESUMING: 30.0,
        State.UNHEALTHY: 6.0,
        State.STOPPING: 0.5,
    }, f"{HERE} has the deadlines by hand"
    assert (READY_DEADLINE.seconds, DIAL_SECONDS, STABLE_SECONDS) == (60.0, 10.0, 120.0)


def test_a_deadline_is_kept_by_somebody_who_runs() -> None:
    """Where the doctor may hang, or is gone, the driver keeps the time."""
    for state, deadline in DEADLINES.items():
        assert deadline.keeper is (Keeper.DOCTOR if state in LIVE else Keeper.DRIVER)
        assert deadline.keeper is Keeper.DRIVER or Task.DOCTOR in RUNS[state]


def test_a_live_state_is_one_in_which_the_socket_is_read() -> None:
    """The processor runs in exactly those, and the ends of the life cycle run nothing."""
    assert {state for state in State if Task.PROCESSOR in RUNS[state]} == LIVE
    assert RUNS[INITIAL] == RUNS[FINAL] == set()


def test_every_state_says_what_it_means() -> None:
    """The pictures and the docs print it."""
    assert all(state.meaning for state in State)


def test_the_peer_causes_only_what_comes_from_the_wire() -> None:
    """One of these where it is rejected is a breach of protocol; the others would be a bug of ours."""
    assert set(WIRE) == {
        *(Name.HELLO, Name.RECONNECT, Name.INVALID_SESSION, Name.INVALID_RESUMABLE),
        *(Name.READY, Name.RESUMED, Name.CLOSED),
    }
