"""What the table's guards and actions mean in the small world. The one place to extend when the table gets a new one.

The rest of the transition is here too: what the driver does when a state is entered, whatever the row says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from discorder.proofs.facts import (
    ATTEMPTS,
    CAUSE,
    CLOSING,
    CONGESTED,
    DEADLINE,
    DEMOTED,
    DISPATCHED,
    DOCTOR,
    EMPTY,
    FAIL_ON_ERROR,
    FATAL_CLOSE,
    GOODBYE,
    HOST,
    MAX_ATTEMPTS,
    PHASE,
    PLACES,
    READER,
    REIDENTIFY_CLOSE,
    RESTART_TIMER,
    SAID_GOODBYE,
    SESSION,
    SLOT,
    SOCKET,
    SOUND,
    SUSPICION,
    UNTIL,
    WEATHER,
    WITHOUT_A_GENERATION,
    Arrival,
    post,
    void,
)
from discorder.proofs.language import NO, YES, Condition, Effects, Not, When, all_of, either
from discorder.proofs.properties import (
    CLIMBED,
    DUE_CAUSE,
    FAILED_HOST,
    FAILURES,
    REFUSALS,
    REFUSED,
    STOPPED,
    UNSAVED,
    Property,
    expect,
)
from discorder.statemachine.table import Name, State
from discorder.statemachine.terms import Action, Guard, Task

GUARDS: Mapping[Guard, Condition] = {
    Guard.RESUMABLE: SESSION.is_("held"),
    Guard.PLANNED: CAUSE.is_("planned"),
    Guard.FATAL: CAUSE.is_("fatal"),
    Guard.PARKED: CAUSE.is_("parked"),
    Guard.FAIL_ON_ERROR: FAIL_ON_ERROR.is_(YES),
    Guard.ATTEMPTS_LEFT: either(MAX_ATTEMPTS.is_("unlimited"), ATTEMPTS.is_("0")),
    Guard.SOCKET_CLOSED: SOCKET.is_("none"),
    Guard.MAY_OPEN: CONGESTED.is_(NO),
}


def _open_socket() -> Effects:
    return (
        *expect(Property.ONE_SOCKET, SOCKET.is_("none")),
        *expect(Property.NOT_AFTER_STOP, STOPPED.is_(NO)),
        *expect(Property.NOT_BEFORE_UNTIL, UNTIL.is_("none")),
        *expect(Property.NOT_CONGESTED, CONGESTED.is_(NO)),
        *void(*(name for name in Name if name not in WITHOUT_A_GENERATION)),
        SOCKET.becomes("dialling"),
        PHASE.becomes("silent"),
        READER.becomes("reading"),
        DISPATCHED.becomes(NO),
        CAUSE.becomes("none"),
        DUE_CAUSE.becomes("none"),
        CLIMBED.becomes(NO),
        When(WEATHER.is_("good"), (SOUND.becomes(YES),), (SOUND.becomes(NO),)),
        When(
            all_of(SESSION.is_("held"), DEMOTED.is_(NO)), (HOST.becomes("resume host"),), (HOST.becomes("main host"),)
        ),
        *expect(
            Property.OTHER_HOST,
            either(SESSION.is_("none"), *(all_of(HOST.is_(h), FAILED_HOST.is_not(h)) for h in HOST.values)),
        ),
    )


def _send_resume() -> Effects:
    return (
        *expect(Property.SESSION_IN_USE, SESSION.is_("held")),
        *expect(Property.REFUSED_SESSION, REFUSED.is_(NO)),
        *expect(Property.SUSPICION, REFUSALS.is_not("2")),
        PHASE.becomes("resume sent"),
    )


def _send_identify() -> Effects:
    return (
        *expect(Property.TICKET_FIRST, SLOT.is_("granted")),
        SLOT.becomes("none"),
        When(PHASE.is_("greeted"), (PHASE.becomes("identify sent"),)),
        *void(Name.TIMEOUT),  # the deadline of the slot, if it has just passed: the visit has changed
        DEADLINE.becomes(YES),
        DOCTOR.mapped({"reported": "watching"}),  # it has a new deadline to keep
    )


_NO_ACCOUNT = (
    REFUSED.becomes(NO),
    REFUSALS.becomes("0"),
    FAILED_HOST.becomes("none"),
)  # it was about the session that goes
_FORGET: Effects = (SESSION.becomes("none"), SUSPICION.becomes("0"), DEMOTED.becomes(NO), *_NO_ACCOUNT)


def _save_session() -> Effects:
    saved = (SESSION.becomes("held"), SUSPICION.becomes("0"), DEMOTED.becomes(NO), *_NO_ACCOUNT)
    return (UNSAVED.becomes(NO), When(SAID_GOODBYE.is_(NO), saved))


def _suspect_session() -> Effects:
    once_more: Effects = (
        When(
            SUSPICION.is_("0"),
            (SUSPICION.becomes("1"),),
            (*expect(Property.SUSPICION, REFUSALS.is_("2")), *_FORGET),
        ),
    )
    refused: Effects = (When(SESSION.is_("held"), once_more),)
    return (When(DISPATCHED.is_(YES), (SUSPICION.becomes("0"),), refused),)


def _note(kind: str) -> Effects:
    return (When(CAUSE.is_("none"), (CAUSE.becomes(kind),)),)


def _note_cause(arrival: Arrival) -> Effects:
    if arrival is FATAL_CLOSE:
        return _note("fatal")
    return (*(_FORGET if arrival is REIDENTIFY_CLOSE else ()), *_note("failure"))


def _note_stop(arrival: Arrival) -> Effects:
    goodbye = (SAID_GOODBYE.becomes(YES), *_FORGET) if arrival is GOODBYE else ()
    return (*goodbye, CLOSING.becomes("running"))


_NOTE_UNTIL: Effects = (When(UNTIL.is_("unheard"), (UNTIL.becomes("known"),)),)

ACTIONS: Mapping[Action, Effects | Callable[[Arrival], Effects]] = {
    Action.OPEN_SOCKET: _open_socket(),
    Action.SEND_RESUME: _send_resume(),
    Action.REQUEST_SLOT: (SLOT.becomes("asked"),),
    Action.RELEASE_SLOT: (SLOT.becomes("none"),),
    Action.SEND_IDENTIFY: _send_identify(),
    Action.SAVE_SESSION: _save_session(),
    Action.DROP_SESSION: _FORGET,
    Action.TRUST_SESSION: (SUSPICION.becomes("0"),),
    Action.SUSPECT_SESSION: _suspect_session(),
    Action.DEMOTE_HOST: (When(HOST.is_("resume host"), (DEMOTED.becomes(YES),), (DEMOTED.becomes(NO),)),),
    Action.NOTE_CAUSE: _note_cause,
    Action.NOTE_PLANNED: _note("planned"),
    Action.NOTE_REFUSAL: (*_NOTE_UNTIL, *_note("parked")),
    Action.NOTE_UNTIL: _NOTE_UNTIL,
    Action.NOTE_STOP: _note_stop,
    Action.ABORT_SOCKET: (SOCKET.becomes("none"),),
    Action.DIAGNOSE: post(Name.DIAGNOSED.value),
    Action.CLIMB: (CLIMBED.becomes(YES),),
    Action.COUNT_ATTEMPT: (When(MAX_ATTEMPTS.is_("two"), (ATTEMPTS.mapped({"0": "1", "1": "2"}),)),),
    Action.SCHEDULE_RESTART: (RESTART_TIMER.becomes(YES),),
    Action.REARM_RESTART: (RESTART_TIMER.becomes(YES),),
    Action.RESET_ATTEMPTS: (ATTEMPTS.becomes("0"), DEMOTED.becomes(NO)),
}


def effects_of(action: Action, arrival: Arrival) -> Effects:
    """What ``action`` does in the world when ``arrival`` brought it about."""
    meaning = ACTIONS[action]
    return meaning(arrival) if callable(meaning) else meaning


def enabled(when: tuple[Guard, ...], unless: tuple[Guard, ...]) -> Condition:
    """The guards of a row, as a condition of the world."""
    return all_of(*(GUARDS[guard] for guard in when), *(Not(GUARDS[guard]) for guard in unless))


def leave(target: State, runs: frozenset[Task]) -> Effects:
    """Before the actions of a row that leads to ``target``: the timers and the deadline of the state before are void."""
    doctor: Effects = ()
    if target is State.CONNECTING:
        doctor = (DOCTOR.becomes("watching"),)  # a new generation has a new one
    elif Task.DOCTOR in runs:
        back = {"content": "watching", "reported": "watching"}
        # a doctor that failed is needed once more, for the end of the connection
        doctor = (DOCTOR.mapped({**back, "failed": "watching"} if target is State.UNHEALTHY else back),)
    return (*void(Name.TIMEOUT), RESTART_TIMER.becomes(NO), DEADLINE.becomes(NO), *doctor)


_OF_A_CONNECTION = (
    *(READER.becomes("ended"), PHASE.becomes("silent"), DISPATCHED.becomes(NO)),
    *(HOST.becomes("main host"), SOUND.becomes(NO)),
)
_OF_A_FUTURE = (
    *(CAUSE.becomes("none"), ATTEMPTS.becomes("0"), SUSPICION.becomes("0"), DEMOTED.becomes(NO)),
    *(UNTIL.becomes("none"), CONGESTED.becomes(NO)),
    *(DUE_CAUSE.becomes("none"), *_NO_ACCOUNT, CLIMBED.becomes(NO), FAILURES.becomes("0")),
)


def forget(target: State) -> Effects:
    """After the actions: what cannot matter any more in ``target`` is set back, or the world would be ten times as large."""
    if target is State.UNHEALTHY:
        return tuple(effect for effect in _OF_A_CONNECTION if effect.variable is not SOUND)
    if target is State.RESTARTING:
        return (*_OF_A_CONNECTION, DOCTOR.becomes("watching"))
    if target is State.STOPPING:
        return (*_OF_A_CONNECTION, DOCTOR.becomes("watching"), *_OF_A_FUTURE)
    if target is State.EXITED:
        return (*_OF_A_CONNECTION, DOCTOR.becomes("watching"), *(place.becomes(EMPTY) for place in PLACES))
    return ()
