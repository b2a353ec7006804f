"""The verdict in Unhealthy, back-off and its ladders, and what comes too late. Each test is a transcript."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from discorder.statemachine import CauseKind, Facts, Session, ShardMachine, State
from discorder.statemachine.backoff import FLOOR, Window
from discorder.statemachine.commands import (
    AbortSocket,
    CloseSocket,
    Diagnose,
    Ignored,
    OpenSocket,
    Rejected,
    ReleaseSlot,
    ScheduleRestart,
    SlowDown,
)
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Task
from discorder.statemachine.triggers import (
    Closed,
    Congested,
    ConnectFailed,
    Diagnosed,
    Hello,
    IdentifySlot,
    InvalidResumable,
    InvalidSession,
    Ready,
    Reconnect,
    RestartDue,
    Resumed,
    SlotDeferred,
    SlotRefused,
    Stable,
    Start,
    Stop,
    Stopped,
    TaskFailed,
    Timeout,
    Trigger,
    Zombie,
)
from tests.statemachine.conftest import Playbook

if TYPE_CHECKING:
    from tests.statemachine.conftest import PlaybookMaker

SAVED = Session("saved", "wss://resume.example")
ERROR = OSError("it broke")
UNTIL = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
UP = (Hello(), Resumed())


def schedule(book: Playbook) -> ScheduleRestart:
    """The one `ScheduleRestart` that the last trigger asked for."""
    (wanted,) = [command for command in book.asked if isinstance(command, ScheduleRestart)]
    return wanted


def longest(book: Playbook) -> Window:
    """The windows of the last restart as one: it is due after the longest of the draws."""
    windows = schedule(book).windows
    return Window(max(window.low for window in windows), max(window.high for window in windows))


# -------------------------------------------------------------------------------------------------- the cause


def test_the_first_cause_decides(play: PlaybookMaker) -> None:
    """What follows the end of a connection does not change why it ended."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect())
    book.on(Closed(4004, ERROR)).asks(
        Ignored(State.UNHEALTHY, Name.CLOSED, "late: this connection is given up already")
    )
    book.on(TaskFailed(Task.DOCTOR, ERROR)).asks(AbortSocket(), Diagnose())
    assert book.machine.cause is not None
    assert (book.machine.cause.kind, book.machine.cause.trigger) == (CauseKind.PLANNED, Name.RECONNECT)
    book.on(Diagnosed()).then(State.RESTARTING)


def test_the_next_socket_clears_the_cause(play: PlaybookMaker) -> None:
    """A planned interruption does not excuse the failure after it."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), *UP, Reconnect(), Diagnosed(), RestartDue())
    assert book.machine.cause is None
    book.on(Zombie(ERROR), ConnectFailed(ERROR), Diagnosed()).then(State.EXITED)


def test_a_cause_carries_its_error(play: PlaybookMaker) -> None:
    """Under fail_on_error that very error is raised to the caller."""
    cause = play(session=SAVED).on(Start(), *UP, TaskFailed(Task.PROCESSOR, ERROR)).machine.cause
    assert cause is not None
    assert cause.error is ERROR
    assert cause.text == "task_failed: it broke"


@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
@pytest.mark.parametrize("fail_on_error", [False, True])
def test_a_fatal_code_ends_the_shard(play: PlaybookMaker, code: int, fail_on_error: bool) -> None:
    """No redial can mend the token or the layout."""
    book = play(fail_on_error=fail_on_error).on(Start(), Hello(), IdentifySlot(1), Closed(code, ERROR))
    book.on(Diagnosed()).asks(AbortSocket()).then(State.EXITED)


@pytest.mark.parametrize(
    "failure", [Zombie(ERROR), Closed(4000, ERROR), InvalidSession(ERROR), TaskFailed(Task.PROCESSOR, ERROR)]
)
def test_fail_on_error_ends_the_shard_on_a_failure(play: PlaybookMaker, failure: Trigger) -> None:
    """A developer sees the failure at once."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), *UP, failure, Diagnosed())
    book.asks(AbortSocket()).then(State.EXITED)


def test_without_fail_on_error_a_failure_restarts(play: PlaybookMaker) -> None:
    """It has to be asked for, and whoever asks the machine is told."""
    book = Playbook(ShardMachine()).on(Start(), ConnectFailed(ERROR), Diagnosed()).then(State.RESTARTING)
    assert not book.machine.fails_on_error
    assert play(fail_on_error=True).machine.fails_on_error


@pytest.mark.parametrize("asked", [Reconnect(), InvalidResumable(ERROR), Congested("audit")])
def test_fail_on_error_restarts_after_a_planned_interruption(play: PlaybookMaker, asked: Trigger) -> None:
    """Op 7, op 9 true and congestion are no failures."""
    play(session=SAVED, fail_on_error=True).on(Start(), *UP, asked, Diagnosed()).then(State.RESTARTING)


def test_fail_on_error_restarts_after_a_refused_resume(play: PlaybookMaker) -> None:
    """Op 9 false is an answer to RESUME, not a failure."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), Hello(), InvalidSession(ERROR), Diagnosed())
    book.then(State.RESTARTING)


# -------------------------------------------------------------------------------------------------- attempts


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_attempts_gives_up_at_that_failure(play: PlaybookMaker, limit: int) -> None:
    """N consecutive failures, not N + 1."""
    book = play(max_attempts=limit).on(Start())
    for _ in range(limit - 1):
        book.on(ConnectFailed(ERROR), Diagnosed()).then(State.RESTARTING).on(RestartDue())
    book.on(ConnectFailed(ERROR), Diagnosed()).asks(AbortSocket()).then(State.EXITED)


def test_zero_attempts_is_no_limit(play: PlaybookMaker) -> None:
    """0 never gives up."""
    book = play().on(Start())
    for _ in range(100):
        book.on(ConnectFailed(ERROR), Diagnosed()).then(State.RESTARTING).on(RestartDue())


def test_ready_alone_does_not_reset_attempts_but_stable_does(play: PlaybookMaker) -> None:
    """A server that flaps after READY uses the attempts up; one that holds gives them back."""
    book = play(session=SAVED, max_attempts=3).on(Start())
    for _ in range(2):
        book.on(*UP, Zombie(ERROR), Diagnosed(), RestartDue())
    assert book.machine.attempts == 2
    book.on(*UP, Stable())
    assert book.machine.attempts == 0
    book.on(Zombie(ERROR), Diagnosed()).then(State.RESTARTING)


def test_a_planned_interruption_is_no_attempt(play: PlaybookMaker) -> None:
    """Discord may ask for a new connection as often as it likes."""
    book = play(session=SAVED, max_attempts=1).on(Start())
    for _ in range(5):
        book.on(*UP, Reconnect(), Diagnosed()).then(State.RESTARTING).on(RestartDue())


# -------------------------------------------------------------------------------------------------- parked


def test_a_refused_slot_parks_the_shard(play: PlaybookMaker) -> None:
    """Without an idle socket, without counting, and not before the gate will talk again."""
    book = play(max_attempts=1).on(Start(), Hello())
    book.on(SlotRefused(UNTIL, ERROR)).asks(ReleaseSlot()).then(State.UNHEALTHY)
    book.on(Diagnosed()).asks(ScheduleRestart((FLOOR,), UNTIL)).then(State.RESTARTING)
    assert book.machine.attempts == 0


def test_a_parked_shard_keeps_its_until_while_it_waits(play: PlaybookMaker) -> None:
    """A restart that is due but may not happen does not forget the refusal; the next dial does."""
    book = play().on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed())
    book.on(RestartDue(), facts=Facts(may_open=False)).asks(ScheduleRestart((Window(0.25, 0.25),), UNTIL, again=True))
    book.on(RestartDue(), ConnectFailed(ERROR), Diagnosed())
    assert schedule(book).until is None


def test_a_refusal_that_was_under_way_still_counts(play: PlaybookMaker) -> None:
    """The connection ended first: the cause stays, the gate's word holds, and the later of two holds."""
    book = play().on(Start(), Hello(), Zombie(ERROR))
    book.on(SlotRefused(UNTIL, ERROR), SlotRefused(UNTIL - timedelta(hours=1), ERROR)).then(State.UNHEALTHY)
    book.on(Diagnosed())
    assert schedule(book).until == UNTIL
    assert book.machine.attempts == 1


def test_fail_on_error_ends_a_parked_shard(play: PlaybookMaker) -> None:
    """The developer is told that the budget is spent."""
    play(fail_on_error=True).on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed()).then(State.EXITED)


def test_a_shard_that_others_go_before_comes_back_for_its_turn(play: PlaybookMaker) -> None:
    """Even under fail_on_error, without climbing a ladder and without counting: nothing has failed."""
    book = play(fail_on_error=True, max_attempts=1)
    book.on(Start())
    for _ in range(3):
        book.on(Hello(), SlotDeferred(UNTIL, ERROR)).asks(ReleaseSlot()).then(State.UNHEALTHY)
        book.on(Diagnosed()).asks(ScheduleRestart((FLOOR, FLOOR), UNTIL)).then(State.RESTARTING)
        book.on(RestartDue()).then(State.CONNECTING)
    assert book.machine.attempts == 0


def test_a_deferral_that_was_under_way_still_counts(play: PlaybookMaker) -> None:
    """The connection ended first: that stays the cause, and nobody asks again before the gate's moment."""
    book = play().on(Start(), Hello(), Zombie(ERROR), SlotDeferred(UNTIL, ERROR), Diagnosed())
    assert schedule(book).until == UNTIL
    assert book.machine.attempts == 1


# -------------------------------------------------------------------------------------------------- back-off


def test_op_7_after_ready_costs_the_floor_only(play: PlaybookMaker) -> None:
    """However often: no rung is climbed."""
    book = play(session=SAVED).on(Start())
    for _ in range(5):
        book.on(*UP, Reconnect(), Diagnosed())
        assert longest(book) == FLOOR
        book.on(RestartDue())


def test_op_7_after_ready_costs_the_floor_only_whatever_the_wait_before_it(play: PlaybookMaker) -> None:
    """The wait of an earlier failure is not waited a second time."""
    book = play(session=SAVED).on(
        Start(), ConnectFailed(ERROR), Diagnosed(), RestartDue(), *UP, Reconnect(), Diagnosed()
    )
    assert longest(book) == FLOOR


def test_op_7_before_ready_climbs_although_an_earlier_connection_was_up(play: PlaybookMaker) -> None:
    """Each connection proves itself."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed(), RestartDue(), Reconnect(), Diagnosed())
    assert longest(book) == Window(0.25, 1.0)


@pytest.mark.parametrize("before", [(), (Hello(),)], ids=["Connecting", "Resuming"])
def test_op_7_before_ready_climbs_the_ladder(play: PlaybookMaker, before: tuple[Trigger, ...]) -> None:
    """A server that sends nobody on cannot make us spin."""
    book = play(session=SAVED).on(Start())
    highs = []
    for _ in range(4):
        book.on(*before, Reconnect(), Diagnosed())
        highs.append(longest(book).high)
        book.on(RestartDue())
    assert highs == [1.0, 2.0, 4.0, 8.0]


def test_op_7_before_a_late_ready_climbs_too(play: PlaybookMaker) -> None:
    """A READY that comes when the connection is given up does not make it one that was up."""
    book = play().on(Start(), Hello(), IdentifySlot(1), Reconnect(), Ready(SAVED), Diagnosed())
    assert longest(book) == Window(0.25, 1.0)


@pytest.mark.parametrize("asked", [InvalidResumable(ERROR), Congested("audit")])
def test_other_planned_interruptions_climb(play: PlaybookMaker, asked: Trigger) -> None:
    """The floor alone is for op 7."""
    book = play(session=SAVED).on(Start(), *UP, asked, Diagnosed(), RestartDue(), *UP, asked, Diagnosed())
    assert longest(book) == Window(0.25, 2.0)


@pytest.mark.parametrize(
    ("session", "highs"),
    [(SAVED, [1, 2, 4, 8, 16, 30, 30]), (None, [5, 10, 20, 40, 80, 160, 320, 600, 600])],
    ids=["resume", "identify"],
)
def test_failures_climb_the_ladder_to_its_cap(play: PlaybookMaker, session: Session | None, highs: list[float]) -> None:
    """Resume 1 to 30 s, identify 5 to 600 s, doubling, drawn from the floor up."""
    book = play(session=session).on(Start())
    for high in highs:
        book.on(ConnectFailed(ERROR), Diagnosed())
        assert longest(book) == Window(0.25, float(high))
        book.on(RestartDue())


def test_the_ladder_is_reset_by_stability_only(play: PlaybookMaker) -> None:
    """Ready alone proves nothing: a flapping server is met with ever longer waits."""
    book = play(session=SAVED).on(Start())
    for high in (1.0, 2.0, 4.0):
        book.on(*UP, Zombie(ERROR), Diagnosed())
        assert longest(book).high == high
        book.on(RestartDue())
    book.on(*UP, Stable(), Zombie(ERROR), Diagnosed())
    assert longest(book).high == 1.0


def test_the_two_ladders_are_climbed_apart(play: PlaybookMaker) -> None:
    """Resumes that fail do not make the first IDENTIFY wait for long, nor the other way round."""
    book = play(session=SAVED).on(Start())
    for _ in range(4):
        book.on(ConnectFailed(ERROR), Diagnosed(), RestartDue())
    book.on(Hello(), InvalidSession(ERROR), Diagnosed())
    assert longest(book).high == 5.0


@pytest.mark.parametrize("before", [(Hello(),), UP], ids=["as an answer", "out of the blue"])
def test_op_9_false_waits_one_to_five_seconds_at_least(play: PlaybookMaker, before: tuple[Trigger, ...]) -> None:
    """The wait of the older docs, on top of the ladder."""
    book = play(session=SAVED).on(Start(), *before, InvalidSession(ERROR), Diagnosed())
    assert Window(1.0, 5.0) in schedule(book).windows


def test_4008_slows_down_and_waits_five_seconds(play: PlaybookMaker) -> None:
    """Sends are halved for a minute, the session is kept."""
    book = play(session=SAVED).on(Start(), *UP, Closed(4008, ERROR)).asks(SlowDown(60.0))
    book.on(Diagnosed())
    assert longest(book).low == 5.0
    book.on(RestartDue()).asks(OpenSocket(2, SAVED.resume_url, resume=True))


# -------------------------------------------------------------------------------------------------- restarting, stopping


def test_never_two_sockets(play: PlaybookMaker) -> None:
    """A restart waits for the old socket, and drops it."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed())
    book.on(RestartDue(), facts=Facts(socket_closed=False)).then(State.RESTARTING)
    book.asks(AbortSocket(), ScheduleRestart((Window(0.25, 0.25),), None, again=True))
    book.on(RestartDue()).asks(OpenSocket(2, SAVED.resume_url, resume=True)).then(State.CONNECTING)


def test_a_doctor_that_hangs_does_not_hold_the_machine(play: PlaybookMaker) -> None:
    """Unhealthy's deadline drops the socket and asks for the verdict."""
    book = play(session=SAVED).on(Start(), *UP, Zombie(ERROR)).timeout()
    book.asks(AbortSocket(), Diagnose()).then(State.UNHEALTHY)
    book.on(Diagnosed()).then(State.RESTARTING)


def test_a_timeout_of_an_earlier_visit_is_ignored(play: PlaybookMaker) -> None:
    """The deadline of Connecting cannot end Resuming."""
    book = play(session=SAVED).on(Start())
    stale = book.machine.visit
    book.on(Hello(), Timeout(stale, ERROR)).then(State.RESUMING)
    book.asks(Ignored(State.RESUMING, Name.TIMEOUT, "armed for an earlier visit"))
    book.timeout().then(State.UNHEALTHY)


def test_an_old_deadline_does_not_hit_the_same_state_on_its_next_visit(play: PlaybookMaker) -> None:
    """A visit is one stay in a state, not the state."""
    book = play().on(Start())
    stale = book.machine.visit
    book.on(ConnectFailed(ERROR), Diagnosed(), RestartDue()).then(State.CONNECTING)
    book.on(Timeout(stale, ERROR)).then(State.CONNECTING)


def test_stop_before_the_first_dial_opens_nothing(play: PlaybookMaker) -> None:
    """Disconnected to Exited without a socket."""
    book = play().on(Stop()).asks(CloseSocket(4000)).then(State.STOPPING)
    book.on(Stopped()).asks(AbortSocket()).then(State.EXITED)


def test_a_close_that_hangs_does_not_hold_the_stop(play: PlaybookMaker) -> None:
    """Stopping's own deadline ends it."""
    play(session=SAVED).on(Start(), *UP, Stop()).timeout().asks(AbortSocket()).then(State.EXITED)


def test_stop_while_identifying_gives_the_slot_back(play: PlaybookMaker) -> None:
    """A ticket that was not used is refunded."""
    play().on(Start(), Hello(), Stop()).asks(CloseSocket(4000), ReleaseSlot()).then(State.STOPPING)


def test_stop_overtakes_a_restart(play: PlaybookMaker) -> None:
    """The timer that fires after stop opens nothing."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed(), Stop()).then(State.STOPPING)
    book.on(RestartDue()).asks(Ignored(State.STOPPING, Name.RESTART_DUE, "stop overtook the timer; asked already"))


def test_what_is_passed_over_is_counted_and_changes_nothing(play: PlaybookMaker) -> None:
    """Ignored and rejected triggers are reported by state and name."""
    book = play(session=SAVED).on(Start(), *UP)
    book.on(Hello()).asks(Rejected(State.READY, Name.HELLO, "the handshake is over"))
    book.on(Hello(), Start()).asks(Ignored(State.READY, Name.START, "already started")).then(State.READY)
    assert book.machine.unexpected == {(State.READY, Name.HELLO): 2, (State.READY, Name.START): 1}
    assert book.machine.cause is None
