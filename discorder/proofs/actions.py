"""Define what the table's guards and actions mean in the model. Extend this module when the table gets a new one.

The rest of a transition is here too: what the driver does on entry to a state, independent of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from discorder.proofs.model_dsl import NO, YES, Condition, Effects, Not, When, all_of, either
from discorder.proofs.properties import (
    CLIMBED,
    DUE_CAUSE,
    ENDED,
    FAILED_HOST,
    FAILURES,
    MAIN_HOST_NEXT,
    OUTBOX_OPEN,
    PAUSE_ASKED,
    REFUSALS,
    REFUSED,
    SAVED,
    STOPPED,
    UNSAVED,
    Property,
    expect,
)
from discorder.proofs.variables import (
    ASKED_WAIT,
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
    MAIN_TRIED,
    MAIN_TRIED_BEFORE,
    MAX_ATTEMPTS,
    PAUSED,
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
from discorder.statemachine import EndKind
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
    Guard.PAUSED: PAUSED.is_(YES),
}


def _open_socket() -> Effects:
    return (
        *expect(Property.ONE_SOCKET, SOCKET.is_("none")),
        *expect(Property.NOT_AFTER_STOP, STOPPED.is_(NO)),
        *expect(Property.NOT_BEFORE_UNTIL, UNTIL.is_("none")),
        *expect(Property.NOT_BEFORE_ASKED, ASKED_WAIT.is_(NO)),
        *expect(Property.NOT_PAUSED, PAUSE_ASKED.is_(NO)),
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
            all_of(SESSION.is_("held"), DEMOTED.is_(NO)),
            (HOST.becomes("resume host"),),
            (
                HOST.becomes("main host"),
                When(
                    SESSION.is_("held"),
                    (When(MAIN_TRIED.is_(YES), (MAIN_TRIED_BEFORE.becomes(YES),)), MAIN_TRIED.becomes(YES)),
                ),
            ),
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
        *void(Name.TIMEOUT),  # a timeout of the slot's deadline may be queued; its visit is outdated
        DEADLINE.becomes(YES),
        DOCTOR.mapped({"reported": "watching"}),  # the doctor watches the new deadline
    )


# The observer's records about the session that is dropped or replaced.
_NO_ACCOUNT = (REFUSED.becomes(NO), REFUSALS.becomes("0"), FAILED_HOST.becomes("none"))
_FRESH_HOSTS = (DEMOTED.becomes(NO), MAIN_TRIED.becomes(NO))
_FORGET: Effects = (SESSION.becomes("none"), SUSPICION.becomes("0"), *_FRESH_HOSTS, *_NO_ACCOUNT)


def _save_session() -> Effects:
    saved = (SESSION.becomes("held"), SUSPICION.becomes("0"), *_FRESH_HOSTS, *_NO_ACCOUNT)
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


def _note_host_failure(arrival: Arrival) -> Effects:
    if arrival in (FATAL_CLOSE, REIDENTIFY_CLOSE):
        return _note_cause(arrival)
    return (When(MAIN_HOST_NEXT, _note("planned"), _note_cause(arrival)),)


def _note_stop(arrival: Arrival) -> Effects:
    return (SAID_GOODBYE.becomes(YES), *_FORGET) if arrival is GOODBYE else ()


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
    Action.NOTE_HOST_FAILURE: _note_host_failure,
    Action.NOTE_PLANNED: _note("planned"),
    Action.NOTE_REFUSAL: (*_NOTE_UNTIL, *_note("parked")),
    Action.NOTE_UNTIL: _NOTE_UNTIL,
    Action.NOTE_STOP: _note_stop,
    Action.ABORT_SOCKET: (SOCKET.becomes("none"),),
    Action.DIAGNOSE: post(Name.DIAGNOSED.value),
    Action.CLIMB: (CLIMBED.becomes(YES),),
    Action.COUNT_ATTEMPT: (When(MAX_ATTEMPTS.is_("two"), (ATTEMPTS.mapped({"0": "1", "1": "2"}),)),),
    Action.NOTE_PAUSE: (PAUSED.becomes(YES),),
    Action.NOTE_UNPAUSE: (PAUSED.becomes(NO),),
    Action.SCHEDULE_RESTART: (RESTART_TIMER.becomes(YES), ASKED_WAIT.becomes(YES)),
    Action.WAKE_RESTART: (RESTART_TIMER.becomes(YES),),
    Action.REARM_RESTART: (RESTART_TIMER.becomes(YES),),
    Action.RESET_ATTEMPTS: (ATTEMPTS.becomes("0"), *_FRESH_HOSTS),
    Action.CLOSE_SOCKET: (CLOSING.becomes("running"),),
    Action.OPEN_OUTBOX: (OUTBOX_OPEN.becomes(YES),),
    Action.SHUT_OUTBOX: (OUTBOX_OPEN.becomes(NO),),
    Action.SAVE_PROGRESS: (SAVED.becomes(YES),),
    Action.END_ON_REQUEST: (ENDED.becomes(EndKind.ON_REQUEST.value),),
    Action.END_FATALLY: (ENDED.becomes(EndKind.FATAL.value),),
    Action.END_ON_FAILURE: (ENDED.becomes(EndKind.FAILURE.value),),
    Action.END_EXHAUSTED: (ENDED.becomes(EndKind.EXHAUSTED.value),),
}


def effects_of(action: Action, arrival: Arrival) -> Effects:
    """Return what ``action`` does in the model when ``arrival`` caused it."""
    meaning = ACTIONS[action]
    return meaning(arrival) if callable(meaning) else meaning


def enabled(when: tuple[Guard, ...], unless: tuple[Guard, ...]) -> Condition:
    """Return the guards of a row as a condition of the model."""
    return all_of(*(GUARDS[guard] for guard in when), *(Not(GUARDS[guard]) for guard in unless))


def leave(target: State, runs: frozenset[Task]) -> Effects:
    """Return the effects before the actions of a row to ``target``: cancel the timers, deadline and close of the old state."""
    doctor: Effects = ()
    if target is State.CONNECTING:
        doctor = (DOCTOR.becomes("watching"),)  # a new connection has a new doctor
    elif Task.DOCTOR in runs:
        doctor = (DOCTOR.mapped({"content": "watching", "reported": "watching"}),)
    return (*void(Name.TIMEOUT), RESTART_TIMER.becomes(NO), DEADLINE.becomes(NO), CLOSING.becomes(NO), *doctor)


_OF_A_CONNECTION = (
    *(READER.becomes("ended"), PHASE.becomes("silent"), DISPATCHED.becomes(NO)),
    *(HOST.becomes("main host"), MAIN_TRIED_BEFORE.becomes(NO), SOUND.becomes(NO), DOCTOR.becomes("watching")),
)
_OF_A_FUTURE = (
    *(CAUSE.becomes("none"), ATTEMPTS.becomes("0"), SUSPICION.becomes("0"), *_FRESH_HOSTS),
    *(UNTIL.becomes("none"), ASKED_WAIT.becomes(NO), CONGESTED.becomes(NO)),
    *(PAUSED.becomes(NO), PAUSE_ASKED.becomes(NO)),
    *(DUE_CAUSE.becomes("none"), *_NO_ACCOUNT, CLIMBED.becomes(NO), FAILURES.becomes("0")),
)


def forget(target: State) -> Effects:
    """Return the effects after the actions: reset what is irrelevant in ``target``. Otherwise the model is ten times as large."""
    if target is State.UNHEALTHY:
        return tuple(effect for effect in _OF_A_CONNECTION if effect.variable is not SOUND)
    if target is State.RESTARTING:
        return _OF_A_CONNECTION
    if target is State.STOPPING:
        return (*_OF_A_CONNECTION, *_OF_A_FUTURE)
    if target is State.EXITED:
        return (*_OF_A_CONNECTION, *(place.becomes(EMPTY) for place in PLACES))
    return ()
