"""The life cycle of one shard, running: a model on the machine that is built from the table (`life_cycle.py`).

``handle`` is synchronous and atomic: a trigger goes in, commands come out. It never waits, reads a clock, draws a random
number, logs or touches a socket. What must be asked of the world at that moment comes in with the trigger, as `Facts`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from transitions import EventData

from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger_values
from discorder.statemachine.backoff import (
    FLOOR,
    IDENTIFY_LADDER,
    REARM_SECONDS,
    RESUME_LADDER,
    SLOW_DOWN_SECONDS,
    Ladder,
    Window,
)
from discorder.statemachine.cause import Cause, CauseKind, failure, interruption, refusal
from discorder.statemachine.close_codes import GOODBYE_CLOSE, RESUMABLE_CLOSE, CloseClass, classify
from discorder.statemachine.life_cycle import LIFE_CYCLE, TableError
from discorder.statemachine.session import Session, Suspicion
from discorder.statemachine.table import CELLS, DEADLINES, READY_DEADLINE, Name, State
from discorder.statemachine.terms import Kind
from discorder.statemachine.triggers import Trigger


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


class ShardMachine:
    """The life cycle of one shard. ``state`` is set by `transitions`.

    ``max_attempts`` 0 never gives up. ``session`` is one kept from an earlier process, or None.
    """

    state: State

    # no first value: an action that comes before whatever reads them sets them
    _dialled_resume_host: bool  # by open_socket, as the next two
    _reached_ready: bool
    _until: datetime | None
    _rung_window: Window  # by climb
    _facts: Facts  # by handle, as the next one
    _commands: list[command.Command]

    def __init__(self, *, fail_on_error: bool = False, max_attempts: int = 0, session: Session | None = None) -> None:
        self.session = session
        self.cause: Cause | None = None
        self.generation = 0
        self.visit = 0
        self.attempts = 0
        self.unexpected: Counter[tuple[State, Name]] = Counter()
        self.fails_on_error = fail_on_error  # `gateway.fail_on_error`: a failure ends the shard
        self._max_attempts = max_attempts
        self._ladders: dict[bool, Ladder] = {True: RESUME_LADDER, False: IDENTIFY_LADDER}  # by "can resume"
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        self._goodbye = False
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
        return self.fails_on_error

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
        self._hold(ready.session)
        self._command(command.SaveSession(ready.session))

    def trust_session(self, _: EventData) -> None:
        self._suspicion = Suspicion()

    def suspect_session(self, _: EventData) -> None:
        if self._facts.dispatched:
            self._suspicion = Suspicion()  # a replayed event proves that the server accepts the session
            return
        self._suspicion = self._suspicion.refused(self._facts.now)
        if self._suspicion.condemns(self._facts.now):
            self._drop(f"RESUME was refused {self._suspicion.refusals} times")

    def drop_session(self, event: EventData) -> None:
        self._drop(_trigger(event).name)

    def _drop(self, why: str) -> None:
        if self.session is not None:
            self._hold(None)
            self._command(command.DropSession(why))

    def _hold(self, session: Session | None) -> None:
        """What was said against the session before, and against its host, does not concern this one."""
        self.session = session
        self._suspicion = Suspicion()
        self._resume_host_demoted = False

    # ---------------------------------------------------------------- actions: the cause

    def note_cause(self, event: EventData) -> None:
        trigger = _trigger(event)
        if isinstance(trigger, trigger_values.Closed):
            match classify(trigger.code).kind:
                case CloseClass.REIDENTIFY:
                    self._drop(f"close code {trigger.code}")
                case CloseClass.SLOW_DOWN:
                    self._command(command.SlowDown(SLOW_DOWN_SECONDS))
                case CloseClass.FATAL | CloseClass.RESUME:
                    pass
        self._note(failure(trigger))

    def note_planned(self, event: EventData) -> None:
        self._note(interruption(_trigger(event)))

    def note_refusal(self, event: EventData) -> None:
        self.note_until(event)
        self._note(refusal(_trigger(event)))

    def note_until(self, event: EventData) -> None:
        answer = _trigger(event)
        assert isinstance(answer, trigger_values.SlotRefused | trigger_values.SlotDeferred)  # noqa: S101  # of the row
        self._until = answer.until if self._until is None else max(self._until, answer.until)

    def _note(self, cause: Cause) -> None:
        if self.cause is None:
            self.cause = cause

    # ---------------------------------------------------------------- actions: verdict, back-off, stop

    def diagnose(self, _: EventData) -> None:
        self._command(command.Diagnose())

    def climb(self, _: EventData) -> None:
        """Take the present rung of the ladder and go one up.

        Op 7 in a session that was up costs only the floor, and so does coming back for one's turn.
        """
        trigger = self._cause_trigger()
        if trigger is Name.SLOT_DEFERRED or (trigger is Name.RECONNECT and self._reached_ready):
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


def _trigger(event: EventData) -> Trigger:
    trigger: Trigger = next(iter(event.args))
    return trigger
