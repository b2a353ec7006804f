"""Define the variables of the model: one shard, its environment, and the inbox.

The inbox has three places, so that the model is finite; a step that posts waits for a free place. (The real inbox never
blocks.) `stop` and the verbs of an operator overtake everything, so the model processes them at the moment of the request.

A report of an older connection or a timeout of an older visit becomes `VOID`, because the driver drops the first and the
machine ignores the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from discorder.proofs.model_dsl import NO, TRUE, YES, Condition, Copy, Effects, Variable, When, either, flag
from discorder.statemachine.table import INITIAL, VERBS, Name, State


@dataclass(frozen=True, slots=True)
class Arrival:
    """Describe an entry of the inbox. ``value`` is its text; one trigger can have several entries with different effects."""

    value: str
    trigger: Name

    def __str__(self) -> str:
        return self.value


FATAL_CLOSE = Arrival("closed with a fatal code", Name.CLOSED)
REIDENTIFY_CLOSE = Arrival("closed with 4007 or 4009", Name.CLOSED)
GOODBYE = Arrival("stop with goodbye", Name.STOP)

ARRIVALS: tuple[Arrival, ...] = (
    *(Arrival(name.value, name) for name in Name if name is not Name.STOP and name not in VERBS),
    FATAL_CLOSE,
    REIDENTIFY_CLOSE,
)
STOPS = (Arrival(Name.STOP.value, Name.STOP), GOODBYE)
ACTS = tuple(Arrival(name.value, name) for name in Name if name in VERBS)
AT_ONCE = (*STOPS, *ACTS)
"""What an operator requests. It is not in the inbox."""

EMPTY, VOID = "-", "void"
WITHOUT_A_GENERATION = frozenset({Name.START, Name.STOPPED})
"""Triggers that the driver posts to itself. They cannot become outdated. (Its timeouts can: they carry the visit.)"""

# ---------------------------------------------------------------- the machine

STATE = Variable("state", tuple(state.value for state in State), (INITIAL.value,))
CAUSE = Variable("cause", ("none", "planned", "failure", "fatal", "parked"))
SESSION = Variable("session", ("none", "held"), ("none", "held"))
FAIL_ON_ERROR = flag("fail_on_error", start=(NO, YES))
MAX_ATTEMPTS = Variable("max_attempts", ("unlimited", "two"), ("unlimited", "two"))
ATTEMPTS = Variable("attempts", ("0", "1", "2"))
SUSPICION = Variable("suspicion", ("0", "1"))  # refusals of RESUME; the model drops the session at two
DEMOTED = flag("resume_host_demoted")
MAIN_TRIED = flag("main_host_tried")  # with the held session, since Ready was stable
MAIN_TRIED_BEFORE = flag("main_host_tried_before")  # before the current dial
SAID_GOODBYE = flag("said_goodbye")
PAUSED = flag("paused", start=(NO, YES))

# ---------------------------------------------------------------- the driver and its timers

PLACES = tuple(
    Variable(f"inbox{n}", (EMPTY, VOID, *(arrival.value for arrival in ARRIVALS)), (start,))
    for n, start in enumerate((Name.START.value, EMPTY, EMPTY))
)
DEADLINE = flag("deadline")  # of the current visit
RESTART_TIMER = flag("restart_timer")
ASKED_WAIT = flag("asked_wait")  # the wait that Discord or a host asked for, at least the floor, is not over
CLOSING = Variable("closing", (NO, "running", "over"))  # of the socket, in the current state
UNTIL = Variable("until", ("none", "unheard", "known"))  # the gate's earliest time; known: to the restart timer

# ---------------------------------------------------------------- the connection and its environment

SOCKET = Variable("socket", ("none", "dialling", "open", "lingering"))  # lingering: closed but not gone
PHASE = Variable("phase", ("silent", "greeted", "identify sent", "resume sent", "in session"))
READER = Variable("reader", ("reading", "ended"))
DISPATCHED = flag("dispatched")
HOST = Variable("host", ("main host", "resume host"))
DOCTOR = Variable("doctor", ("watching", "content", "reported", "failed"))  # content: has posted `stable`
SLOT = Variable("slot", ("none", "asked", "granted"))
CONGESTED = flag("congested")
WEATHER = Variable("weather", ("bad", "good"))  # good: new connections work, and no new fault happens
SOUND = flag("sound")  # this connection was opened while the network was good
STOPS_LEFT = Variable("stops_left", ("2", "1", "0"), shown=False)

FACTS = (
    *(STATE, CAUSE, SESSION, FAIL_ON_ERROR, MAX_ATTEMPTS, ATTEMPTS, SUSPICION, DEMOTED, MAIN_TRIED, MAIN_TRIED_BEFORE),
    *(SAID_GOODBYE, PAUSED, *PLACES, DEADLINE, RESTART_TIMER, ASKED_WAIT, CLOSING, UNTIL),
    *(SOCKET, PHASE, READER, DISPATCHED, HOST, DOCTOR, SLOT, CONGESTED, WEATHER, SOUND, STOPS_LEFT),
)


def in_state(*states: State) -> Condition:
    """Return the condition that the machine is in one of ``states``."""
    return STATE.is_(*(state.value for state in states))


# ---------------------------------------------------------------- the inbox

HAS_ROOM = PLACES[-1].is_(EMPTY)


def post(value: str) -> Effects:
    """Append ``value`` to the inbox. Requires `HAS_ROOM`, or an entry that was just taken."""
    first, second, third = PLACES
    at_the_end: Effects = (When(second.is_(EMPTY), (second.becomes(value),), (third.becomes(value),)),)
    return (When(first.is_(EMPTY), (first.becomes(value),), at_the_end),)


def take_first() -> Effects:
    """Remove the first entry from the inbox."""
    return (*(Copy(place, after) for place, after in pairwise(PLACES)), PLACES[-1].becomes(EMPTY))


def void(*names: Name) -> Effects:
    """Void every entry of the inbox with a trigger in ``names``."""
    voided = {arrival.value: VOID for arrival in ARRIVALS if arrival.trigger in names}
    return tuple(place.mapped(voided) for place in PLACES)


def waits(name: Name) -> Condition:
    """Return the condition that a trigger ``name`` is in the inbox."""
    values = [arrival.value for arrival in ARRIVALS if arrival.trigger is name]
    return either(*(place.is_(*values) for place in PLACES))


def head(arrival: Arrival) -> Condition:
    """Return the condition that the machine takes ``arrival`` next.

    Once the network is good, the operator only unpauses: otherwise nothing could be said about recovery.
    """
    if arrival in STOPS:
        return STOPS_LEFT.is_not("0")
    if arrival in ACTS:
        return TRUE if arrival.trigger is Name.UNPAUSE else WEATHER.is_("bad")
    return PLACES[0].is_(arrival.value)


def take(arrival: Arrival) -> Effects:
    """Remove ``arrival`` from the inbox. A stop or a verb is not in the inbox; for a stop, reduce `STOPS_LEFT` instead."""
    if arrival in ACTS:
        return ()
    return (STOPS_LEFT.mapped({"2": "1", "1": "0"}),) if arrival in STOPS else take_first()
