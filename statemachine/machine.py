"""The running machine: `transitions.Machine` built from the table, one for all shards; each shard is a model on it.

``handle`` is synchronous and atomic: a trigger goes in, commands come out. It never waits, reads a clock, draws a random
number, logs or touches a socket. What must be asked of the world at that moment comes in with the trigger, as `Facts`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from transitions import EventData, Machine

from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger_values
from discorder.statemachine.backoff import (
    FLOOR,
    IDENTIFY_LADDER,
    INVALIDATED,
    RATE_LIMITED,
    REARM_SECONDS,
    RESUME_LADDER,
    SLOW_DOWN_SECONDS,
    Ladder,
    Window,
)
from discorder.statemachine.close_codes import GOODBYE_CLOSE, RESUMABLE_CLOSE, CloseClass, classify
from discorder.statemachine.session import Session, Suspicion
from discorder.statemachine.states import DEADLINES, INITIAL, READY_DEADLINE, State
from discorder.statemachine.table import CELLS, ROWS, Kind
from discorder.statemachine.triggers import Name, Trigger


class CauseKind(Enum):
    """What kind of end a connection came to; exactly one of them."""

    PLANNED = "planned"
    FAILURE = "failure"
    FATAL = "fatal"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a connection ended. The first one of a connection decides; it is cleared when the next socket is opened."""

    kind: CauseKind
    trigger: Name
    text: str
    error: BaseException | None = None
    pause: Window = FLOOR  # waited at least, whatever the ladder says


@dataclass(frozen=True, slots=True)
class Facts:
    """What is asked of the world at the moment of a trigger, not remembered.

    ``now`` in monotonic seconds; ``dispatched``: an event was handed over on this connection; ``socket_closed`` as the
    transport says; ``may_open``: no congested publisher asks to wait.
    """

    now: float = 0.0
    dispatched: bool = False
    socket_closed: bool = True
    may_open: bool = True


class TableError(Exception):
    """No row of the table was enabled where one should be: `check.py` proves that this cannot happen."""


def build_machine() -> Machine:
    """`transitions.Machine` with the rows of the table and nothing else: no automatic transitions, no wildcards."""
    machine = Machine(
        model=None,
        states=list(State),
        initial=INITIAL,
        send_event=True,
        auto_transitions=False,
        ignore_invalid_triggers=False,
        after_state_change="arm_deadline",
    )
    for row in ROWS:
        machine.add_transition(
            row.trigger.value,
            [source.name for source in row.sources],
            None if row.target is None else row.target.name,
            conditions=[guard.value for guard in row.when],
            unless=[guard.value for guard in row.unless],
            before=[action.value for action in row.actions],
        )
    return machine


LIFE_CYCLE = build_machine()
"""Shared by all shards of the process: a model costs a third of what a machine of its own would."""


class ShardMachine:
    """The life cycle of one shard. ``state`` is set by `transitions`.

    ``max_attempts`` 0 never gives up. ``session`` is one kept from an earlier process, or None.
    """

    state: State

    def __init__(self, *, fail_on_error: bool = False, max_attempts: int = 0, session: Session | None = None) -> None:
        self.session = session
        self.cause: Cause | None = None
        self.generation = 0
        self.visit = 0
        self.attempts = 0
        self.unexpected: Counter[tuple[State, Name]] = Counter()
        self._fail_on_error = fail_on_error
        self._max_attempts = max_attempts
        self._ladders: dict[bool, Ladder] = {True: RESUME_LADDER, False: IDENTIFY_LADDER}  # by "can resume"
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        self._dialled_resume_host = False
        self._reached_ready = False
        self._rung_window: Window = FLOOR
        self._until: datetime | None = None
        self._goodbye = False
        self._facts = Facts()
        self._commands: list[command.Command] = []
        LIFE_CYCLE.add_model(self)

    def handle(self, trigger: Trigger, facts: Facts = Facts()) -> list[command.Command]:
        """Take one trigger and return what is to be done, in order.

        A trigger that the table ignores or rejects gives one `Ignored` or `Rejected` and changes nothing. A `Timeout` that
        was armed for an earlier visit is ignored.
        """
        if isinstance(trigger, trigger_values.Timeout) and trigger.visit != self.visit:
            return self._passed_over(Kind.IGNORE, trigger.name, "armed for an earlier visit")
        cell = CELLS.get((self.state, trigger.name))
        if cell is not None:
            return self._passed_over(cell.kind, trigger.name, cell.why)
        self._facts = facts
        self._commands = []
        if not LIFE_CYCLE.events[trigger.name.value].trigger(self, trigger):
            msg = f"no row of the table is enabled for {trigger.name} in {self.state}"
            raise TableError(msg)
        return self._commands

    @property
    def fails_on_error(self) -> bool:
        """`gateway.fail_on_error`: a failure ends the shard."""
        return self._fail_on_error

    def retire(self) -> None:
        """Take this shard off the shared machine. Call it once the shard is Exited and will not be asked again."""
        LIFE_CYCLE.remove_model(self)

    def _passed_over(self, kind: Kind, name: Name, why: str) -> list[command.Command]:
        self.unexpected[self.state, name] += 1
        report = command.Ignored if kind is Kind.IGNORE else command.Rejected
        return [report(self.state, name, why)]

    # ---------------------------------------------------------------- guards: `table.Guard`

    def resumable(self, _: EventData) -> bool:
        return self.session is not None

    def planned(self, _: EventData) -> bool:
        return self._cause_is(CauseKind.PLANNED)

    def fatal(self, _: EventData) -> bool:
        return self._cause_is(CauseKind.FATAL)

    def parked(self, _: EventData) -> bool:
        return self._cause_is(CauseKind.PARKED)

    def fail_on_error(self, _: EventData) -> bool:
        return self._fail_on_error

    def attempts_left(self, _: EventData) -> bool:
        return self._max_attempts == 0 or self.attempts + 1 < self._max_attempts

    def socket_closed(self, _: EventData) -> bool:
        return self._facts.socket_closed

    def may_open(self, _: EventData) -> bool:
        return self._facts.may_open

    def _cause_is(self, kind: CauseKind) -> bool:
        return self.cause is not None and self.cause.kind is kind

    # ---------------------------------------------------------------- actions (table.Action): the socket

    def open_socket(self, _: EventData) -> None:
        self.cause = None
        self._until = None
        self._reached_ready = False
        self.generation += 1
        url = "" if self.session is None or self._resume_host_demoted else self.session.resume_url
        self._dialled_resume_host = url != ""
        self._command(command.OpenSocket(self.generation, url, resume=self.session is not None))

    def abort_socket(self, _: EventData) -> None:
        self._command(command.AbortSocket())

    def demote_host(self, _: EventData) -> None:
        """The next dial of the same session goes to the other host; each failure changes sides."""
        self._resume_host_demoted = self._dialled_resume_host

    # ---------------------------------------------------------------- actions: session and slot

    def send_resume(self, _: EventData) -> None:
        assert self.session is not None  # noqa: S101  # the guard of the row
        self._command(command.SendResume(self.session))

    def request_slot(self, _: EventData) -> None:
        self._command(command.RequestSlot())

    def release_slot(self, _: EventData) -> None:
        self._command(command.ReleaseSlot())

    def send_identify(self, event: EventData) -> None:
        granted = _trigger(event)
        assert isinstance(granted, trigger_values.IdentifySlot)  # noqa: S101  # the trigger of the row
        self._command(command.SendIdentify(granted.ticket))
        self.visit += 1  # a timeout of the deadline that this one replaces may be on its way
        self._command(command.ArmDeadline(READY_DEADLINE, self.visit))

    def save_session(self, event: EventData) -> None:
        ready = _trigger(event)
        assert isinstance(ready, trigger_values.Ready)  # noqa: S101  # the trigger of the row
        if self._goodbye:
            return
        self.session = ready.session
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        self._command(command.SaveSession(ready.session))

    def trust_session(self, _: EventData) -> None:
        self._suspicion = Suspicion()

    def suspect_session(self, _: EventData) -> None:
        if self._facts.dispatched:
            self._suspicion = Suspicion()  # a replayed event proves that the server accepts the session
            return
        if self.session is None:
            return
        self._suspicion = self._suspicion.refused(self._facts.now)
        if self._suspicion.condemns(self._facts.now):
            self._drop(f"RESUME was refused {self._suspicion.refusals} times")

    def drop_session(self, event: EventData) -> None:
        self._drop(_trigger(event).name)

    def _drop(self, why: str) -> None:
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        if self.session is not None:
            self.session = None
            self._command(command.DropSession(why))

    # ---------------------------------------------------------------- actions: the cause

    def note_cause(self, event: EventData) -> None:
        trigger = _trigger(event)
        error = getattr(trigger, "error", None)
        kind, pause = CauseKind.FAILURE, FLOOR
        if isinstance(trigger, trigger_values.InvalidSession | trigger_values.InvalidResumable):
            pause = INVALIDATED
        elif isinstance(trigger, trigger_values.Closed):
            match classify(trigger.code).kind:
                case CloseClass.FATAL:
                    kind = CauseKind.FATAL
                case CloseClass.REIDENTIFY:
                    self._drop(f"close code {trigger.code}")
                case CloseClass.SLOW_DOWN:
                    pause = RATE_LIMITED
                    self._command(command.SlowDown(SLOW_DOWN_SECONDS))
                case CloseClass.RESUME:
                    pass
        self._note(Cause(kind, trigger.name, f"{trigger.name}: {error}", error, pause))

    def note_planned(self, event: EventData) -> None:
        trigger = _trigger(event)
        pause = INVALIDATED if isinstance(trigger, trigger_values.InvalidSession) else FLOOR
        text = _PLANNED[trigger.name]
        if isinstance(trigger, trigger_values.Congested):
            text = f"{text}: {trigger.publisher}"
        self._note(Cause(CauseKind.PLANNED, trigger.name, text, getattr(trigger, "error", None), pause))

    def note_refusal(self, event: EventData) -> None:
        refused = _trigger(event)
        self.note_until(event)
        error = getattr(refused, "error", None)
        self._note(Cause(CauseKind.PARKED, refused.name, f"{refused.name}: {error}", error))

    def note_until(self, event: EventData) -> None:
        refused = _trigger(event)
        assert isinstance(refused, trigger_values.SlotRefused)  # noqa: S101  # the trigger of the row
        self._until = refused.until if self._until is None else max(self._until, refused.until)

    def _note(self, cause: Cause) -> None:
        if self.cause is None:
            self.cause = cause

    # ---------------------------------------------------------------- actions: verdict, back-off, stop

    def diagnose(self, _: EventData) -> None:
        self._command(command.Diagnose())

    def climb(self, _: EventData) -> None:
        """Take the present rung of the ladder and go one up; op 7 in a session that was up costs only the floor."""
        if self._cause_is(CauseKind.PLANNED) and self._cause_trigger() is Name.RECONNECT and self._reached_ready:
            self._rung_window = FLOOR
            return
        ladder = self._ladders[self.session is not None]
        self._rung_window = ladder.window()
        self._ladders[self.session is not None] = ladder.climbed()

    def count_attempt(self, _: EventData) -> None:
        self.attempts += 1

    def schedule_restart(self, _: EventData) -> None:
        pause = FLOOR if self.cause is None else self.cause.pause
        windows = (pause,) if self._cause_is(CauseKind.PARKED) else (self._rung_window, pause)
        self._command(command.ScheduleRestart(windows, self._until))

    def rearm_restart(self, _: EventData) -> None:
        retry = Window(REARM_SECONDS, REARM_SECONDS)
        self._command(command.ScheduleRestart((retry,), self._until, again=True))

    def reset_attempts(self, _: EventData) -> None:
        self.attempts = 0
        self._resume_host_demoted = False
        self._ladders = {can_resume: ladder.reset() for can_resume, ladder in self._ladders.items()}

    def note_stop(self, event: EventData) -> None:
        stop = _trigger(event)
        assert isinstance(stop, trigger_values.Stop)  # noqa: S101  # the trigger of the row
        self._goodbye = stop.goodbye
        if stop.goodbye:
            self._drop("goodbye")
        self._command(command.CloseSocket(GOODBYE_CLOSE if stop.goodbye else RESUMABLE_CLOSE))

    def _cause_trigger(self) -> Name | None:
        return None if self.cause is None else self.cause.trigger

    # ---------------------------------------------------------------- after each change of state

    def arm_deadline(self, event: EventData) -> None:
        """Called by `transitions` after every transition; one that stays in its state keeps the deadline it has."""
        if event.transition is None or event.transition.dest is None:
            return
        self.visit += 1
        if self.state is State.READY:
            self._reached_ready = True  # not where READY is saved: one that comes late, in Unhealthy, proves nothing
        if (deadline := DEADLINES.get(self.state)) is not None:
            self._command(command.ArmDeadline(deadline, self.visit))

    def _command(self, wanted: command.Command) -> None:
        self._commands.append(wanted)


_PLANNED = {
    Name.RECONNECT: "op 7: Discord asked for a new connection",
    Name.INVALID_RESUMABLE: "op 9 true: Discord asked to resume on a new connection",
    Name.INVALID_SESSION: "op 9 false: Discord refused to resume the session",
    Name.CONGESTED: "a publisher that must not lose is full",
}


def _trigger(event: EventData) -> Trigger:
    trigger: Trigger = next(iter(event.args))
    return trigger
