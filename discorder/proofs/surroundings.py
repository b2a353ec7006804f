"""Everybody but the machine: what the doctor, the timers, the gate, the gateway, the publishers and faults can do.

Kept a little freer than the real ones wherever the table must not rely on them: a deadline can pass at any moment, a closed
socket can linger, a doctor can hang or fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discorder.proofs.facts import (
    ATTEMPTS,
    CLOSING,
    CONGESTED,
    DEADLINE,
    DISPATCHED,
    DOCTOR,
    FATAL_CLOSE,
    HAS_ROOM,
    PHASE,
    READER,
    REIDENTIFY_CLOSE,
    RESTART_TIMER,
    SLOT,
    SOCKET,
    SOUND,
    SUSPICION,
    UNTIL,
    WEATHER,
    in_state,
    post,
)
from discorder.proofs.language import NO, YES, Actor, Condition, Duty, Effects, Step, Variable, all_of
from discorder.proofs.properties import UNSAVED
from discorder.statemachine.table import LIVE, Name, State
from discorder.statemachine.terms import Deadline, Keeper, Task

Deadlines = Mapping[State, Deadline]
Runs = Mapping[State, frozenset[Task]]

NOBODY: frozenset[Task] = frozenset()  # runs in a state that RUNS does not know; the static check says so

_UNSOUND = SOUND.is_(NO)  # what may break, breaks only on connections that were opened in bad weather


def surroundings(deadlines: Deadlines, runs: Runs) -> Iterator[Step]:
    """Every step that is not the machine's."""
    yield from _gateway(runs)
    yield from _tasks(runs)
    yield from _doctor(deadlines, runs)
    yield from _timers(deadlines)
    yield from _gate()
    yield from _publishers(runs)


def _running(task: Task, runs: Runs) -> Condition:
    return in_state(*(state for state in State if task in runs.get(state, NOBODY)))


def _fault(says: str, when: Condition, effects: Effects) -> Step:
    return Step(Actor.FAULTS, says, all_of(_UNSOUND, when), effects, Duty.MAY)


def _gateway(runs: Runs) -> Iterator[Step]:
    """The processor's view: it dials, and posts what the gateway sends."""
    reads = all_of(_running(Task.PROCESSOR, runs), READER.is_("reading"), HAS_ROOM)
    dials, hears = all_of(reads, SOCKET.is_("dialling")), all_of(reads, SOCKET.is_("open"))

    def answer(says: str, phase: str, effects: Effects, hears: Condition = hears) -> Iterator[Step]:
        """What the gateway owes: it must come in good weather, and may in bad."""
        due = all_of(hears, PHASE.is_(phase))
        yield Step(Actor.GATEWAY, says, all_of(SOUND.is_(YES), due), effects)
        yield Step(Actor.GATEWAY, says, all_of(_UNSOUND, due), effects, Duty.MAY)

    def sent(name: Name, *more: Effects) -> Effects:
        return (*post(name.value), *(effect for effects in more for effect in effects))

    in_session = (PHASE.becomes("in session"),)
    yield from answer("the dial succeeds", "silent", (SOCKET.becomes("open"),), dials)
    yield from answer("Hello comes", "silent", sent(Name.HELLO, (PHASE.becomes("greeted"),)))
    yield from answer("READY comes", "identify sent", sent(Name.READY, in_session, (UNSAVED.becomes(YES),)))
    yield from answer("RESUMED comes", "resume sent", sent(Name.RESUMED, in_session, (DISPATCHED.becomes(YES),)))
    for phase in ("resume sent",):  # op 9 false is an answer, in any weather; the others are not
        yield Step(
            Actor.GATEWAY,
            "Discord refuses to resume: op 9 false",
            all_of(hears, PHASE.is_(phase)),
            sent(Name.INVALID_SESSION),
            Duty.MAY,
        )
    yield _fault(
        "op 9 false comes",
        all_of(hears, PHASE.is_("greeted", "identify sent", "in session")),
        sent(Name.INVALID_SESSION),
    )
    yield _fault("op 9 true comes", all_of(hears, PHASE.is_not("silent")), sent(Name.INVALID_RESUMABLE))
    yield _fault("op 7 comes", hears, sent(Name.RECONNECT))
    yield _fault(
        "an event is replayed", all_of(hears, PHASE.is_("resume sent"), DISPATCHED.is_(NO)), (DISPATCHED.becomes(YES),)
    )
    ended = (READER.becomes("ended"),)
    gone = (SOCKET.becomes("none"), *ended)
    yield _fault("the dial fails", dials, sent(Name.CONNECT_FAILED, gone))
    yield _fault("the gateway closes the socket", hears, sent(Name.CLOSED, gone))
    for close in (FATAL_CLOSE, REIDENTIFY_CLOSE):
        says, duty = f"the socket is {close}", Duty.MAY_END if close is FATAL_CLOSE else Duty.MAY
        yield Step(Actor.FAULTS, says, all_of(_UNSOUND, hears), (*post(close.value), *gone), duty)
    yield _fault("the processor fails", reads, sent(Name.TASK_FAILED, ended))


def _tasks(runs: Runs) -> Iterator[Step]:
    """The other coroutines can fail, too."""
    failed = post(Name.TASK_FAILED.value)
    yield _fault("the heartbeat fails", all_of(_running(Task.HEARTBEAT, runs), HAS_ROOM), failed)
    at_work = all_of(_running(Task.DOCTOR, runs), DOCTOR.is_not("failed", "hangs"), HAS_ROOM)
    yield _fault("the doctor fails", at_work, (*failed, DOCTOR.becomes("failed")))


def _doctor(deadlines: Deadlines, runs: Runs) -> Iterator[Step]:
    """Watches the deadline and the ACKs; in Unhealthy closes the socket and asks for the verdict."""
    looks = all_of(_running(Task.DOCTOR, runs), DOCTOR.is_("watching", "content"), HAS_ROOM)
    reported = (DOCTOR.becomes("reported"),)
    its = [state for state in State if state in deadlines and deadlines[state].keeper is Keeper.DOCTOR]
    if its:
        yield Step(
            Actor.DOCTOR,
            "the deadline passes",
            all_of(looks, _UNSOUND, in_state(*its), DEADLINE.is_(YES)),
            (*post(Name.TIMEOUT.value), *reported, DEADLINE.becomes(NO)),
        )
    beating = in_state(*(state for state in LIVE if Task.HEARTBEAT in runs.get(state, NOBODY)))
    yield _fault("no heartbeat is acknowledged", all_of(looks, beating), (*post(Name.ZOMBIE.value), *reported))
    yield Step(
        Actor.DOCTOR,
        "120 s in Ready have passed",
        all_of(looks, in_state(State.READY), DOCTOR.is_("watching")),
        (*post(Name.STABLE.value), DOCTOR.becomes("content")),
        Duty.MAY,
    )
    closes = all_of(in_state(State.UNHEALTHY), DOCTOR.is_("watching", "content"), HAS_ROOM)
    diagnosed = (*post(Name.DIAGNOSED.value), DOCTOR.becomes("hangs"))  # it has nothing left to do
    yield Step(Actor.DOCTOR, "the doctor has closed the socket", closes, (SOCKET.becomes("none"), *diagnosed))
    lingers = all_of(closes, SOCKET.is_("open", "dialling"))
    yield Step(
        Actor.DOCTOR,
        "the doctor has closed the socket, but it is not gone",
        lingers,
        (SOCKET.becomes("lingering"), *diagnosed),
        Duty.MAY,
    )
    yield Step(Actor.DOCTOR, "the doctor hangs", closes, (DOCTOR.becomes("hangs"),), Duty.MAY)


def _timers(deadlines: Deadlines) -> Iterator[Step]:
    """The driver's own: they fire whoever hangs."""
    its = [state for state in State if state in deadlines and deadlines[state].keeper is Keeper.DRIVER]
    if its:
        yield Step(
            Actor.TIMER,
            "the deadline passes",
            all_of(in_state(*its), DEADLINE.is_(YES), HAS_ROOM),
            (*post(Name.TIMEOUT.value), DEADLINE.becomes(NO)),
        )
    yield Step(
        Actor.TIMER,
        "the back-off is over",
        all_of(RESTART_TIMER.is_(YES), UNTIL.is_not("known"), HAS_ROOM),
        (*post(Name.RESTART_DUE.value), RESTART_TIMER.becomes(NO)),
    )
    closing = all_of(in_state(State.STOPPING), CLOSING.is_("running"), HAS_ROOM)
    stopped = (*post(Name.STOPPED.value), CLOSING.becomes("over"))
    yield Step(Actor.TIMER, "the socket is closed", closing, (SOCKET.becomes("none"), *stopped), Duty.MAY)
    yield Step(
        Actor.TIMER,
        "the socket is closed, but it is not gone",
        all_of(closing, SOCKET.is_not("none")),
        (SOCKET.becomes("lingering"), *stopped),
        Duty.MAY,
    )


def _gate() -> Iterator[Step]:
    """Answers within 60 s: a ticket, a refusal, or when to come back."""
    asked = all_of(SLOT.is_("asked"), HAS_ROOM)
    yield Step(
        Actor.GATE,
        "the gate grants a ticket",
        asked,
        (*post(Name.IDENTIFY_SLOT.value), SLOT.becomes("granted")),
    )
    yield _fault(
        "the gate refuses until later",
        asked,
        (*post(Name.SLOT_REFUSED.value), SLOT.becomes("none"), UNTIL.becomes("unheard")),
    )
    yield _fault(
        "the gate has others to serve first",
        asked,
        (*post(Name.SLOT_DEFERRED.value), SLOT.becomes("none"), UNTIL.becomes("unheard")),
    )
    yield Step(Actor.GATE, "the moment that the gate named has come", UNTIL.is_not("none"), (UNTIL.becomes("none"),))


def _publishers(runs: Runs) -> Iterator[Step]:
    """One that blocks can be congested for a while."""
    dispatches = all_of(
        _running(Task.PROCESSOR, runs), READER.is_("reading"), PHASE.is_("resume sent", "in session"), HAS_ROOM
    )
    yield _fault(
        "a publisher is congested",
        all_of(dispatches, CONGESTED.is_(NO)),
        (*post(Name.CONGESTED.value), CONGESTED.becomes(YES)),
    )
    yield Step(
        Actor.PUBLISHERS,
        "the publisher has drained, or was waited for long enough",
        CONGESTED.is_(YES),
        (CONGESTED.becomes(NO),),
    )


GOOD_WEATHER = Step(
    Actor.OPERATOR, "the network is good from now on", WEATHER.is_("bad"), (WEATHER.becomes("good"),), Duty.MAY
)
"""Added for what is to happen once the network stays good. It takes away what can go wrong and adds nothing: no property that
holds in every state without it can fail with it."""


def _any_number(counter: Variable, *states: State) -> tuple[Step, ...]:
    return tuple(
        Step(Actor.FAULTS, f"{counter.name} is {value}", in_state(*states), (counter.becomes(value),), Duty.MAY)
        for value in counter.values[:2]
    )


_BY_OTHERS = Step(
    Actor.FAULTS, "another shard congests a publisher", CONGESTED.is_(NO), (CONGESTED.becomes(YES),), Duty.MAY
)

ONLY_IN_TRACES: tuple[Step, ...] = (
    *_any_number(ATTEMPTS, State.UNHEALTHY),
    *_any_number(SUSPICION, State.RESUMING),
    _BY_OTHERS,
)
"""Added for traces: the world counts to two where a real shard counts to `max_attempts`, and to three refusals in 180 s; and
it is alone, where a real shard shares the publishers with others.
"""
