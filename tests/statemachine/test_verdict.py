"""The verdict in Unhealthy, the back-off ladders, and late triggers. Each test is a transcript."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from discorder.statemachine import CauseKind, Ended, EndKind, Facts, Session, ShardMachine, State
from discorder.statemachine.backoff import FLOOR, Window
from discorder.statemachine.commands import (
    AbortSocket,
    CloseSocket,
    Diagnose,
    End,
    Ignored,
    OpenSocket,
    Rejected,
    ReleaseSlot,
    ReportBreach,
    ScheduleRestart,
    ShutOutbox,
    SlowDown,
)
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Task
from discorder.statemachine.triggers import (
    Breach,
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
ON_REQUEST = End(Ended(EndKind.ON_REQUEST))


def schedule(book: Playbook) -> ScheduleRestart:
    """Return the one `ScheduleRestart` that the last trigger gave."""
    (wanted,) = [command for command in book.asked if isinstance(command, ScheduleRestart)]
    return wanted


def longest(book: Playbook) -> Window:
    """Return the windows of the last restart as one: the longest draw decides."""
    windows = schedule(book).windows
    return Window(max(window.low for window in windows), max(window.high for window in windows))


# -------------------------------------------------------------------------------------------------- the cause


def test_the_first_cause_decides(play: PlaybookMaker) -> None:
    """Later failures of a connection do not change why it ended."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect())
    book.on(Closed(4004, ERROR)).asks(
        Ignored(State.UNHEALTHY, Name.CLOSED, "late: this connection is given up already")
    )
    book.on(TaskFailed(Task.DOCTOR, ERROR)).then(State.UNHEALTHY)
    assert book.machine.cause is not None
    assert (book.machine.cause.kind, book.machine.cause.trigger) == (CauseKind.PLANNED, Name.RECONNECT)
    book.on(Diagnosed()).then(State.RESTARTING)


def test_the_next_socket_clears_the_cause(play: PlaybookMaker) -> None:
    """A planned interruption does not excuse the next failure."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), *UP, Reconnect(), Diagnosed(), RestartDue())
    assert book.machine.cause is None
    book.on(Hello(), Resumed(), Zombie(ERROR), ConnectFailed(ERROR), Diagnosed()).then(State.EXITED)


HOST_FAILURES = [
    pytest.param((ConnectFailed(ERROR),), id="refused"),
    pytest.param((Closed(None, ERROR),), id="closed before Hello"),
    pytest.param((Breach(ERROR),), id="nonsense before Hello"),
    pytest.param((Hello(), Closed(4000, ERROR)), id="closed instead of RESUMED"),
    pytest.param((Hello(), Breach(ERROR)), id="no answer to RESUME but nonsense"),
    pytest.param((Hello(), TaskFailed(Task.PROCESSOR, ERROR)), id="nonsense instead of RESUMED"),
]


@pytest.mark.parametrize("failed", HOST_FAILURES)
def test_a_resume_host_that_fails_is_no_failure_before_the_main_host_had_its_turn(
    play: PlaybookMaker, failed: tuple[Trigger, ...]
) -> None:
    """Otherwise a resume host that is gone would end each start under fail_on_error. A failure of the main host ends it."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), *failed, Diagnosed()).then(State.RESTARTING)
    assert book.machine.cause is not None
    assert "the main host is next" in book.machine.cause.text
    book.on(RestartDue()).asks(OpenSocket(2, "")).resumable(yes=True)
    book.on(*failed, Diagnosed()).then(State.EXITED)


def test_a_resume_host_in_the_main_hosts_place_leaves_the_main_host_its_turn(play: PlaybookMaker) -> None:
    """The main host was unknown, so it was not tried; the next dial is meant for it again."""
    substituted = Facts(substituted=True)
    book = play(session=SAVED, fail_on_error=True).on(Start(), ConnectFailed(ERROR), Diagnosed(), RestartDue())
    book.on(ConnectFailed(ERROR), facts=substituted).on(Diagnosed()).then(State.RESTARTING)
    book.on(RestartDue()).asks(OpenSocket(3, "")).resumable(yes=True)
    book.on(ConnectFailed(ERROR), Diagnosed()).then(State.EXITED)


def test_a_substitute_after_the_main_host_had_its_turn_is_a_failure(play: PlaybookMaker) -> None:
    again = (Diagnosed(), RestartDue())
    book = play(session=SAVED, max_attempts=3).on(Start(), ConnectFailed(ERROR), *again)
    book.on(ConnectFailed(ERROR), *again).on(ConnectFailed(ERROR), *again)
    assert book.machine.attempts == 2
    book.on(ConnectFailed(ERROR), facts=Facts(substituted=True)).on(Diagnosed()).then(State.EXITED)


def test_max_attempts_after_ready_leaves_the_main_host_its_turn(play: PlaybookMaker) -> None:
    """The lost connection is the first failure and the main host's the second; the resume host's does not count."""
    again = (Diagnosed(), RestartDue())
    book = play(session=SAVED, max_attempts=2).on(Start(), *UP, Closed(None, ERROR), *again)
    book.on(ConnectFailed(ERROR), *again).asks(OpenSocket(3, "")).resumable(yes=True)
    book.on(ConnectFailed(ERROR), Diagnosed()).then(State.EXITED)


def test_a_resume_host_fails_for_free_once(play: PlaybookMaker) -> None:
    """After both hosts have failed, each failure counts, whatever the host, until Ready was stable."""
    again = (Diagnosed(), RestartDue())
    book = play(session=SAVED, max_attempts=3).on(Start(), ConnectFailed(ERROR), *again)
    assert book.machine.attempts == 0
    book.on(ConnectFailed(ERROR), *again)
    assert book.machine.attempts == 1
    book.on(ConnectFailed(ERROR), *again)
    assert book.machine.attempts == 2
    book.on(*UP, Stable(), Closed(None, ERROR), *again)
    book.on(ConnectFailed(ERROR), *again)
    assert book.machine.attempts == 1


@pytest.mark.parametrize("code", [4004, 4014])
def test_a_fatal_close_of_a_resume_host_is_fatal(play: PlaybookMaker, code: int) -> None:
    """The code is about the token or the intents, not about the host."""
    play(session=SAVED).on(Start(), Hello(), Closed(code, ERROR), Diagnosed()).then(State.EXITED)


def test_a_pause_that_a_host_asks_for_is_waited_out(play: PlaybookMaker) -> None:
    """The shard waits at least that long, whatever the ladder draws."""
    book = play().on(Start(), ConnectFailed(ERROR, 60.0, of_address=True), Diagnosed())
    assert Window(60.25, 60.75) in schedule(book).windows


def test_a_pause_of_the_resume_host_holds_up_the_main_host_where_it_concerns_our_address(play: PlaybookMaker) -> None:
    """HTTP 429 concerns our address; HTTP 503 is about that host alone."""
    book = play(session=SAVED).on(Start(), ConnectFailed(ERROR, 60.0, of_address=True), Diagnosed())
    assert Window(60.25, 60.75) in schedule(book).windows
    book = play(session=SAVED).on(Start(), ConnectFailed(ERROR, 60.0), Diagnosed())
    assert max(window.high for window in schedule(book).windows) <= 1.0


def test_a_cause_carries_its_error(play: PlaybookMaker) -> None:
    """Under fail_on_error the caller gets that error."""
    cause = play(session=SAVED).on(Start(), *UP, TaskFailed(Task.PROCESSOR, ERROR)).machine.cause
    assert cause is not None
    assert cause.error is ERROR
    assert cause.text == "task_failed: it broke"


@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
@pytest.mark.parametrize("fail_on_error", [False, True])
def test_a_fatal_code_ends_the_shard(play: PlaybookMaker, code: int, fail_on_error: bool) -> None:
    """Redialling does not fix the token or the layout."""
    book = play(fail_on_error=fail_on_error).on(Start(), Hello(), IdentifySlot(), Closed(code, ERROR))
    book.on(Diagnosed()).asks(AbortSocket(), End(Ended(EndKind.FATAL, ERROR, 1))).then(State.EXITED)


@pytest.mark.parametrize(
    "failure",
    [Zombie(ERROR), Closed(4000, ERROR), InvalidSession(ERROR), TaskFailed(Task.PROCESSOR, ERROR), Breach(ERROR)],
)
def test_fail_on_error_ends_the_shard_on_a_failure(play: PlaybookMaker, failure: Trigger) -> None:
    """The developer gets the failure at once."""
    book = play(session=SAVED, fail_on_error=True).on(Start(), *UP, failure, Diagnosed())
    book.asks(AbortSocket(), End(Ended(EndKind.FAILURE, ERROR, 1))).then(State.EXITED)


def test_without_fail_on_error_a_failure_restarts(play: PlaybookMaker) -> None:
    """fail_on_error is off by default, and the machine shows whether it is set."""
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
    """The limit is N consecutive failures, not N + 1."""
    book = play(max_attempts=limit).on(Start())
    for _ in range(limit - 1):
        book.on(ConnectFailed(ERROR), Diagnosed()).then(State.RESTARTING).on(RestartDue())
    book.on(ConnectFailed(ERROR), Diagnosed()).then(State.EXITED)
    book.asks(AbortSocket(), End(Ended(EndKind.EXHAUSTED, ERROR, limit)))


def test_zero_attempts_is_no_limit(play: PlaybookMaker) -> None:
    """0 means no limit."""
    book = play().on(Start())
    for _ in range(100):
        book.on(ConnectFailed(ERROR), Diagnosed()).then(State.RESTARTING).on(RestartDue())


def test_ready_alone_does_not_reset_attempts_but_stable_does(play: PlaybookMaker) -> None:
    """A server that drops each session after READY uses up the attempts; stability resets them."""
    book = play(session=SAVED, max_attempts=3).on(Start())
    for _ in range(2):
        book.on(*UP, Zombie(ERROR), Diagnosed(), RestartDue())
    assert book.machine.attempts == 2
    book.on(*UP, Stable())
    assert book.machine.attempts == 0
    book.on(Zombie(ERROR), Diagnosed()).then(State.RESTARTING)


def test_a_planned_interruption_is_no_attempt(play: PlaybookMaker) -> None:
    """Discord may request a new connection any number of times."""
    book = play(session=SAVED, max_attempts=1).on(Start())
    for _ in range(5):
        book.on(*UP, Reconnect(), Diagnosed()).then(State.RESTARTING).on(RestartDue())


# -------------------------------------------------------------------------------------------------- parked


def test_a_refused_slot_parks_the_shard(play: PlaybookMaker) -> None:
    """A parked shard has no socket, counts no failure, and waits until the moment that the gate named."""
    book = play(max_attempts=1).on(Start(), Hello())
    book.on(SlotRefused(UNTIL, ERROR)).asks(ReleaseSlot()).then(State.UNHEALTHY)
    book.on(Diagnosed()).asks(ScheduleRestart((FLOOR,), UNTIL)).then(State.RESTARTING)
    assert book.machine.attempts == 0


def test_a_parked_shard_keeps_its_until_while_it_waits(play: PlaybookMaker) -> None:
    """A restart that is due but not allowed keeps the refusal; the next dial clears it."""
    book = play().on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed())
    book.on(RestartDue(), facts=Facts(may_open=False)).asks(ScheduleRestart((Window(0.25, 0.25),), UNTIL, again=True))
    book.on(RestartDue(), ConnectFailed(ERROR), Diagnosed())
    assert schedule(book).until is None


def test_a_refusal_that_was_under_way_still_counts(play: PlaybookMaker) -> None:
    """The connection ended first: its cause is kept, the gate's refusal counts too, and the shard waits for the later moment."""
    book = play().on(Start(), Hello(), Zombie(ERROR))
    book.on(SlotRefused(UNTIL, ERROR), SlotRefused(UNTIL - timedelta(hours=1), ERROR)).then(State.UNHEALTHY)
    book.on(Diagnosed())
    assert schedule(book).until == UNTIL
    assert book.machine.attempts == 1


def test_fail_on_error_ends_a_parked_shard(play: PlaybookMaker) -> None:
    """The developer is told that the budget is spent."""
    play(fail_on_error=True).on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed()).then(State.EXITED)


def test_a_shard_that_others_go_before_comes_back_for_its_turn(play: PlaybookMaker) -> None:
    """This holds under fail_on_error too. No ladder is climbed and nothing is counted, because nothing has failed."""
    book = play(fail_on_error=True, max_attempts=1)
    book.on(Start())
    for _ in range(3):
        book.on(Hello(), SlotDeferred(UNTIL, ERROR)).asks(ReleaseSlot()).then(State.UNHEALTHY)
        book.on(Diagnosed()).asks(ScheduleRestart((FLOOR, FLOOR), UNTIL)).then(State.RESTARTING)
        book.on(RestartDue()).then(State.CONNECTING)
    assert book.machine.attempts == 0


def test_a_deferral_that_was_under_way_still_counts(play: PlaybookMaker) -> None:
    """The connection ended first: its cause is kept, and there is no new request before the gate's moment."""
    book = play().on(Start(), Hello(), Zombie(ERROR), SlotDeferred(UNTIL, ERROR), Diagnosed())
    assert schedule(book).until == UNTIL
    assert book.machine.attempts == 1


# -------------------------------------------------------------------------------------------------- back-off


def test_op_7_after_ready_costs_the_floor_only(play: PlaybookMaker) -> None:
    """No rung is climbed, however often it happens."""
    book = play(session=SAVED).on(Start())
    for _ in range(5):
        book.on(*UP, Reconnect(), Diagnosed())
        assert longest(book) == FLOOR
        book.on(RestartDue())


def test_op_7_after_ready_costs_the_floor_only_whatever_the_wait_before_it(play: PlaybookMaker) -> None:
    """The wait of an earlier failure is not repeated."""
    book = play(session=SAVED).on(
        Start(), ConnectFailed(ERROR), Diagnosed(), RestartDue(), *UP, Reconnect(), Diagnosed()
    )
    assert longest(book) == FLOOR


def test_op_7_before_ready_climbs_although_an_earlier_connection_was_up(play: PlaybookMaker) -> None:
    """Each connection counts by itself."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed(), RestartDue(), Reconnect(), Diagnosed())
    assert longest(book) == Window(0.25, 1.0)


@pytest.mark.parametrize("before", [(), (Hello(),)], ids=["Connecting", "Resuming"])
def test_op_7_before_ready_climbs_the_ladder(play: PlaybookMaker, before: tuple[Trigger, ...]) -> None:
    """A server that sends only op 7 must not cause a tight loop."""
    book = play(session=SAVED).on(Start())
    highs = []
    for _ in range(4):
        book.on(*before, Reconnect(), Diagnosed())
        highs.append(longest(book).high)
        book.on(RestartDue())
    assert highs == [1.0, 2.0, 4.0, 8.0]


def test_op_7_before_a_late_ready_climbs_too(play: PlaybookMaker) -> None:
    """A READY that comes after the connection was given up does not count."""
    book = play().on(Start(), Hello(), IdentifySlot(), Reconnect(), Ready(SAVED), Diagnosed())
    assert longest(book) == Window(0.25, 1.0)


@pytest.mark.parametrize("asked", [InvalidResumable(ERROR), Congested("audit")])
def test_other_planned_interruptions_climb(play: PlaybookMaker, asked: Trigger) -> None:
    """Only op 7 costs the floor alone."""
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
    """Ready alone is not enough: the waits for a flapping server keep growing."""
    book = play(session=SAVED).on(Start())
    for high in (1.0, 2.0, 4.0):
        book.on(*UP, Zombie(ERROR), Diagnosed())
        assert longest(book).high == high
        book.on(RestartDue())
    book.on(*UP, Stable(), Zombie(ERROR), Diagnosed())
    assert longest(book).high == 1.0


def test_the_two_ladders_are_climbed_apart(play: PlaybookMaker) -> None:
    """Failed resumes do not lengthen the wait of the first IDENTIFY, and the reverse."""
    book = play(session=SAVED).on(Start())
    for _ in range(4):
        book.on(ConnectFailed(ERROR), Diagnosed(), RestartDue())
    book.on(Hello(), InvalidSession(ERROR), Diagnosed())
    assert longest(book).high == 2.0


def test_the_first_identify_after_a_lost_session_comes_early_and_the_next_ones_do_not(play: PlaybookMaker) -> None:
    """Events are lost until then, but a server that drops each session must not be asked ever faster."""
    book = play(session=SAVED).on(Start())
    for high in (2.0, 10.0, 20.0):
        book.on(*UP, InvalidSession(ERROR), Diagnosed())
        assert longest(book).high == high
        book.on(RestartDue(), Hello(), IdentifySlot(), Ready(SAVED))
        book.on(Zombie(ERROR), Diagnosed(), RestartDue())


@pytest.mark.parametrize("code", [4007, 4009])
def test_a_session_that_a_close_code_ends_is_replaced_as_early(play: PlaybookMaker, code: int) -> None:
    """Only the floor is waited for."""
    book = play(session=SAVED).on(Start(), *UP, Closed(code, ERROR), Diagnosed())
    assert longest(book) == FLOOR


@pytest.mark.parametrize("before", [(Hello(),), UP], ids=["as an answer", "out of the blue"])
def test_op_9_false_waits_a_second_at_least(play: PlaybookMaker, before: tuple[Trigger, ...]) -> None:
    """This pause runs beside the back-off of the ladder."""
    book = play(session=SAVED).on(Start(), *before, InvalidSession(ERROR), Diagnosed())
    assert Window(1.0, 2.0) in schedule(book).windows


def test_4008_slows_down_and_waits_five_seconds(play: PlaybookMaker) -> None:
    """For a minute half as many sends are allowed; the session is kept."""
    book = play(session=SAVED).on(Start(), *UP, Closed(4008, ERROR)).asks(SlowDown(60.0))
    book.on(Diagnosed())
    assert longest(book).low == 5.0
    book.on(RestartDue()).asks(OpenSocket(2, SAVED.resume_url))


# -------------------------------------------------------------------------------------------------- restarting, stopping


def test_never_two_sockets(play: PlaybookMaker) -> None:
    """A restart waits for the old socket, and drops it."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed())
    book.on(RestartDue(), facts=Facts(socket_closed=False)).then(State.RESTARTING)
    book.asks(AbortSocket(), ScheduleRestart((Window(0.25, 0.25),), None, again=True))
    book.on(RestartDue()).asks(OpenSocket(2, SAVED.resume_url)).then(State.CONNECTING)


def test_the_end_of_a_connection_closes_its_socket_so_that_the_session_is_kept(play: PlaybookMaker) -> None:
    """This holds for every cause. The close takes a second at most, and then the verdict is requested."""
    book = play(session=SAVED).on(Start(), *UP)
    assert book.on(Reconnect()).standing == [
        ShutOutbox(),
        CloseSocket(keeps_session=True, seconds=1.0, then=Diagnosed()),
    ]


def test_a_close_that_hangs_does_not_hold_the_verdict(play: PlaybookMaker) -> None:
    """The deadline of Unhealthy drops the socket and requests the verdict."""
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
    """The deadline belongs to one visit, not to the state."""
    book = play().on(Start())
    stale = book.machine.visit
    book.on(ConnectFailed(ERROR), Diagnosed(), RestartDue()).then(State.CONNECTING)
    book.on(Timeout(stale, ERROR)).then(State.CONNECTING)


def test_stop_before_the_first_dial_opens_nothing(play: PlaybookMaker) -> None:
    """Disconnected to Exited without a socket."""
    book = play().on(Stop()).asks().then(State.STOPPING)
    book.on(Stopped()).asks(AbortSocket(), ON_REQUEST).then(State.EXITED)


def test_a_close_that_hangs_does_not_hold_the_stop(play: PlaybookMaker) -> None:
    """The deadline of Stopping ends it."""
    play(session=SAVED).on(Start(), *UP, Stop()).timeout().asks(AbortSocket(), ON_REQUEST).then(State.EXITED)


def test_stop_while_identifying_gives_the_slot_back(play: PlaybookMaker) -> None:
    """An unused ticket is refunded."""
    play().on(Start(), Hello(), Stop()).asks(ReleaseSlot()).then(State.STOPPING)


def test_stop_overtakes_a_restart(play: PlaybookMaker) -> None:
    """The restart timer that fires after a stop opens nothing."""
    book = play(session=SAVED).on(Start(), *UP, Reconnect(), Diagnosed(), Stop()).then(State.STOPPING)
    book.on(RestartDue()).asks(Ignored(State.STOPPING, Name.RESTART_DUE, "stop overtook the timer; asked already"))


def test_what_is_passed_over_is_reported_and_changes_nothing(play: PlaybookMaker) -> None:
    """Ignored and rejected triggers are reported by state and name."""
    book = play(session=SAVED).on(Start(), *UP)
    book.on(Resumed()).asks(ReportBreach(State.READY, Name.RESUMED, "the session is open already"))
    book.on(RestartDue()).asks(Rejected(State.READY, Name.RESTART_DUE, "belongs to Unhealthy, Restarting or Stopping"))
    book.on(Hello(), Start()).asks(Ignored(State.READY, Name.START, "already started")).then(State.READY)
    assert book.machine.cause is None
