"""What the small world remembers: the facts about one shard and its surroundings, and the inbox.

The inbox has three places; who posts waits until one is free, so that each of them owes at most one report. (Posting really
never blocks; a world whose inbox had no bound would have no end.) `stop` overtakes everything, so nothing is lost by having it
taken in the moment in which somebody asks for it.

A report of an older generation, and a timeout of an older visit, turns `VOID` the moment it becomes one: the driver drops the
first and the machine the second, and what they were does not matter any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from discorder.proofs.language import NO, YES, Condition, Copy, Effects, Variable, When, either, flag
from discorder.statemachine.table import INITIAL, Name, State


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something in the inbox. ``value`` is how it reads; one trigger can arrive in several ways that differ in effect."""

    value: str
    trigger: Name

    def __str__(self) -> str:
        return self.value


FATAL_CLOSE = Arrival("closed with a fatal code", Name.CLOSED)
REIDENTIFY_CLOSE = Arrival("closed with 4007 or 4009", Name.CLOSED)
GOODBYE = Arrival("stop with goodbye", Name.STOP)

ARRIVALS: tuple[Arrival, ...] = (
    *(Arrival(name.value, name) for name in Name if name is not Name.STOP),
    FATAL_CLOSE,
    REIDENTIFY_CLOSE,
)
STOPS = (Arrival(Name.STOP.value, Name.STOP), GOODBYE)

EMPTY, VOID = "-", "void"
WITHOUT_A_GENERATION = frozenset({Name.START, Name.RESTART_DUE, Name.STOPPED})
"""What the driver posts to itself; it cannot become stale. (Its timeouts can: they carry the visit.)"""

# ---------------------------------------------------------------- the machine

STATE = Variable("state", tuple(state.value for state in State), (INITIAL.value,))
CAUSE = Variable("cause", ("none", "planned", "failure", "fatal", "parked"))
SESSION = Variable("session", ("none", "held"), ("none", "held"))
FAIL_ON_ERROR = flag("fail_on_error", start=(NO, YES))
MAX_ATTEMPTS = Variable("max_attempts", ("unlimited", "two"), ("unlimited", "two"))
ATTEMPTS = Variable("attempts", ("0", "1", "2"))
SUSPICION = Variable("suspicion", ("0", "1"))  # refusals of RESUME; two give the session up here, three in 180 s there
DEMOTED = flag("resume_host_demoted")
SAID_GOODBYE = flag("said_goodbye")

# ---------------------------------------------------------------- the driver, and what its timers know

PLACES = tuple(
    Variable(f"inbox{n}", (EMPTY, VOID, *(arrival.value for arrival in ARRIVALS)), (start,))
    for n, start in enumerate((Name.START.value, EMPTY, EMPTY))
)
DEADLINE = flag("deadline")  # of the present visit
RESTART_TIMER = flag("restart_timer")
CLOSING = Variable("closing", (NO, "running", "over"))  # Stopping's task
UNTIL = Variable("until", ("none", "unheard", "known"))  # the gate said "not before …"; does the restart timer know?

# ---------------------------------------------------------------- the connection and those around it

SOCKET = Variable("socket", ("none", "dialling", "open", "lingering"))  # lingering: closed, and not gone
PHASE = Variable("phase", ("silent", "greeted", "identify sent", "resume sent", "in session"))
READER = Variable("reader", ("reading", "ended"))
DISPATCHED = flag("dispatched")
HOST = Variable("host", ("main host", "resume host"))
DOCTOR = Variable("doctor", ("watching", "content", "reported", "hangs", "failed"))  # content: has posted `stable`
SLOT = Variable("slot", ("none", "asked", "granted"))
CONGESTED = flag("congested")
WEATHER = Variable("weather", ("bad", "good"))  # good: what is opened from now on works, and nothing new breaks
SOUND = flag("sound")  # this connection was opened in good weather
STOPS_LEFT = Variable("stops_left", ("2", "1", "0"), shown=False)

FACTS = (
    *(STATE, CAUSE, SESSION, FAIL_ON_ERROR, MAX_ATTEMPTS, ATTEMPTS, SUSPICION, DEMOTED, SAID_GOODBYE),
    *(*PLACES, DEADLINE, RESTART_TIMER, CLOSING, UNTIL),
    *(SOCKET, PHASE, READER, DISPATCHED, HOST, DOCTOR, SLOT, CONGESTED, WEATHER, SOUND, STOPS_LEFT),
)


def in_state(*states: State) -> Condition:
    """The machine is in one of ``states``."""
    return STATE.is_(*(state.value for state in states))


# ---------------------------------------------------------------- the inbox

HAS_ROOM = PLACES[-1].is_(EMPTY)


def post(value: str) -> Effects:
    """``value`` goes to the end of the inbox. Only where it `HAS_ROOM`, or one was just taken."""
    first, second, third = PLACES
    at_the_end: Effects = (When(second.is_(EMPTY), (second.becomes(value),), (third.becomes(value),)),)
    return (When(first.is_(EMPTY), (first.becomes(value),), at_the_end),)


def take_first() -> Effects:
    """The first one leaves the inbox."""
    return (*(Copy(place, after) for place, after in pairwise(PLACES)), PLACES[-1].becomes(EMPTY))


def void(*names: Name) -> Effects:
    """Whatever arrived as one of ``names`` counts no more."""
    voided = {arrival.value: VOID for arrival in ARRIVALS if arrival.trigger in names}
    return tuple(place.mapped(voided) for place in PLACES)


def waits(name: Name) -> Condition:
    """A trigger of that name is in the inbox."""
    values = [arrival.value for arrival in ARRIVALS if arrival.trigger is name]
    return either(*(place.is_(*values) for place in PLACES))


def head(arrival: Arrival) -> Condition:
    """``arrival`` is what the machine takes next."""
    if arrival in STOPS:
        return STOPS_LEFT.is_not("0")
    return PLACES[0].is_(arrival.value)


def take(arrival: Arrival) -> Effects:
    """``arrival`` leaves the inbox."""
    return (STOPS_LEFT.mapped({"2": "1", "1": "0"}),) if arrival in STOPS else take_first()
