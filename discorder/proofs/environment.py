"""Define the environment of the machine: what the doctor, the timers, the gate, the gateway, publishers and faults can do.

The environment allows more than the real one where the table must not rely on it: a deadline can pass at any moment, a close
can hang, a closed socket can linger, a doctor can fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discorder.proofs.model_dsl import NO, YES, Actor, Condition, Duty, Effects, Step, Variable, When, all_of
from discorder.proofs.properties import UNSAVED
from discorder.proofs.variables import (
    ASKED_WAIT,
    ATTEMPTS,
    CLOSING,
    CONGESTED,
    DEADLINE,
    DISPATCHED,
    DOCTOR,
    FATAL_CLOSE,
    HAS_ROOM,
    HOST,
    MAIN_TRIED,
    MAIN_TRIED_BEFORE,
    PHASE,
    READER,
    REIDENTIFY_CLOSE,
    RESTART_TIMER,
    SESSION,
    SLOT,
    SOCKET,
    SOUND,
    SUSPICION,
    UNTIL,
    WEATHER,
    in_state,
    post,
)
from discorder.statemachine.table import LIVE, Closing, Name, State
from discorder.statemachine.terms import Deadline, Keeper, Task

Deadlines = Mapping[State, Deadline]
Runs = Mapping[State, frozenset[Task]]

NOBODY: frozenset[Task] = frozenset()  # the tasks of a state that RUNS lacks; the static check reports it

_UNSOUND = SOUND.is_(NO)  # faults happen only on connections opened while the network was bad


def environment_steps(
    deadlines: Deadlines, runs: Runs, stable_after: Mapping[State, float], closings: Mapping[State, Closing]
) -> Iterator[Step]:
    """Yield every step of the environment."""
    yield from _gateway(runs)
    yield from _tasks(runs)
    yield from _doctor(deadlines, runs, stable_after)
    yield from _timers(deadlines)
    yield from _closings(closings)
    yield from _gate()
    yield from _publishers(runs)


def _running(task: Task, runs: Runs) -> Condition:
    return in_state(*(state for state in State if task in runs.get(state, NOBODY)))


def _fault(says: str, when: Condition, effects: Effects) -> Step:
    return Step(Actor.FAULTS, says, all_of(_UNSOUND, when), effects, Duty.MAY)


def _gateway(runs: Runs) -> Iterator[Step]:
    """Yield the steps of the processor and the gateway: the dial, and the messages that arrive."""
    reads = all_of(_running(Task.PROCESSOR, runs), READER.is_("reading"), HAS_ROOM)
    dials, hears = all_of(reads, SOCKET.is_("dialling")), all_of(reads, SOCKET.is_("open"))

    def answer(says: str, phase: str, effects: Effects, hears: Condition = hears) -> Iterator[Step]:
        """Yield an answer of the gateway: it must come on a good network, and may come on a bad one."""
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
    for phase in ("resume sent",):  # here op 9 false is an answer, on any network; elsewhere it is a fault
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
    yield _fault(
        "the main host is not known: the resume host is dialled in its place",
        all_of(dials, HOST.is_("main host"), SESSION.is_("held")),
        (HOST.becomes("resume host"), When(MAIN_TRIED_BEFORE.is_(NO), (MAIN_TRIED.becomes(NO),))),
    )
    yield _fault("the dial fails", dials, sent(Name.CONNECT_FAILED, gone))
    yield _fault("the gateway closes the socket", hears, sent(Name.CLOSED, gone))
    for close in (FATAL_CLOSE, REIDENTIFY_CLOSE):
        says, duty = f"the socket is {close}", Duty.MAY_END if close is FATAL_CLOSE else Duty.MAY
        yield Step(Actor.FAULTS, says, all_of(_UNSOUND, hears), (*post(close.value), *gone), duty)
    yield _fault("the processor fails", reads, sent(Name.TASK_FAILED, ended))
    yield _fault("the gateway breaks the protocol", hears, sent(Name.BREACH, ended))


def _tasks(runs: Runs) -> Iterator[Step]:
    """Yield the failures of the other coroutines."""
    failed = post(Name.TASK_FAILED.value)
    yield _fault("the heartbeat fails", all_of(_running(Task.HEARTBEAT, runs), HAS_ROOM), failed)
    at_work = all_of(_running(Task.DOCTOR, runs), DOCTOR.is_not("failed"), HAS_ROOM)
    yield _fault("the doctor fails", at_work, (*failed, DOCTOR.becomes("failed")))


def _deadlines(deadlines: Deadlines, keeper: Keeper) -> Iterator[tuple[str, Condition]]:
    """Yield the text and the condition for each deadline of ``keeper`` that can pass, even one that events extend."""
    for state, deadline in deadlines.items():
        if deadline.keeper is keeper:
            since = "since the last event" if deadline.extended_by_dispatch else f"in {state}"
            yield f"{deadline.missed} {since}", all_of(in_state(state), DEADLINE.is_(YES))


def _doctor(deadlines: Deadlines, runs: Runs, stable_after: Mapping[State, float]) -> Iterator[Step]:
    """Yield the steps of the doctor: it reports missed deadlines, missing ACKs and stable states."""
    looks = all_of(_running(Task.DOCTOR, runs), DOCTOR.is_("watching", "content"), HAS_ROOM)
    reported = (DOCTOR.becomes("reported"),)
    for says, passes in _deadlines(deadlines, Keeper.DOCTOR):
        effects = (*post(Name.TIMEOUT.value), *reported, DEADLINE.becomes(NO))
        yield Step(Actor.DOCTOR, says, all_of(looks, _UNSOUND, passes), effects)
    beating = in_state(*(state for state in LIVE if Task.HEARTBEAT in runs.get(state, NOBODY)))
    yield _fault("no heartbeat is acknowledged", all_of(looks, beating), (*post(Name.ZOMBIE.value), *reported))
    for state, seconds in stable_after.items():
        yield Step(
            Actor.DOCTOR,
            f"{seconds:g} s in {state} have passed",
            all_of(looks, in_state(state), DOCTOR.is_("watching")),
            (*post(Name.STABLE.value), DOCTOR.becomes("content")),
            Duty.MAY,
        )


def _timers(deadlines: Deadlines) -> Iterator[Step]:
    """Yield the steps of the driver's timers. They fire even if a coroutine hangs."""
    for says, passes in _deadlines(deadlines, Keeper.DRIVER):
        yield Step(Actor.TIMER, says, all_of(passes, HAS_ROOM), (*post(Name.TIMEOUT.value), DEADLINE.becomes(NO)))
    yield Step(
        Actor.TIMER,
        "the wait that Discord or a host asked for is over",
        ASKED_WAIT.is_(YES),
        (ASKED_WAIT.becomes(NO),),
    )
    yield Step(
        Actor.TIMER,
        "the back-off is over",
        all_of(RESTART_TIMER.is_(YES), ASKED_WAIT.is_(NO), UNTIL.is_not("known"), HAS_ROOM),
        (*post(Name.RESTART_DUE.value), RESTART_TIMER.becomes(NO)),
    )


def _closings(closings: Mapping[State, Closing]) -> Iterator[Step]:
    """Yield the steps of a close. It may also hang."""
    for state, closing in closings.items():
        runs = all_of(in_state(state), CLOSING.is_("running"), HAS_ROOM)
        over = (*post(closing.then.value), CLOSING.becomes("over"))
        yield Step(Actor.TIMER, "the socket is closed", runs, (SOCKET.becomes("none"), *over), Duty.MAY)
        yield Step(
            Actor.TIMER,
            "the socket is closed, but it is not gone",
            all_of(runs, SOCKET.is_not("none")),
            (SOCKET.becomes("lingering"), *over),
            Duty.MAY,
        )


def _gate() -> Iterator[Step]:
    """Yield the answers of the gate, which come within 60 s: a ticket, a refusal, or a deferral."""
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
    """Yield the steps of a lossless publisher: it becomes congested, then drains or times out."""
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
"""Added for the properties that assume a network that stays good. The step only removes faults: a property that holds in every
state without it also holds with it."""


def _any_number(counter: Variable, *states: State) -> tuple[Step, ...]:
    return tuple(
        Step(Actor.FAULTS, f"{counter.name} is {value}", in_state(*states), (counter.becomes(value),), Duty.MAY)
        for value in counter.values[:2]
    )


_BY_OTHERS = Step(
    Actor.FAULTS, "another shard congests a publisher", CONGESTED.is_(NO), (CONGESTED.becomes(YES),), Duty.MAY
)

_WITHOUT_RESUME_HOST = Step(
    Actor.FAULTS,
    "the session names no resume host",
    all_of(in_state(State.CONNECTING, State.RESUMING), MAIN_TRIED.is_(NO)),
    (MAIN_TRIED.becomes(YES),),
    Duty.MAY,
)

ONLY_IN_TRACES: tuple[Step, ...] = (
    *_any_number(ATTEMPTS, State.UNHEALTHY),
    *_any_number(SUSPICION, State.RESUMING),
    _BY_OTHERS,
    _WITHOUT_RESUME_HOST,
)
"""Added for the check of traces, because the model is smaller than a real shard. The model counts only to two, while a shard
counts to `max_attempts` and to three refusals in 180 s. The model has one shard, while real shards share the publishers. Each
session of the model names a resume host.
"""
