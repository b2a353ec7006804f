"""What an operator asks of one shard: restart, pause, unpause. Which waits that may end, and why some of it has no effect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from discorder.statemachine import Facts, Session, State
from discorder.statemachine.backoff import FLOOR, Window
from discorder.statemachine.cause import CauseKind
from discorder.statemachine.commands import (
    DropPause,
    Ignored,
    OpenSocket,
    ReleaseSlot,
    SavePause,
    ScheduleRestart,
    WakeRestart,
)
from discorder.statemachine.triggers import (
    ConnectFailed,
    Diagnosed,
    Hello,
    IdentifySlot,
    InvalidSession,
    Pause,
    Ready,
    Restart,
    RestartDue,
    Resumed,
    SlotRefused,
    Start,
    Stop,
    Stopped,
    Trigger,
    Unpause,
)

if TYPE_CHECKING:
    from tests.statemachine.conftest import Playbook, PlaybookMaker

SAVED = Session("saved", "wss://resume.example")
ERROR = OSError("it broke")
UNTIL = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
UP = (Start(), Hello(), Resumed())
DOWN = (Start(), ConnectFailed(ERROR), Diagnosed())


def refused(book: Playbook, what: Trigger) -> str:
    """Return why ``what`` has no effect. Nothing changes."""
    before = (book.machine.state, book.machine.is_paused, book.machine.visit)
    (answer,) = book.machine.handle(what)
    assert isinstance(answer, Ignored)
    assert (book.machine.state, book.machine.is_paused, book.machine.visit) == before
    return answer.why


# -------------------------------------------------------------------------------------------------- restart


@pytest.mark.parametrize("way", [UP, UP[:2], UP[:1]], ids=["Ready", "Resuming", "Connecting"])
def test_a_restart_of_a_live_shard_is_planned_and_resumes_after_the_floor(
    play: PlaybookMaker, way: tuple[Trigger, ...]
) -> None:
    """It counts no attempt, climbs no ladder and is no failure, even under fail_on_error and max_attempts = 1."""
    book = play(session=SAVED, fail_on_error=True, max_attempts=1).on(*way, Restart()).then(State.UNHEALTHY)
    assert book.machine.cause is not None
    assert book.machine.cause.kind is CauseKind.PLANNED
    for _ in range(5):
        book.on(Diagnosed()).asks(ScheduleRestart((FLOOR, FLOOR), None)).then(State.RESTARTING)
        assert book.machine.attempts == 0
        book.on(RestartDue(), Hello()).resumable(yes=True).then(State.RESUMING)
        book.on(Restart())


def test_a_restart_is_no_refusal_of_the_session(play: PlaybookMaker) -> None:
    """Ten restarts in Resuming do not make the session suspect."""
    book = play(session=SAVED).on(*UP[:2])
    for number in range(10):
        book.on(Restart(), Diagnosed(), RestartDue(), Hello(), facts=Facts(now=1000.0 * number))
    book.then(State.RESUMING).resumable(yes=True)


def test_a_restart_ends_the_back_off_but_no_wait_that_others_asked_for(play: PlaybookMaker) -> None:
    """The driver knows the drawn waits; the moment that the gate named is passed on."""
    book = play(session=SAVED).on(*DOWN, Restart()).asks(WakeRestart(None)).then(State.RESTARTING)
    parked = play().on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed())
    parked.on(Restart()).asks(WakeRestart(UNTIL)).then(State.RESTARTING)
    assert (book.machine.attempts, parked.machine.attempts) == (0, 0)
    pause = play(session=SAVED).on(Start(), ConnectFailed(ERROR, retry_after=60.0), Diagnosed())
    assert isinstance(pause.asked[-1], ScheduleRestart)
    assert pause.asked[-1].windows[-1] == FLOOR, "the main host is next, so its turn is not delayed"
    pause.on(RestartDue(), ConnectFailed(ERROR, retry_after=60.0), Diagnosed())
    assert isinstance(pause.asked[-1], ScheduleRestart)
    assert pause.asked[-1].windows[-1] == Window(60.25, 60.75)


def test_a_restart_waits_for_a_congested_publisher_and_for_the_old_socket(play: PlaybookMaker) -> None:
    """The guards of the dial hold for a restart that is woken, too."""
    book = play(session=SAVED).on(*DOWN, Restart())
    book.on(RestartDue(), facts=Facts(may_open=False)).then(State.RESTARTING)
    book.on(RestartDue(), facts=Facts(socket_closed=False)).then(State.RESTARTING)
    book.on(RestartDue()).then(State.CONNECTING)


# -------------------------------------------------------------------------------------------------- pause


@pytest.mark.parametrize("fail_on_error", [False, True])
def test_a_paused_shard_never_dials_until_unpause(play: PlaybookMaker, fail_on_error: bool) -> None:
    """Not when its back-off is over, not when publishers have room, not on restart. Then it resumes the session."""
    book = play(session=SAVED, fail_on_error=fail_on_error).on(*UP)
    book.on(Pause()).asks(SavePause()).then(State.UNHEALTHY)
    book.on(Diagnosed()).asks(ScheduleRestart((FLOOR, FLOOR), None)).then(State.RESTARTING)
    assert "paused" in refused(book, RestartDue())
    assert "unpause" in refused(book, Restart())
    book.on(Unpause()).asks(DropPause(), WakeRestart(None)).then(State.RESTARTING)
    book.on(RestartDue()).asks(OpenSocket(2, SAVED.resume_url)).then(State.CONNECTING)


def test_a_shard_that_was_paused_before_the_start_begins_paused(play: PlaybookMaker) -> None:
    """It has never dialled; unpause lets it, at once, and the ladders are at their first rung."""
    book = play(session=SAVED, paused=True).on(Start()).asks(ScheduleRestart((FLOOR, FLOOR), None))
    book.then(State.RESTARTING)
    assert book.machine.generation == 0
    assert "paused" in refused(book, RestartDue())
    book.on(Unpause(), RestartDue()).asks(OpenSocket(1, SAVED.resume_url)).then(State.CONNECTING)


def test_a_pause_before_the_start_or_during_a_close_holds(play: PlaybookMaker) -> None:
    """So does its end."""
    early = play(session=SAVED).on(Pause()).asks(SavePause()).on(Start()).then(State.RESTARTING)
    assert early.machine.is_paused
    play(session=SAVED).on(Pause(), Unpause()).asks(DropPause()).on(Start()).then(State.CONNECTING)
    late = play(session=SAVED).on(Start(), ConnectFailed(ERROR), Pause(), Diagnosed()).then(State.RESTARTING)
    assert "paused" in refused(late, RestartDue())
    ended = play(session=SAVED).on(Start(), ConnectFailed(ERROR), Pause(), Unpause(), Diagnosed(), RestartDue())
    ended.then(State.CONNECTING)


def test_a_pause_gives_the_ticket_back_and_keeps_a_session_that_was_paid_for(play: PlaybookMaker) -> None:
    """READY may be under way when the operator pauses."""
    book = play().on(Start(), Hello(), Pause()).asks(SavePause(), ReleaseSlot()).then(State.UNHEALTHY)
    book.on(IdentifySlot()).then(State.UNHEALTHY)
    book.on(Ready(SAVED)).resumable(yes=True)


def test_a_pause_keeps_the_waits_that_were_asked_for(play: PlaybookMaker) -> None:
    """The wait after op 9 and the moment of the gate are scheduled as without a pause, and unpause does not shorten them."""
    book = play(session=SAVED).on(*UP[:2], InvalidSession(ERROR), Pause(), Diagnosed())
    assert isinstance(book.asked[-1], ScheduleRestart)
    assert book.asked[-1].windows[-1] == Window(1.0, 2.0)
    parked = play().on(Start(), Hello(), SlotRefused(UNTIL, ERROR), Diagnosed(), Pause())
    parked.on(Unpause()).asks(DropPause(), WakeRestart(UNTIL))


def test_a_paused_shard_can_be_stopped(play: PlaybookMaker) -> None:
    """With its session, or without it after goodbye."""
    play(session=SAVED, paused=True).on(Start(), Stop()).then(State.STOPPING).resumable(yes=True)
    play(session=SAVED, paused=True).on(Start(), Stop(goodbye=True)).then(State.STOPPING).resumable(yes=False)


def test_a_failure_before_the_pause_still_ends_the_shard_under_fail_on_error(play: PlaybookMaker) -> None:
    """The pause came later. It is stored, so that the next start finds the shard paused."""
    book = play(fail_on_error=True).on(Start(), ConnectFailed(ERROR), Pause()).asks(SavePause())
    book.on(Diagnosed()).then(State.EXITED)


# -------------------------------------------------------------------------------------------------- no effect


@pytest.mark.parametrize(
    ("way", "what", "why"),
    [
        ((), Restart(), "it has not been started yet"),
        ((Start(), Hello()), Restart(), "could cost another IDENTIFY"),
        ((Start(), ConnectFailed(ERROR)), Restart(), "the restart follows"),
        ((Start(), Stop()), Restart(), "it is being stopped"),
        ((Start(), Stop()), Pause(), "it is being stopped"),
        ((Start(), Stop()), Unpause(), "it is being stopped"),
        ((Start(), Stop(), Stopped()), Pause(), "final"),
        ((Start(),), Unpause(), "it is not paused"),
        (DOWN, Unpause(), "it is not paused"),
        ((*DOWN, Pause()), Pause(), "it is paused already"),
        ((Pause(),), Pause(), "it is paused already"),
        ((), Unpause(), "it is not paused"),
        ((Start(), ConnectFailed(ERROR), Pause()), Pause(), "it is paused already"),
    ],
)
def test_a_request_without_effect_gives_its_reason(
    play: PlaybookMaker, way: tuple[Trigger, ...], what: Trigger, why: str
) -> None:
    """The operator reads it."""
    assert why in refused(play().on(*way), what)
