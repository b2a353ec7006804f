"""Define the safety properties of the model, each with a sentence, and the variables that only properties use.

There are two kinds: `INVARIANTS` hold in every state; an action uses `expect` to check a condition when it runs. Properties of
whole runs are in `liveness.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from discorder.proofs.model_dsl import (
    NO,
    YES,
    Condition,
    Effects,
    Not,
    Variable,
    When,
    all_of,
    either,
    flag,
    implies,
)
from discorder.proofs.variables import (
    ARRIVALS,
    AT_ONCE,
    CAUSE,
    CLOSING,
    DEADLINE,
    DISPATCHED,
    FAIL_ON_ERROR,
    FATAL_CLOSE,
    GOODBYE,
    HOST,
    MAIN_TRIED,
    MAX_ATTEMPTS,
    PAUSED,
    PHASE,
    REIDENTIFY_CLOSE,
    SAID_GOODBYE,
    SESSION,
    SLOT,
    SOCKET,
    STOPS,
    Arrival,
    in_state,
    waits,
)
from discorder.statemachine import EndKind
from discorder.statemachine.table import DEADLINES, LIVE, Name, State


class Property(Enum):
    """List the properties. The value is the sentence, the name appears in reports."""

    NO_REJECT = "no trigger of our own coroutines, or of a gateway that keeps the protocol, is rejected"
    A_ROW = "for every trigger that is taken a row is enabled"
    ONE_SOCKET = "a socket is opened only when the one before is gone"
    NOT_AFTER_STOP = "no socket is opened after stop"
    NOT_BEFORE_UNTIL = "no socket is opened before the moment that the identify gate named"
    NOT_BEFORE_ASKED = (
        "no socket is opened before the wait is over that Discord or a host asked for, at least the floor"
    )
    NOT_PAUSED = "no socket is opened while the shard is paused"
    PAUSED_IS_RIGHT = "a shard is paused exactly while an operator wants it; a paused shard has no connection"
    NOT_CONGESTED = "no socket is opened while a congested publisher asks to wait"
    NOTHING_LEFT = "in Exited there is no socket, no ticket, no request and no READY that was not saved"
    NO_TICKET_LOST = "a ticket is sent or given back: outside of Identifying none is held or asked for"
    TICKET_FIRST = "IDENTIFY is sent on a ticket"
    TICKET_USED = "a ticket that was granted waits in the inbox or has been used"
    NO_READY_LOST = "a READY that was read is saved, unless goodbye was said"
    SESSION_IN_USE = "in Resuming and Ready a session is held"
    HANDSHAKE = "Ready comes after READY or RESUMED, Resuming after RESUME was sent, Identifying after Hello"
    CAUSE_IS_RIGHT = "the first trigger that ends a connection decides what kind of end it is, and it is noted"
    ABORTED = "the back-off is no time for an open socket"
    CONNECTED = "in a live state there is a connection, or what ended it waits in the inbox"
    END_IS_END = "what ends a connection leads out of the live states"
    VERDICT_AT_ONCE = "when the close hangs, the socket is dropped and the verdict waits in the inbox"
    DEADLINE_KEPT = "a state with a deadline has its deadline armed or its timeout posted, from entry to end"
    BACK_OFF = "every restart but a parked one climbs the ladder, and a parked one does not"
    SLOW_CLOSE = "in Unhealthy and Stopping the socket is being closed with a code, not only dropped"
    CLOSED_ENDS = "when the socket is closed there, the verdict or Exited follows at once"
    GOODBYE_ENDS = "after goodbye no session is kept"
    REFUSED_SESSION = "a session that Discord has refused is never resumed"
    SUSPICION = "a session is given up after so many unanswered RESUMEs in a row, neither earlier nor later"
    OTHER_HOST = "after a host failed, the same session is tried at the other host"
    STOP_ENDS = "after stop there is Stopping and then Exited, nothing else"
    FAILURE_ENDS = "no restart after a fatal close, nor under fail_on_error after a failure or a refusal"
    ENDS_FOR_A_REASON = (
        "it ends after a stop, a fatal close, a failure under fail_on_error, or too many failures, and says which"
    )
    PROGRESS_SAVED = "when Ready is entered, what has been delivered is stored"
    OUTBOX = "commands are let through in Ready and nowhere else"
    COUNTED = "with max_attempts = N it gives up at the N-th failure in a row, and at no other"
    NO_DEAD_END = "from everywhere Ready can be reached again, or Exited where the shard has to end, without a stop"


# ---------------------------------------------------------------- variables that only properties use

WRONG = Variable("wrong", ("nothing", *(one.name for one in Property)), shown=False)
UNSAVED = flag("unsaved", shown=False)  # READY was read, its session is not saved yet
REFUSED = flag("refused", shown=False)  # Discord refused the held session
REFUSALS = Variable("refusals", ("0", "1", "2"), shown=False)  # in a row
FAILED_HOST = Variable("failed_host", ("none", *HOST.values), shown=False)
ENDED = Variable("ended", ("no", *(kind.value for kind in EndKind)), shown=False)
SAVED = flag("progress_saved", shown=False)
OUTBOX_OPEN = flag("outbox_open", shown=False)
CLIMBED = flag("climbed", shown=False)
FAILURES = Variable("failures", ("0", "1", "2"), shown=False)  # in a row, counted by the observer
DUE_CAUSE = Variable("due_cause", CAUSE.values, shown=False)  # set by the first trigger that ended this connection
STOPPED = flag("stop_taken", shown=False)
GOODBYE_ASKED = flag("goodbye_taken", shown=False)
PAUSE_ASKED = flag("pause_taken", shown=False)  # and not unpause since

FACTS_FOR_PROPERTIES = (
    WRONG,
    UNSAVED,
    REFUSED,
    REFUSALS,
    FAILED_HOST,
    ENDED,
    SAVED,
    OUTBOX_OPEN,
    CLIMBED,
    FAILURES,
    DUE_CAUSE,
    STOPPED,
    GOODBYE_ASKED,
    PAUSE_ASKED,
)


def expect(what: Property, condition: Condition) -> Effects:
    """Return the effects that record a violation of ``what`` if ``condition`` does not hold now."""
    return (When(Not(condition), violated(what)),)


def violated(what: Property) -> Effects:
    """Return the effects that record a violation of ``what``. Only the first violation is recorded."""
    return (When(WRONG.is_("nothing"), (WRONG.becomes(what.name),)),)


# ---------------------------------------------------------------- the observer: records transitions independently of the rows

_FAILURES = (Name.CONNECT_FAILED, Name.TIMEOUT, Name.CLOSED, Name.ZOMBIE, Name.TASK_FAILED, Name.BREACH)
_RESUME_UNANSWERED = (*_FAILURES, Name.INVALID_RESUMABLE, Name.RECONNECT)
_WATCHED = frozenset(State) - {State.EXITED}


@dataclass(frozen=True, slots=True)
class Watch:
    """Define what the observer records when one of ``arrivals`` causes a transition from one of ``sources``."""

    sources: frozenset[State]
    arrivals: tuple[Arrival, ...]
    effects: Effects


def _named(*names: Name) -> tuple[Arrival, ...]:
    return tuple(arrival for arrival in (*ARRIVALS, *AT_ONCE) if arrival.trigger in names)


def _first_cause(sources: frozenset[State], arrivals: tuple[Arrival, ...], kind: str) -> Watch:
    return Watch(sources, arrivals, (When(DUE_CAUSE.is_("none"), (DUE_CAUSE.becomes(kind),)),))


def _one_more(counter: Variable) -> Effects:
    return (counter.mapped({"0": "1", "1": "2"}),)


_FATAL = (FATAL_CLOSE,)
MAIN_HOST_NEXT = all_of(HOST.is_("resume host"), MAIN_TRIED.is_(NO))
"""True while the resume host is dialled and the main host has not been tried: a failure concerns only the resume host."""

_OF_A_HOST = (
    (State.CONNECTING, (Name.CONNECT_FAILED, Name.TIMEOUT, Name.CLOSED, Name.BREACH)),
    (State.RESUMING, (Name.CLOSED, Name.TIMEOUT, Name.ZOMBIE, Name.TASK_FAILED, Name.BREACH)),
)
_HOST_FAILED: Effects = tuple(
    When(all_of(SESSION.is_("held"), HOST.is_(host)), (FAILED_HOST.becomes(host),)) for host in HOST.values
)
_ANSWERS = frozenset({State.RESUMING, State.READY})

WATCHES: tuple[Watch, ...] = (
    _first_cause(LIVE, _FATAL, "fatal"),
    _first_cause(LIVE, _named(Name.RECONNECT, Name.CONGESTED, Name.RESTART, Name.PAUSE), "planned"),
    Watch(
        frozenset({State.DISCONNECTED}),
        _named(Name.START),
        (When(PAUSED.is_(YES), (PAUSE_ASKED.becomes(YES), DUE_CAUSE.becomes("planned"))),),
    ),
    Watch(_WATCHED, _named(Name.PAUSE), (PAUSE_ASKED.becomes(YES),)),
    Watch(_WATCHED, _named(Name.UNPAUSE), (PAUSE_ASKED.becomes(NO),)),
    _first_cause(_ANSWERS, _named(Name.INVALID_RESUMABLE), "planned"),
    _first_cause(frozenset({State.RESUMING}), _named(Name.INVALID_SESSION), "planned"),
    _first_cause(frozenset({State.IDENTIFYING}), _named(Name.SLOT_DEFERRED), "planned"),
    *(
        Watch(
            frozenset({state}),
            tuple(arrival for arrival in _named(*names) if arrival is not REIDENTIFY_CLOSE),
            (When(all_of(DUE_CAUSE.is_("none"), MAIN_HOST_NEXT), (DUE_CAUSE.becomes("planned"),)),),
        )
        for state, names in _OF_A_HOST
    ),
    _first_cause(LIVE, _named(Name.SLOT_REFUSED), "parked"),
    _first_cause(LIVE, _named(*_FAILURES, Name.INVALID_SESSION, Name.INVALID_RESUMABLE), "failure"),
    Watch(
        LIVE, (*_named(Name.INVALID_SESSION), REIDENTIFY_CLOSE), (When(SESSION.is_("held"), (REFUSED.becomes(YES),)),)
    ),
    Watch(
        frozenset({State.RESUMING}),
        tuple(arrival for arrival in _named(*_RESUME_UNANSWERED) if arrival is not REIDENTIFY_CLOSE),
        (When(DISPATCHED.is_(YES), (REFUSALS.becomes("0"),), _one_more(REFUSALS)),),
    ),
    Watch(_WATCHED, _named(Name.RESUMED), (REFUSALS.becomes("0"),)),
    Watch(
        frozenset({State.CONNECTING}),
        _named(Name.CONNECT_FAILED, Name.TIMEOUT, Name.CLOSED, Name.RECONNECT, Name.BREACH),
        _HOST_FAILED,
    ),
    Watch(
        frozenset({State.RESUMING}),
        _named(Name.CLOSED, Name.TIMEOUT, Name.ZOMBIE, Name.TASK_FAILED, Name.BREACH),
        _HOST_FAILED,
    ),
    Watch(_WATCHED, _named(Name.STABLE), (FAILURES.becomes("0"), FAILED_HOST.becomes("none"))),
    Watch(
        frozenset({State.UNHEALTHY}),
        _named(Name.DIAGNOSED),
        (When(all_of(MAX_ATTEMPTS.is_("two"), DUE_CAUSE.is_("failure")), _one_more(FAILURES)),),
    ),
    Watch(_WATCHED, STOPS, (STOPPED.becomes(YES),)),
    Watch(_WATCHED, (GOODBYE,), (GOODBYE_ASKED.becomes(YES),)),
)


def watched(source: State, arrival: Arrival) -> Effects:
    """Return what the observer records when ``arrival`` causes a transition from ``source``."""
    return tuple(
        effect for watch in WATCHES if source in watch.sources and arrival in watch.arrivals for effect in watch.effects
    )


def expected(source: State, arrival: Arrival, target: State) -> Effects:
    """Return the checks that run after ``arrival`` led from ``source`` to ``target``, whatever the row does."""
    if target is State.READY and source is not target:
        return (*expect(Property.PROGRESS_SAVED, SAVED.is_(YES)), SAVED.becomes(NO))
    if source is State.UNHEALTHY and arrival.trigger is Name.TIMEOUT:
        return expect(Property.VERDICT_AT_ONCE, all_of(SOCKET.is_("none"), waits(Name.DIAGNOSED)))
    return ()


# ---------------------------------------------------------------- what holds in every state

_IN_SESSION = PHASE.is_("in session")


def _ended(kind: EndKind) -> Condition:
    return ENDED.is_(kind.value)


_TOO_MANY = all_of(MAX_ATTEMPTS.is_("two"), FAILURES.is_("2"))

INVARIANTS: tuple[tuple[Property, Condition], ...] = (
    (
        Property.NOTHING_LEFT,
        implies(in_state(State.EXITED), all_of(SOCKET.is_("none"), SLOT.is_("none"), UNSAVED.is_(NO))),
    ),
    (Property.NO_TICKET_LOST, either(SLOT.is_("none"), in_state(State.IDENTIFYING))),
    (Property.TICKET_USED, implies(SLOT.is_("granted"), waits(Name.IDENTIFY_SLOT))),
    (Property.NO_READY_LOST, implies(UNSAVED.is_(YES), either(waits(Name.READY), SAID_GOODBYE.is_(YES)))),
    (Property.SESSION_IN_USE, implies(in_state(State.RESUMING, State.READY), SESSION.is_("held"))),
    (Property.HANDSHAKE, implies(in_state(State.CONNECTING), PHASE.is_("silent", "greeted"))),
    (Property.HANDSHAKE, implies(in_state(State.IDENTIFYING), PHASE.is_("greeted", "identify sent", "in session"))),
    (Property.HANDSHAKE, implies(in_state(State.RESUMING), PHASE.is_("resume sent", "in session"))),
    (Property.HANDSHAKE, implies(in_state(State.READY), PHASE.is_("in session"))),
    (Property.HANDSHAKE, implies(all_of(in_state(State.IDENTIFYING), _IN_SESSION), waits(Name.READY))),
    (Property.HANDSHAKE, implies(all_of(in_state(State.RESUMING), _IN_SESSION), waits(Name.RESUMED))),
    (
        Property.CONNECTED,
        implies(
            in_state(*LIVE),
            either(SOCKET.is_("dialling", "open"), waits(Name.CLOSED), waits(Name.CONNECT_FAILED)),
        ),
    ),
    (Property.PAUSED_IS_RIGHT, implies(in_state(*LIVE), PAUSED.is_(NO))),
    (
        Property.PAUSED_IS_RIGHT,
        implies(
            in_state(State.UNHEALTHY, State.RESTARTING),
            either(*(all_of(PAUSED.is_(value), PAUSE_ASKED.is_(value)) for value in PAUSED.values)),
        ),
    ),
    (Property.END_IS_END, implies(in_state(*LIVE), DUE_CAUSE.is_("none"))),
    *(
        (
            Property.CAUSE_IS_RIGHT,
            implies(
                in_state(State.UNHEALTHY, State.RESTARTING),
                either(*(all_of(CAUSE.is_(k), DUE_CAUSE.is_(k)) for k in CAUSE.values[1:])),
            ),
        ),
    ),
    (Property.ABORTED, implies(in_state(State.RESTARTING), SOCKET.is_("none", "lingering"))),
    (
        Property.DEADLINE_KEPT,
        implies(
            in_state(*(state for state in DEADLINES if state is not State.UNHEALTHY)),
            either(DEADLINE.is_(YES), waits(Name.TIMEOUT)),
        ),
    ),
    (
        Property.DEADLINE_KEPT,
        implies(in_state(State.UNHEALTHY), either(DEADLINE.is_(YES), waits(Name.TIMEOUT), waits(Name.DIAGNOSED))),
    ),
    (
        Property.BACK_OFF,
        implies(
            in_state(State.RESTARTING),
            either(
                all_of(DUE_CAUSE.is_("parked"), CLIMBED.is_(NO)), all_of(DUE_CAUSE.is_not("parked"), CLIMBED.is_(YES))
            ),
        ),
    ),
    (Property.OUTBOX, implies(in_state(State.READY), OUTBOX_OPEN.is_(YES))),
    (Property.OUTBOX, implies(OUTBOX_OPEN.is_(YES), in_state(State.READY))),
    (Property.SLOW_CLOSE, implies(in_state(State.UNHEALTHY, State.STOPPING), CLOSING.is_not(NO))),
    (Property.CLOSED_ENDS, implies(all_of(in_state(State.UNHEALTHY), CLOSING.is_("over")), waits(Name.DIAGNOSED))),
    (Property.CLOSED_ENDS, implies(all_of(in_state(State.STOPPING), CLOSING.is_("over")), waits(Name.STOPPED))),
    (
        Property.GOODBYE_ENDS,
        implies(all_of(in_state(State.STOPPING, State.EXITED), GOODBYE_ASKED.is_(YES)), SESSION.is_("none")),
    ),
    (Property.STOP_ENDS, implies(STOPPED.is_(YES), in_state(State.STOPPING, State.EXITED))),
    (
        Property.FAILURE_ENDS,
        implies(
            in_state(State.RESTARTING),
            Not(either(DUE_CAUSE.is_("fatal"), all_of(FAIL_ON_ERROR.is_(YES), DUE_CAUSE.is_("failure", "parked")))),
        ),
    ),
    (
        Property.ENDS_FOR_A_REASON,
        implies(
            in_state(State.EXITED),
            either(
                all_of(_ended(EndKind.ON_REQUEST), STOPPED.is_(YES)),
                all_of(_ended(EndKind.FATAL), STOPPED.is_(NO), DUE_CAUSE.is_("fatal")),
                all_of(_ended(EndKind.FAILURE), DUE_CAUSE.is_("failure", "parked"), FAIL_ON_ERROR.is_(YES)),
                all_of(_ended(EndKind.EXHAUSTED), DUE_CAUSE.is_("failure"), FAIL_ON_ERROR.is_(NO), _TOO_MANY),
            ),
        ),
    ),
    (Property.COUNTED, implies(in_state(State.RESTARTING), Not(_TOO_MANY))),
)
