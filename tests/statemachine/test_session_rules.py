"""The resume rules: which host is dialled, when the session is kept, and when it is dropped. Each test is a transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from discorder.statemachine import Facts, Session, State
from discorder.statemachine.commands import (
    CloseSocket,
    DropSession,
    OpenOutbox,
    OpenSocket,
    ReleaseSlot,
    RequestSlot,
    SaveProgress,
    SaveSession,
    SendIdentify,
    SendResume,
    ShutOutbox,
)
from discorder.statemachine.table import READY_DEADLINE
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
    Stable,
    Start,
    Stop,
    Stopped,
    TaskFailed,
    Trigger,
    Zombie,
)

if TYPE_CHECKING:
    from tests.statemachine.conftest import Playbook, PlaybookMaker

HOST = "wss://resume.example"
SAVED = Session("saved", HOST)
OPENED = Session("opened", "wss://other.example")
ERROR = OSError("it broke")
AGAIN = (Diagnosed(), RestartDue())  # the verdict, the back-off, the next dial


def refused_resume(book: Playbook, at: float, *, dispatched: bool = False) -> Playbook:
    """Send RESUME, close the socket at second ``at`` without an answer, and dial again."""
    book.on(Hello()).then(State.RESUMING)
    return book.on(Closed(None, ERROR), facts=Facts(now=at, dispatched=dispatched)).on(*AGAIN)


def test_a_first_start_identifies(play: PlaybookMaker) -> None:
    """Without a session: the main host, a ticket, IDENTIFY, and READY opens the session."""
    book = play()
    book.on(Start()).asks(OpenSocket(1, "")).resumable(yes=False).then(State.CONNECTING)
    book.on(Hello()).asks(RequestSlot()).then(State.IDENTIFYING)
    book.on(IdentifySlot()).asks(SendIdentify()).then(State.IDENTIFYING)
    assert [armed.deadline for armed in book.deadlines] == [READY_DEADLINE]
    assert book.deadlines[0].visit == book.machine.visit
    book.on(Ready(OPENED)).asks(SaveSession(OPENED)).then(State.READY)
    assert book.machine.session == OPENED


def test_ready_lets_commands_through_and_saves_what_is_delivered_and_leaving_it_stops_commands(
    play: PlaybookMaker,
) -> None:
    """This holds however Ready was reached. In a new session unanswered requests of the old one are sent again."""
    book = play(session=SAVED).on(Start(), Hello())
    assert book.on(Resumed()).standing == [OpenOutbox(new_session=False), SaveProgress()]
    assert ShutOutbox() in book.on(Reconnect()).standing
    book = play().on(Start(), Hello(), IdentifySlot())
    assert book.on(Ready(OPENED)).standing == [OpenOutbox(new_session=True), SaveProgress()]
    assert ShutOutbox() in book.on(Stop()).standing


def test_a_kept_session_is_resumed_on_its_own_host(play: PlaybookMaker) -> None:
    """A session from an earlier process costs no IDENTIFY."""
    book = play(session=SAVED)
    book.on(Start()).asks(OpenSocket(1, HOST)).then(State.CONNECTING)
    book.on(Hello()).asks(SendResume(SAVED)).then(State.RESUMING)
    book.on(Resumed()).asks().then(State.READY)


def test_a_session_without_a_resume_host_is_resumed_on_the_main_host(play: PlaybookMaker) -> None:
    """The READY of another server may name no host."""
    play(session=Session("bare", "")).on(Start()).asks(OpenSocket(1, "")).resumable(yes=True)


@pytest.mark.parametrize(
    "failure", [ConnectFailed(ERROR), Closed(None, ERROR), Reconnect()], ids=["refused", "closed", "op 7"]
)
def test_a_resume_host_that_fails_before_hello_gives_way_to_the_main_host(
    play: PlaybookMaker, failure: Trigger
) -> None:
    """The host changes at once and the session is kept. Each further failure changes the host again."""
    book = play(session=SAVED).on(Start(), failure, *AGAIN)
    book.asks(OpenSocket(2, "")).resumable(yes=True)
    book.on(failure, *AGAIN).asks(OpenSocket(3, HOST))
    book.on(failure, *AGAIN).asks(OpenSocket(4, "")).resumable(yes=True)
    assert book.machine.session == SAVED


def test_a_silent_resume_host_gives_way_too(play: PlaybookMaker) -> None:
    """A missing Hello counts like a refusal."""
    play(session=SAVED).on(Start()).timeout().on(*AGAIN).asks(OpenSocket(2, "")).resumable(yes=True)


def test_a_host_that_does_not_answer_resume_gives_way_but_one_that_asks_to_go_does_not(play: PlaybookMaker) -> None:
    """A close or silence after RESUME may be the host's fault; op 7 and op 9 true are regular answers."""
    book = (
        play(session=SAVED)
        .on(Start(), Hello(), Closed(None, ERROR), *AGAIN)
        .asks(OpenSocket(2, ""))
        .resumable(yes=True)
    )
    book.on(Hello()).timeout().on(*AGAIN).asks(OpenSocket(3, HOST))
    book.on(Hello(), Reconnect(), *AGAIN).asks(OpenSocket(4, HOST))
    book.on(Hello(), InvalidResumable(ERROR), *AGAIN).asks(OpenSocket(5, HOST))


@pytest.mark.parametrize("failure", [TaskFailed(Task.PROCESSOR, ERROR), Zombie(ERROR)], ids=["nonsense", "no ACK"])
def test_a_host_that_answers_resume_with_nonsense_or_no_ack_gives_way(play: PlaybookMaker, failure: Trigger) -> None:
    """Otherwise three such failures on one bad host would cost a session that the other host would have resumed."""
    book = play(session=SAVED).on(Start(), Hello(), failure, *AGAIN).asks(OpenSocket(2, "")).resumable(yes=True)
    assert book.machine.session == SAVED


def test_our_own_failure_before_hello_does_not_blame_the_host(play: PlaybookMaker) -> None:
    """A task of ours that failed says nothing about Discord's host."""
    book = play(session=SAVED).on(Start(), TaskFailed(Task.PROCESSOR, ERROR), *AGAIN)
    book.asks(OpenSocket(2, HOST))


def test_ready_forgets_which_host_failed(play: PlaybookMaker) -> None:
    """A new session has its own host."""
    book = play(session=SAVED).on(Start(), ConnectFailed(ERROR), *AGAIN, Hello(), InvalidSession(ERROR), *AGAIN)
    book.on(Hello(), IdentifySlot(), Ready(OPENED), Closed(4000, ERROR), *AGAIN)
    book.asks(OpenSocket(4, OPENED.resume_url))


def test_a_host_that_ended_a_session_is_not_held_against_the_next_one(play: PlaybookMaker) -> None:
    """4007 as the answer to RESUME drops the session and blames the host. The next session has another host."""
    book = (
        play(session=SAVED)
        .on(Start(), Hello(), Closed(4007, ERROR), *AGAIN)
        .asks(OpenSocket(2, ""))
        .resumable(yes=False)
    )
    book.on(Hello(), IdentifySlot(), Ready(OPENED), Closed(4000, ERROR), *AGAIN)
    book.asks(OpenSocket(3, OPENED.resume_url))


def test_only_stability_forgives_the_host_of_a_resumed_session(play: PlaybookMaker) -> None:
    """After RESUMED on the main host the shard stays there; after 120 s in Ready it may use the resume host again."""
    book = play(session=SAVED).on(
        Start(), ConnectFailed(ERROR), *AGAIN, Hello(), Resumed(), Closed(4000, ERROR), *AGAIN
    )
    book.asks(OpenSocket(3, "")).resumable(yes=True)
    book.on(Hello(), Resumed(), Stable(), Closed(4000, ERROR), *AGAIN).asks(OpenSocket(4, HOST))


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 4000, 4001, 4002, 4003, 4005, 4008, 4999])
def test_a_close_in_ready_keeps_the_session(play: PlaybookMaker, code: int | None) -> None:
    """RESUME costs nothing, and op 9 false would end the session."""
    book = play(session=SAVED).on(Start(), Hello(), Resumed(), Closed(code, ERROR), *AGAIN)
    book.asks(OpenSocket(2, HOST))


@pytest.mark.parametrize("code", [4007, 4009])
def test_4007_and_4009_cost_the_session(play: PlaybookMaker, code: int) -> None:
    """Both codes require a new session."""
    book = play(session=SAVED).on(Start(), Hello(), Resumed())
    book.on(Closed(code, ERROR)).asks(DropSession(f"close code {code}")).then(State.UNHEALTHY)
    book.on(*AGAIN).asks(OpenSocket(2, "")).resumable(yes=False)


@pytest.mark.parametrize(
    "lost", [Zombie(ERROR), Reconnect(), InvalidResumable(ERROR), Congested("audit"), TaskFailed(Task.HEARTBEAT, ERROR)]
)
def test_other_ends_of_a_live_session_keep_it(play: PlaybookMaker, lost: Trigger) -> None:
    """A RESUME follows a zombie, op 7, op 9 true, congestion and our own failures."""
    book = play(session=SAVED).on(Start(), Hello(), Resumed()).on(lost).asks().then(State.UNHEALTHY)
    book.on(*AGAIN).asks(OpenSocket(2, HOST))


@pytest.mark.parametrize("before", [(Hello(),), (Hello(), Resumed())], ids=["Resuming", "Ready"])
def test_op_9_false_costs_the_session(play: PlaybookMaker, before: tuple[Trigger, ...]) -> None:
    """This holds for op 9 false as the answer to RESUME, and at any other time."""
    book = play(session=SAVED).on(Start(), *before)
    book.on(InvalidSession(ERROR)).asks(DropSession("invalid_session")).then(State.UNHEALTHY)
    book.on(*AGAIN).asks(OpenSocket(2, "")).resumable(yes=False)
    book.on(Hello()).asks(RequestSlot())


def test_op_9_to_an_identify_gives_the_slot_back(play: PlaybookMaker) -> None:
    """There is no session to drop; `ReleaseSlot` refunds only a ticket whose IDENTIFY was not sent."""
    play().on(Start(), Hello(), IdentifySlot(), InvalidSession(ERROR)).asks(ReleaseSlot()).then(State.UNHEALTHY)


def test_three_refusals_and_three_minutes_cost_the_session(play: PlaybookMaker) -> None:
    """The third refusal, 180 s after the first, drops the session at once."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 1000.0)
    refused_resume(book, 1090.0).asks(OpenSocket(3, HOST))
    book.on(Hello()).on(Closed(None, ERROR), facts=Facts(now=1180.0))
    book.asks(DropSession("RESUME was refused 3 times"))
    book.on(*AGAIN).asks(OpenSocket(4, "")).resumable(yes=False)


def test_many_refusals_within_three_minutes_do_not(play: PlaybookMaker) -> None:
    """A short outage does not cost a session, whatever the number of refusals."""
    book = play(session=SAVED).on(Start())
    for at in range(0, 180, 20):
        refused_resume(book, float(at))
    assert book.machine.session == SAVED


def test_two_refusals_far_apart_do_not(play: PlaybookMaker) -> None:
    """Time alone does not cost a session either."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 0.0)
    refused_resume(book, 100_000.0)
    assert book.machine.session == SAVED


def test_a_replayed_event_clears_the_refusals(play: PlaybookMaker) -> None:
    """A server that replays accepts the session: the connection is no refusal, and the count starts anew after it."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 0.0)
    refused_resume(book, 100.0)
    refused_resume(book, 200.0, dispatched=True)
    refused_resume(book, 300.0)
    refused_resume(book, 400.0)
    assert book.machine.session == SAVED
    book.on(Hello()).on(Closed(None, ERROR), facts=Facts(now=480.0)).asks(DropSession("RESUME was refused 3 times"))


def test_resumed_clears_the_refusals(play: PlaybookMaker) -> None:
    """An accepted RESUME resets the count."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 0.0)
    refused_resume(book, 100.0)
    book.on(Hello(), Resumed(), Closed(4000, ERROR), *AGAIN)
    refused_resume(book, 300.0)
    assert book.machine.session == SAVED


def test_a_new_session_begins_without_the_refusals_of_the_one_before(play: PlaybookMaker) -> None:
    """READY came after the third RESUME was given up: the next one is the first of another session."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 0.0)
    refused_resume(book, 100.0)
    book.on(Hello()).on(Closed(None, ERROR), facts=Facts(now=150.0)).on(Ready(OPENED), *AGAIN)
    refused_resume(book, 200.0)
    assert book.machine.session == OPENED


@pytest.mark.parametrize(
    "unanswered", [Zombie(ERROR), TaskFailed(Task.DOCTOR, ERROR), Reconnect(), InvalidResumable(ERROR)]
)
def test_every_unanswered_resume_is_a_refusal(play: PlaybookMaker, unanswered: Trigger) -> None:
    """How the connection ended does not matter: RESUME was sent, and no answer came."""
    book = play(session=SAVED).on(Start())
    refused_resume(book, 0.0)
    refused_resume(book, 10.0)
    book.on(Hello()).on(unanswered, facts=Facts(now=180.0)).asks(DropSession("RESUME was refused 3 times"))


def test_a_failed_dial_is_not_a_refusal(play: PlaybookMaker) -> None:
    """Without a RESUME the session was not refused."""
    book = play(session=SAVED).on(Start())
    for _ in range(20):
        book.on(ConnectFailed(ERROR), facts=Facts(now=10_000.0)).on(*AGAIN)
    assert book.machine.session == SAVED


@pytest.mark.parametrize("goodbye", [False, True])
def test_stop_keeps_the_session_and_goodbye_ends_it(play: PlaybookMaker, goodbye: bool) -> None:
    """Code 4000 leaves the session resumable, 1000 ends it."""
    book = play(session=SAVED).on(Start(), Hello(), Resumed()).on(Stop(goodbye=goodbye)).then(State.STOPPING)
    assert book.standing == [ShutOutbox(), CloseSocket(keeps_session=not goodbye, seconds=0.25, then=Stopped())]
    if goodbye:
        book.asks(DropSession("goodbye"))
        assert book.machine.session is None
    else:
        book.asks()
        assert book.machine.session == SAVED


@pytest.mark.parametrize("ended", [(Zombie(ERROR),), (Stop(),)], ids=["Unhealthy", "Stopping"])
def test_a_late_ready_is_kept(play: PlaybookMaker, ended: tuple[Trigger, ...]) -> None:
    """Its IDENTIFY is spent, so the next connection resumes it."""
    book = play().on(Start(), Hello(), IdentifySlot(), *ended)
    state = book.machine.state
    book.on(Ready(OPENED)).asks(SaveSession(OPENED)).then(state)
    assert book.machine.session == OPENED


def test_a_ready_after_goodbye_is_not_kept(play: PlaybookMaker) -> None:
    """The next start finds no session after a goodbye."""
    book = play().on(Start(), Hello(), IdentifySlot(), Stop(goodbye=True)).then(State.STOPPING)
    book.on(Ready(OPENED)).asks().then(State.STOPPING)
    assert book.machine.session is None


def test_a_session_needs_an_id_and_never_shows_it() -> None:
    """With the token and the id, anyone can take over the session: the id stays out of logs."""
    assert "saved" not in repr(SAVED)
    assert "resume.example" not in repr(SAVED)
    with pytest.raises(ValueError, match="session id"):
        Session("", HOST)
