"""Run the life cycle of one shard: a model on the machine that is built from the table (`life_cycle.py`).

``handle`` takes a trigger and returns commands, synchronously and atomically. It never waits, reads a clock, draws a random
number, logs or uses a socket. The caller passes the facts that it must know at that moment as `Facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from discorder.statemachine.cause import Cause, CauseKind, Ended, EndKind, detour, failure, interruption, refusal
from discorder.statemachine.close_codes import CloseClass
from discorder.statemachine.life_cycle import LIFE_CYCLE, TableError
from discorder.statemachine.session import Session, Suspicion
from discorder.statemachine.table import CELLS, CLOSINGS, DEADLINES, IDLE_ROWS, LIVE, READY_DEADLINE, Name, Row, State
from discorder.statemachine.terms import Kind
from discorder.statemachine.triggers import Trigger


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold the facts that the machine reads at the moment of a trigger and does not store.

    ``now``: monotonic seconds. ``dispatched``: an event was dispatched on this connection. ``socket_closed``: as the transport
    reports it. ``may_open``: no congested publisher blocks a new connection. ``substituted``: the main host was requested but
    its address is unknown, so the resume host was dialled instead.
    """

    now: float = 0.0
    dispatched: bool = False
    socket_closed: bool = True
    may_open: bool = True
    substituted: bool = False


class ShardMachine:
    """Run the life cycle of one shard. `transitions` sets ``state``.

    ``max_attempts`` 0 retries without limit. ``session`` is a session stored by an earlier process, or None; ``paused``: an
    operator paused the shard in an earlier process.
    """

    state: State

    # no initial values: an action sets each of them before another one reads it
    _dialled_resume_host: bool  # set by open_socket, like the next three
    _main_host_tried_before: bool  # before the current dial
    _reached_ready: bool
    _session_lost: bool
    _rung_window: Window  # set by climb
    _facts: Facts  # set by handle, like the next one
    _commands: list[command.Command]

    def __init__(
        self,
        *,
        fail_on_error: bool = False,
        max_attempts: int = 0,
        session: Session | None = None,
        paused: bool = False,
    ) -> None:
        self.session = session
        self.is_paused = paused
        self.cause: Cause | None = None
        self.generation = 0
        self.visit = 0
        self.attempts = 0
        self.fails_on_error = fail_on_error  # `gateway.fail_on_error`: a failure ends the shard
        self._max_attempts = max_attempts
        self._ladders: dict[bool, Ladder] = {True: RESUME_LADDER, False: IDENTIFY_LADDER}  # key: resumable
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        self._main_host_tried = False  # since this session began or the connection was last stable
        self._until: datetime | None = None  # the earliest dial that the gate allows; cleared by open_socket
        self._goodbye = False
        LIFE_CYCLE.add_model(self)

    def handle(self, trigger: Trigger, facts: Facts = Facts()) -> list[command.Command]:
        """Process one trigger and return the commands to execute, in order.

        A trigger that the table ignores, rejects or calls a breach returns one `PassedOver` and changes nothing. A `Timeout`
        that was armed for an earlier visit is ignored. Raises `TableError` if no row is enabled.
        """
        if isinstance(trigger, trigger_values.Timeout) and trigger.visit != self.visit:
            return self._passed_over(Kind.IGNORE, trigger.name, "armed for an earlier visit")
        cell = CELLS.get((self.state, trigger.name))
        if cell is not None:
            return self._passed_over(cell.kind, trigger.name, cell.why)
        self._facts = facts
        idle = next((row for row in IDLE_ROWS.get((self.state, trigger.name), ()) if self._is_enabled(row)), None)
        if idle is not None:
            return self._passed_over(Kind.IGNORE, trigger.name, idle.why)
        if facts.substituted and not self._dialled_resume_host:
            self._dialled_resume_host = True
            self._main_host_tried = self._main_host_tried_before
        self._commands = []
        if not LIFE_CYCLE.events[trigger.name.value].trigger(self, trigger):
            msg = f"no row of the table is enabled for {trigger.name} in {self.state}"
            raise TableError(msg)
        return self._commands

    @property
    def to_resume_host(self) -> bool:
        """Return whether the connection goes to the resume host; between two connections whether the next dial will."""
        return self._dialled_resume_host if self.state in LIVE else self._url != ""

    @property
    def is_parked(self) -> bool:
        """Return whether the identify gate refused until later."""
        return self._cause_is(CauseKind.PARKED)

    @property
    def _url(self) -> str:
        """Return the URL to dial next, "" for the main host."""
        return "" if self.session is None or self._resume_host_demoted else self.session.resume_url

    def retire(self) -> None:
        """Remove this shard from the shared machine. Call it when the shard is Exited and no longer used."""
        LIFE_CYCLE.remove_model(self)

    def _is_enabled(self, row: Row) -> bool:
        holds = {guard: bool(getattr(self, guard.value)()) for guard in (*row.when, *row.unless)}
        return all(holds[guard] for guard in row.when) and not any(holds[guard] for guard in row.unless)

    def _passed_over(self, kind: Kind, name: Name, why: str) -> list[command.Command]:
        return [_REPORTS[kind](self.state, name, why)]

    # ---------------------------------------------------------------- guards: `table.Guard`

    def resumable(self, _: object = None) -> bool:
        return self.session is not None

    def planned(self, _: object = None) -> bool:
        return self._cause_is(CauseKind.PLANNED)

    def fatal(self, _: object = None) -> bool:
        return self._cause_is(CauseKind.FATAL)

    def parked(self, _: object = None) -> bool:
        return self._cause_is(CauseKind.PARKED)

    def fail_on_error(self, _: object = None) -> bool:
        return self.fails_on_error

    def attempts_left(self, _: object = None) -> bool:
        return self._max_attempts == 0 or self.attempts + 1 < self._max_attempts

    def socket_closed(self, _: object = None) -> bool:
        return self._facts.socket_closed

    def may_open(self, _: object = None) -> bool:
        return self._facts.may_open

    def paused(self, _: object = None) -> bool:
        return self.is_paused

    def _cause_is(self, kind: CauseKind) -> bool:
        return self.cause is not None and self.cause.kind is kind

    # ---------------------------------------------------------------- actions (table.Action): the socket

    def open_socket(self, _: EventData) -> None:
        self.cause = None
        self._until = None
        self._reached_ready = False
        self._session_lost = False
        self.generation += 1
        url = self._url
        self._dialled_resume_host = url != ""
        self._main_host_tried_before = self._main_host_tried
        self._main_host_tried = self._main_host_tried or not self._dialled_resume_host
        self._command(command.OpenSocket(self.generation, url))

    def abort_socket(self, _: EventData) -> None:
        self._command(command.AbortSocket())

    def close_socket(self, _: EventData) -> None:
        """Close the socket with the `Closing` of the state that is entered."""
        closing = CLOSINGS[self.state]
        self._command(command.CloseSocket(not self._goodbye, closing.seconds, _AFTER_CLOSE[closing.then]))

    def demote_host(self, _: EventData) -> None:
        """Send the next dial of the same session to the other host. The hosts alternate with each failure."""
        self._resume_host_demoted = self._dialled_resume_host

    # ---------------------------------------------------------------- actions: session and slot

    def send_resume(self, _: EventData) -> None:
        assert self.session is not None  # noqa: S101  # the guard of the row
        self._command(command.SendResume(self.session))

    def request_slot(self, _: EventData) -> None:
        self._command(command.RequestSlot())

    def release_slot(self, _: EventData) -> None:
        self._command(command.ReleaseSlot())

    def send_identify(self, _: EventData) -> None:
        self._command(command.SendIdentify())
        self.visit += 1  # a timeout of the replaced deadline may already be queued
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
            self._suspicion = Suspicion()  # a replayed event proves that Discord accepts the session
            return
        self._suspicion = self._suspicion.refused(self._facts.now)
        if self._suspicion.condemns(self._facts.now):
            self._drop(f"RESUME was refused {self._suspicion.refusals} times")

    def drop_session(self, event: EventData) -> None:
        self._drop(_trigger(event).name)

    def _drop(self, why: str) -> None:
        if self.session is not None:
            self._session_lost = True
            self._hold(None)
            self._command(command.DropSession(why))

    def _hold(self, session: Session | None) -> None:
        """Replace the session and reset what was recorded about the previous session and its host."""
        self.session = session
        self._suspicion = Suspicion()
        self._resume_host_demoted = False
        self._main_host_tried = False

    # ---------------------------------------------------------------- actions: the cause

    def note_cause(self, event: EventData) -> None:
        trigger = _trigger(event)
        if isinstance(trigger, trigger_values.Closed):
            match trigger.close_code.kind:
                case CloseClass.REIDENTIFY:
                    self._drop(f"close code {trigger.code}")
                case CloseClass.SLOW_DOWN:
                    self._command(command.SlowDown(SLOW_DOWN_SECONDS))
                case CloseClass.FATAL | CloseClass.RESUME:
                    pass
        self._note(failure(trigger))

    def note_host_failure(self, event: EventData) -> None:
        """Record the failure of a host.

        If a resume host fails and the main host has not been tried, record a planned end: neither `fail_on_error` nor
        `max_attempts` ends the shard then.
        """
        trigger = _trigger(event)
        if self._dialled_resume_host and not self._main_host_tried and _may_be_the_hosts(trigger):
            self._note(detour(trigger))
        else:
            self.note_cause(event)

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
        """Use the wait of the current rung, then climb one rung.

        After op 7 in a session that reached Ready, a deferred IDENTIFY or a request of the operator, wait only `FLOOR` and do not
        climb. The first IDENTIFY after a lost session waits only `FLOOR` too, because events are lost until then.
        """
        trigger = self._cause_trigger()
        if trigger in _WITHOUT_BACK_OFF or (trigger is Name.RECONNECT and self._reached_ready):
            self._rung_window = FLOOR
            return
        ladder = self._ladders[self.session is not None]
        self._rung_window = FLOOR if self._session_lost and ladder.rung == 0 else ladder.window()
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

    def wake_restart(self, _: EventData) -> None:
        self._command(command.WakeRestart(self._until))

    def reset_attempts(self, _: EventData) -> None:
        self.attempts = 0
        self._resume_host_demoted = False
        self._main_host_tried = False
        self._ladders = {can_resume: ladder.reset() for can_resume, ladder in self._ladders.items()}

    def note_stop(self, event: EventData) -> None:
        stop = _trigger(event)
        assert isinstance(stop, trigger_values.Stop)  # noqa: S101  # the trigger of the row
        self._goodbye = stop.goodbye
        if stop.goodbye:
            self._drop("goodbye")

    def note_pause(self, _: EventData) -> None:
        self.is_paused = True
        self._command(command.SavePause())

    def note_unpause(self, _: EventData) -> None:
        self.is_paused = False
        self._command(command.DropPause())

    # ---------------------------------------------------------------- actions: Ready begins and ends

    def open_outbox(self, event: EventData) -> None:
        self._command(command.OpenOutbox(new_session=_trigger(event).name is Name.READY))

    def shut_outbox(self, _: EventData) -> None:
        self._command(command.ShutOutbox())

    def save_progress(self, _: EventData) -> None:
        self._command(command.SaveProgress())

    # ---------------------------------------------------------------- actions: the end

    def end_on_request(self, _: EventData) -> None:
        self._command(command.End(Ended(EndKind.ON_REQUEST)))

    def end_fatally(self, _: EventData) -> None:
        self._end(EndKind.FATAL)

    def end_on_failure(self, _: EventData) -> None:
        self._end(EndKind.FAILURE)

    def end_exhausted(self, _: EventData) -> None:
        self._end(EndKind.EXHAUSTED)

    def _end(self, kind: EndKind) -> None:
        assert self.cause is not None  # noqa: S101  # the cause is set when a connection ends
        self._command(command.End(Ended(kind, self.cause.error, self.attempts + 1)))

    def _cause_trigger(self) -> Name | None:
        return None if self.cause is None else self.cause.trigger

    # ---------------------------------------------------------------- after each change of state

    def arm_deadline(self, event: EventData) -> None:
        """Arm the deadline of the new state. `transitions` calls this after every transition; staying keeps the old deadline."""
        if event.transition is None or event.transition.dest is None:
            return
        self.visit += 1
        if self.state is State.READY:
            self._reached_ready = True  # not in save_session: a late READY in Unhealthy proves nothing
        if (deadline := DEADLINES.get(self.state)) is not None:
            self._command(command.ArmDeadline(deadline, self.visit))

    def _command(self, wanted: command.Command) -> None:
        self._commands.append(wanted)


_WITHOUT_BACK_OFF = frozenset({Name.SLOT_DEFERRED, Name.RESTART, Name.PAUSE, Name.START})
_REPORTS: Mapping[Kind, type[command.PassedOver]] = {
    Kind.IGNORE: command.Ignored,
    Kind.REJECT: command.Rejected,
    Kind.BREACH: command.ReportBreach,
}
_AFTER_CLOSE: Mapping[Name, trigger_values.Diagnosed | trigger_values.Stopped] = {
    Name.DIAGNOSED: trigger_values.Diagnosed(),
    Name.STOPPED: trigger_values.Stopped(),
}


def _trigger(event: EventData) -> Trigger:
    trigger: Trigger = next(iter(event.args))
    return trigger


def _may_be_the_hosts(trigger: Trigger) -> bool:
    """Return whether the host may be at fault. False for a close code about the session, the token or the send rate."""
    return not isinstance(trigger, trigger_values.Closed) or trigger.close_code.kind is CloseClass.RESUME
