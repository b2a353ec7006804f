"""The running machine does what the table says, for every state x trigger x guard valuation: targets and commands.

Constructor arguments, facts and the way into the state set the valuations, as in production.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from discorder.statemachine import CauseKind, Facts, Session, State
from discorder.statemachine import commands as command
from discorder.statemachine.check import enabled
from discorder.statemachine.life_cycle import LIFE_CYCLE
from discorder.statemachine.table import CELLS, DEADLINES, ENTRY, EXIT, INITIAL, ROWS, Name, rows_for
from discorder.statemachine.terms import Action, Guard, Kind, Task
from discorder.statemachine.triggers import (
    Closed,
    Diagnosed,
    Hello,
    Pause,
    Ready,
    Reconnect,
    Resumed,
    SlotRefused,
    Start,
    Stop,
    Stopped,
    TaskFailed,
    Trigger,
    Zombie,
)

if TYPE_CHECKING:
    from tests.statemachine.conftest import Playbook, PlaybookMaker

SESSION = Session("kept", "wss://resume.example")
REFUSED = OSError("refused")
HERE = "tests/statemachine/test_conformance.py"

COMMANDS: dict[Action, tuple[type[command.Command], ...]] = {
    Action.OPEN_SOCKET: (command.OpenSocket,),
    Action.SEND_RESUME: (command.SendResume,),
    Action.REQUEST_SLOT: (command.RequestSlot,),
    Action.RELEASE_SLOT: (command.ReleaseSlot,),
    Action.SEND_IDENTIFY: (command.SendIdentify, command.ArmDeadline),
    Action.SAVE_SESSION: (command.SaveSession,),
    Action.DROP_SESSION: (command.DropSession,),  # nothing where no session is held
    Action.TRUST_SESSION: (),
    Action.SUSPECT_SESSION: (),  # a first refusal; the third one is in test_session_rules.py
    Action.DEMOTE_HOST: (),
    Action.NOTE_CAUSE: (),  # close codes that do more are in test_close_codes.py
    Action.NOTE_HOST_FAILURE: (),
    Action.NOTE_PLANNED: (),
    Action.NOTE_REFUSAL: (),
    Action.NOTE_UNTIL: (),
    Action.NOTE_STOP: (),
    Action.NOTE_PAUSE: (command.SavePause,),
    Action.NOTE_UNPAUSE: (command.DropPause,),
    Action.CLOSE_SOCKET: (command.CloseSocket,),
    Action.ABORT_SOCKET: (command.AbortSocket,),
    Action.DIAGNOSE: (command.Diagnose,),
    Action.CLIMB: (),
    Action.COUNT_ATTEMPT: (),
    Action.SCHEDULE_RESTART: (command.ScheduleRestart,),
    Action.REARM_RESTART: (command.ScheduleRestart,),
    Action.WAKE_RESTART: (command.WakeRestart,),
    Action.RESET_ATTEMPTS: (),
    Action.OPEN_OUTBOX: (command.OpenOutbox,),
    Action.SHUT_OUTBOX: (command.ShutOutbox,),
    Action.SAVE_PROGRESS: (command.SaveProgress,),
    Action.END_ON_REQUEST: (command.End,),
    Action.END_FATALLY: (command.End,),
    Action.END_ON_FAILURE: (command.End,),
    Action.END_EXHAUSTED: (command.End,),
}
"""The expected commands of each action, a second copy that was written by hand."""

REPORTS: dict[Kind, type[command.PassedOver]] = {
    Kind.IGNORE: command.Ignored,
    Kind.REJECT: command.Rejected,
    Kind.BREACH: command.ReportBreach,
}


@dataclass(frozen=True, slots=True)
class World:
    """One valuation of all guards, given by the values that set it. ``cause`` is None where no connection has ended.

    ``paused``: in a state with `PAUSABLE`, an operator has paused the shard.
    """

    state: State
    resumable: bool
    cause: CauseKind | None
    fail_on_error: bool
    attempts_left: bool
    socket_closed: bool
    may_open: bool
    paused: bool

    def valuation(self) -> dict[Guard, bool]:
        return {
            Guard.RESUMABLE: self.resumable,
            Guard.PLANNED: self.cause is CauseKind.PLANNED,
            Guard.FATAL: self.cause is CauseKind.FATAL,
            Guard.PARKED: self.cause is CauseKind.PARKED,
            Guard.FAIL_ON_ERROR: self.fail_on_error,
            Guard.ATTEMPTS_LEFT: self.attempts_left,
            Guard.SOCKET_CLOSED: self.socket_closed,
            Guard.MAY_OPEN: self.may_open,
            Guard.PAUSED: self.paused,
        }


PAUSABLE = frozenset({State.DISCONNECTED, State.UNHEALTHY, State.RESTARTING})
"""The states in which a shard can be paused. In the live states a pause ends the connection."""

# (state, resumable, cause): a legal path to it. The session is held from the start where ``resumable`` is set.
_INTO_UNHEALTHY: dict[CauseKind, Trigger] = {
    CauseKind.PLANNED: Reconnect(),
    CauseKind.FATAL: Closed(4004, REFUSED),
    CauseKind.FAILURE: TaskFailed(Task.PROCESSOR, REFUSED),
}


def ways(until: Trigger) -> dict[tuple[State, bool, CauseKind | None], tuple[Session | None, tuple[Trigger, ...]]]:
    """Return the paths into each state, with and without a session, for each kind of cause."""
    found: dict[tuple[State, bool, CauseKind | None], tuple[Session | None, tuple[Trigger, ...]]] = {
        (State.IDENTIFYING, False, None): (None, (Start(), Hello())),
        (State.RESUMING, True, None): (SESSION, (Start(), Hello())),
        (State.READY, True, None): (SESSION, (Start(), Hello(), Resumed())),
        (State.UNHEALTHY, False, CauseKind.PARKED): (None, (Start(), Hello(), until)),
        (State.UNHEALTHY, True, CauseKind.PARKED): (None, (Start(), Hello(), until, Ready(SESSION))),
    }
    for resumable, session in ((True, SESSION), (False, None)):
        found[State.DISCONNECTED, resumable, None] = (session, ())
        found[State.CONNECTING, resumable, None] = (session, (Start(),))
        found[State.STOPPING, resumable, None] = (session, (Start(), Stop()))
        found[State.EXITED, resumable, None] = (session, (Start(), Stop(), Stopped()))
        for kind, ended in _INTO_UNHEALTHY.items():
            found[State.UNHEALTHY, resumable, kind] = (session, (Start(), ended))
        found[State.RESTARTING, resumable, CauseKind.PLANNED] = (session, (Start(), Reconnect(), Diagnosed()))
    return found


def worlds(until: Trigger) -> Iterator[World]:
    """Return every state with every valuation of the guards that can occur in it."""
    for (state, resumable, cause), rest in itertools.product(ways(until), itertools.product((False, True), repeat=5)):
        world = World(state, resumable, cause, *rest)
        if not world.paused or state in PAUSABLE:
            yield world


def in_world(play: PlaybookMaker, world: World, until: Trigger) -> Playbook:
    """Return a shard that reached ``world`` by legal triggers."""
    session, way = ways(until)[world.state, world.resumable, world.cause]
    attempts = 0 if world.attempts_left else 1
    book = play(session=session, fail_on_error=world.fail_on_error, max_attempts=attempts)
    return book.on(*way, *((Pause(),) if world.paused else ())).then(world.state)


@pytest.fixture
def until(play: PlaybookMaker) -> Trigger:
    """Return a refusal by the identify gate."""
    refused = play().trigger(Name.SLOT_REFUSED)
    assert isinstance(refused, SlotRefused)
    return refused


@pytest.mark.parametrize("trigger", Name)
def test_the_machine_does_what_the_table_says(trigger: Name, play: PlaybookMaker, until: Trigger) -> None:
    """Check each state and guard valuation: the target of the row and the commands of its actions, in order."""
    for world in worlds(until):
        book = in_world(play, world, until)
        visit = book.machine.visit
        facts = Facts(socket_closed=world.socket_closed, may_open=world.may_open)
        commands = book.machine.handle(book.trigger(trigger), facts)
        book.machine.retire()
        cell = CELLS.get((world.state, trigger))
        if cell is not None:
            assert commands == [REPORTS[cell.kind](world.state, trigger, cell.why)]
            assert (book.machine.state, book.machine.visit) == (world.state, visit)
            continue
        (row,) = [row for row in rows_for(world.state, trigger) if enabled(row, world.valuation())]
        if row.idle:
            assert commands == [command.Ignored(world.state, trigger, row.why)]
            assert (book.machine.state, book.machine.visit) == (world.state, visit)
            continue
        assert book.machine.state is (row.target or world.state), world
        rearmed = Action.SEND_IDENTIFY in row.actions  # the deadline that replaces one gets a number of its own
        assert book.machine.visit == visit + (row.target is not None or rearmed)
        standing = () if row.target is None else (*EXIT.get(world.state, ()), *ENTRY.get(row.target, ()))
        expected = [kind for action in (*row.actions, *standing) for kind in commands_of(action, world)]
        if row.target is not None and row.target in DEADLINES:
            assert commands[-1] == command.ArmDeadline(DEADLINES[row.target], book.machine.visit)
            expected.append(command.ArmDeadline)
        assert [type(wanted) for wanted in commands] == expected, (world, row)


def commands_of(action: Action, world: World) -> tuple[type[command.Command], ...]:
    """Return the commands of the action in this world."""
    assert action in COMMANDS, f"what does {action} ask for? Add it to COMMANDS in {HERE}"
    return () if action is Action.DROP_SESSION and not world.resumable else COMMANDS[action]


def test_every_row_is_driven(until: Trigger) -> None:
    """Every row is enabled in at least one of the worlds."""
    states = {state for state, _, _ in ways(until)}
    assert states == set(State), f"no way leads into {set(State) - states}: add one to ways() in {HERE}"
    driven = {
        (world.state, row.trigger, row.why)
        for world in worlds(until)
        for row in ROWS
        if world.state in row.sources and enabled(row, world.valuation())
    }
    missing = {(source, row.trigger, row.why) for row in ROWS for source in row.sources} - driven
    assert missing == set(), f"no world enables these: add what does to ways() or World in {HERE}"


def test_a_world_gives_every_guard_a_value(until: Trigger) -> None:
    """A guard without a value could not be tested."""
    missing = set(Guard) - set(next(worlds(until)).valuation())
    assert missing == set(), f"what sets these guards? Add it to World in {HERE}"


def test_the_machine_of_transitions_has_the_rows_of_the_table_and_no_others() -> None:
    """Triggers, sources, targets, guards and actions of the real machine are those of the table."""
    real = sorted(
        (
            name,
            transition.source,
            transition.dest or "",
            tuple((condition.func, condition.target) for condition in transition.conditions),
            tuple(transition.before),
        )
        for name, event in LIFE_CYCLE.events.items()
        for transitions in event.transitions.values()
        for transition in transitions
    )
    written = sorted(
        (
            row.trigger.value,
            source.name,
            "" if row.target is None else row.target.name,
            (*((guard.value, True) for guard in row.when), *((guard.value, False) for guard in row.unless)),
            tuple(action.value for action in row.actions),
        )
        for row in ROWS
        for source in row.sources
    )
    assert real == written


def test_a_shard_begins_disconnected(play: PlaybookMaker) -> None:
    """It gives no command, with or without a stored session, and no connection has ended."""
    for book in (play(session=SESSION), play()):
        book.then(INITIAL)
        assert book.machine.cause is None


def test_shards_on_the_shared_machine_do_not_touch_each_other(play: PlaybookMaker) -> None:
    """One machine has many models. A trigger of one shard does not affect the next."""
    one, other = play(session=SESSION), play()
    one.on(Start(), Hello(), Zombie(REFUSED)).then(State.UNHEALTHY)
    other.then(State.DISCONNECTED)
    other.on(Start(), Hello()).then(State.IDENTIFYING)
    one.then(State.UNHEALTHY)
    assert other.machine.cause is None


def test_a_shard_that_retires_leaves_nothing_behind_on_the_shared_machine(play: PlaybookMaker) -> None:
    """Otherwise a process whose shards come and go would keep them all."""
    one, other = play().machine, play().machine
    one.retire()
    assert one not in LIFE_CYCLE.models
    assert other in LIFE_CYCLE.models
