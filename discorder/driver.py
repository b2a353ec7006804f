"""The driver of one shard: turns what happens into triggers, and the machine's commands into I/O.

It is the only caller of its machine. Triggers wait in an inbox that never blocks whoever posts; each is taken, handed to the
machine, and the commands that come back are carried out at once, none of them awaited. After every transition the running
tasks are made equal to ``RUNS[state]``.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from discorder.clock import Clock, Timer, within
from discorder.errors import AttemptsExhausted, DeadlineMissed, DiscorderError, IdentifyBudgetSpent, ProtocolBreach
from discorder.generation import Generation
from discorder.logs import logger
from discorder.publishers.delivery import ShardDelivery
from discorder.reception import Reception
from discorder.rest import Token
from discorder.sessions import Refusal, RefusalCause, Ticket
from discorder.statemachine import RUNS, Cause, CauseKind, Facts, Session, ShardMachine, State, Task
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.states import Deadline, Keeper
from discorder.tracker import ShardTracker, Transition
from discorder.transport.protocol import Transport
from discorder.wire import identify_frame, resume_frame

STOP_CLOSE_SECONDS = 0.25  # for the closing handshake in Stopping, then the socket is dropped


class SessionKeeper(Protocol):
    """Where a shard's session is kept beyond the life of its driver."""

    def save(self, session: Session) -> None: ...

    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What a driver is given: every way out of it. All of it can be replaced in a test."""

    clock: Clock
    rng: random.Random
    token: Token
    intents: int
    payload_compression: bool
    log_heartbeats: bool
    transport: Callable[[], Transport]  # a new one, not dialled
    url: Callable[[str], Awaitable[str]]  # host ("" = the main one) to the full URL, once it is known
    admit: Callable[[int], Awaitable[Ticket | Refusal]]
    keeper: SessionKeeper
    delivery: ShardDelivery
    changed: Callable[[], None]  # the state of this shard changed


class ShardDriver:
    """Runs one shard from start to Exited. ``run`` returns after a stop and raises what else ended it."""

    def __init__(
        self,
        tracker: ShardTracker,
        machine: ShardMachine,
        reception: Reception,
        outside: Outside,
    ) -> None:
        self.tracker = tracker
        self._machine = machine
        self._reception = reception
        self._outside = outside
        self._inbox: deque[tuple[trigger.Trigger, int | None]] = deque()
        self._arrived = asyncio.Event()
        self._generation: Generation | None = None
        self._timers: list[Timer] = []
        self._gate_request: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None
        self._closing: asyncio.Task[None] | None = None
        self._stopped_on_request = False
        outside.delivery.when_congested(self._congested)
        tracker.session = machine.session
        tracker.read_seq = lambda: reception.seq
        tracker.read_last_dispatch_at = lambda: reception.last_dispatch_at

    # ---------------------------------------------------------------- the loop

    async def run(self) -> None:
        """From Disconnected to Exited.

        Returns when a stop was asked for. Raises what else ended the shard: `FatalCloseError`, `AttemptsExhausted`, or the
        failure itself under ``fail_on_error``.
        """
        self.post(trigger.Start())
        try:
            while self._machine.state is not State.EXITED:
                while not self._inbox:
                    self._arrived.clear()
                    await self._arrived.wait()
                self._take(*self._inbox.popleft())
        finally:
            await self._clean_up()
        if not self._stopped_on_request:
            raise self._outcome()

    def post(self, what: trigger.Trigger, generation: int | None = None) -> None:
        """Put a trigger into the inbox; never blocks. `stop` overtakes everything.

        ``generation``: whose report this is. What belongs to an older one is dropped and counted.
        """
        if isinstance(what, trigger.Stop):
            self._inbox.appendleft((what, None))
        else:
            self._inbox.append((what, generation))
        self._arrived.set()

    def _congested(self, publisher: str) -> None:
        logger.warning("A publisher that must not lose is congested", publisher=publisher, **self._who())
        self.post(trigger.Congested(publisher), self._machine.generation)

    def stop(self, *, goodbye: bool) -> None:
        """Ask for a graceful end, in whatever state."""
        self.tracker.terminate_flag = True
        self.post(trigger.Stop(goodbye=goodbye))

    def abort(self) -> None:
        """Drop the socket now: what is still to be awaited in Stopping is over."""
        if self._generation is not None:
            self._generation.transport.abort()

    def throw_to(self, task: Task, error: BaseException) -> None:
        """Cancel ``task`` of the present generation and have ``error`` reported as its failure."""
        if self._generation is not None:
            self._generation.throw_to(task, error)

    def _outcome(self) -> BaseException:
        cause = self._machine.cause
        error = None if cause is None else cause.error
        if error is None:
            return DiscorderError(f"shard {self.tracker.shard_id} ended without a cause")
        if self._gave_up(cause):
            exhausted = AttemptsExhausted(self._machine.attempts + 1, error)
            exhausted.__cause__ = error
            return exhausted
        return error

    def _gave_up(self, cause: Cause | None) -> bool:
        return cause is not None and cause.kind is CauseKind.FAILURE and not self._machine.fails_on_error

    async def _clean_up(self) -> None:
        """Nothing of this shard is left when this returns, whichever way the loop ended."""
        self._cancel_timers()
        self._release_slot()
        generation = self._generation
        if generation is not None:
            generation.reconcile(frozenset())
            generation.transport.abort()
            await generation.finish()
        leftovers = [task for task in (self._gate_request, self._closing) if task is not None]
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)
        self._machine.retire()

    # ---------------------------------------------------------------- one step

    def _take(self, what: trigger.Trigger, generation: int | None) -> None:
        if generation is not None and generation != self._machine.generation:
            self.tracker.stats.stale_count += 1
            logger.debug("Dropped a stale report", trigger=what.name.value, of_generation=generation, **self._who())
            return
        before = self._machine.state
        commands = self._machine.handle(what, self._facts())
        passed_over = [c for c in commands if isinstance(c, command.Ignored | command.Rejected)]
        if passed_over:
            self._pass_over(passed_over[0])
            return
        self._record(before, what)
        if self._machine.state is not before:
            self._enter(before, what)
        for wanted in commands:
            self._carry_out(wanted)
        if self._generation is not None:
            self._generation.reconcile(RUNS[self._machine.state])
        self._outside.changed()

    def _facts(self) -> Facts:
        return Facts(
            now=self._outside.clock.monotonic(),
            dispatched=self._reception.dispatched,
            socket_closed=self._generation is None or self._generation.transport.closed,
            may_open=self._outside.delivery.may_open(),
        )

    def _pass_over(self, passed: command.Ignored | command.Rejected) -> None:
        self.tracker.stats.unexpected_count += 1
        facts = {"state": passed.state.value, "trigger": passed.trigger.value, "why": passed.why, **self._who()}
        if isinstance(passed, command.Ignored):
            logger.debug("Ignored a trigger", **facts)
            return
        logger.warning("Rejected a trigger", **facts)
        if passed.trigger in trigger.WIRE:
            breach = ProtocolBreach(f"{passed.trigger} came in {passed.state}: {passed.why}")
            self.post(trigger.TaskFailed(Task.PROCESSOR, breach), self._machine.generation)

    def _record(self, before: State, what: trigger.Trigger) -> None:
        tracker, machine = self.tracker, self._machine
        cause = None if machine.cause is None else machine.cause.text
        moved = machine.state is not before
        spent = tracker.entered(machine.state) if moved else tracker.ages.in_state
        step = Transition(
            at=self._outside.clock.now(),
            source=before,
            trigger=what.name,
            target=machine.state,
            cause=cause,
            generation=machine.generation,
            milliseconds=spent * 1000,
        )
        tracker.transitions.append(step)
        tracker.session, tracker.generation, tracker.attempts = machine.session, machine.generation, machine.attempts
        if cause is not None or machine.state is State.READY:
            tracker.cause = cause
        logger.debug(
            "Transition",
            source=step.source.value,
            trigger=step.trigger.value,
            target=step.target.value,
            cause=step.cause,
            milliseconds=round(step.milliseconds, 1),
            **self._who(),
        )

    def _enter(self, before: State, what: trigger.Trigger) -> None:
        """A state was entered: its timers begin, those of the one before are void, and the log says what it means."""
        self._cancel_timers()
        if self._generation is not None:
            self._generation.state_entered()
        state, stats, cause = self._machine.state, self.tracker.stats, self._machine.cause
        if state is State.UNHEALTHY:
            reasons = "" if cause is None else cause.text
            logger.warning("Control plane is not healthy, stopping tasks", reasons=reasons, **self._who())
        elif state is State.READY:
            if isinstance(what, trigger.Resumed):
                stats.resume_count += 1
            logger.info("Control plane started", tracker=self._summary(), **self._who())
        elif state is State.CONNECTING and before is State.RESTARTING:
            stats.restart_count += 1
            mode = "resume" if self._machine.session is not None else "identify"
            logger.info("Starting a new control plane", mode=mode, **self._who())
        elif state is State.EXITED and before is State.UNHEALTHY and cause is not None and self._machine.fails_on_error:
            logger.error("Exiting because fail_on_error is set", error=repr(cause.error), **self._who())
        if state is State.STOPPING:
            self._stopped_on_request = True

    def _summary(self) -> str:
        return f"session {self.tracker.session_label}, seq {self._reception.seq}"

    def _who(self) -> dict[str, int]:
        return {"shard": self.tracker.shard_id, "generation": self._machine.generation}

    # ---------------------------------------------------------------- commands

    def _carry_out(self, wanted: command.Command) -> None:  # one line per command
        match wanted:
            case command.OpenSocket():
                self._open_socket(wanted)
            case command.SendResume(session):
                self._send_resume(session)
            case command.RequestSlot():
                self._request_slot()
            case command.ReleaseSlot():
                self._release_slot()
            case command.SendIdentify():
                self._send_identify()
            case command.SaveSession(session):
                self._outside.keeper.save(session)
            case command.DropSession(why):
                self._drop_session(why)
            case command.CloseSocket(code):
                self._closing = asyncio.get_running_loop().create_task(self._close_socket(code))
            case command.AbortSocket():
                self.abort()
            case command.Diagnose():
                self.post(trigger.Diagnosed(), self._machine.generation)
            case command.ScheduleRestart():
                self._schedule_restart(wanted)
            case command.ArmDeadline(deadline, visit):
                self._arm(deadline, visit)
            case command.SlowDown(seconds):
                logger.warning("Discord says that we send too fast", seconds=seconds, **self._who())
            case command.Ignored() | command.Rejected():
                self._pass_over(wanted)

    def _open_socket(self, wanted: command.OpenSocket) -> None:
        outside, number = self._outside, wanted.generation
        transport = outside.transport()
        self.tracker.websocket = transport
        self.tracker.pulse = None
        self.tracker.tasks.clear()
        self.tracker.failures.clear()
        self.tracker.restart_due_at = None
        self._reception.connection_opened()
        outside.delivery.connection_opened()
        self._generation = Generation(
            number,
            transport,
            tracker=self.tracker,
            reception=self._reception,
            clock=outside.clock,
            rng=outside.rng,
            url=lambda: outside.url(wanted.url),
            post=lambda what: self.post(what, number),
            log_heartbeats=outside.log_heartbeats,
        )

    def _send_resume(self, session: Session) -> None:
        seq = self._outside.delivery.resume_seq(self._reception.label, self._reception.seq or 0)
        self._reception.resuming(seq)
        logger.info("Sending RESUME", seq=seq, session=self.tracker.session_label, **self._who())
        self._send(resume_frame(self._outside.token.reveal(), session_id=session.session_id, seq=seq))

    def _send_identify(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            msg = "the machine asked for an IDENTIFY without a ticket"
            raise DiscorderError(msg)
        outside, tracker = self._outside, self.tracker
        self._reception.identifying()
        logger.info("Sending IDENTIFY", intents=outside.intents, **self._who())
        shard = (tracker.shard_id, tracker.shard_count)
        compress = outside.payload_compression
        self._send(identify_frame(outside.token.reveal(), intents=outside.intents, shard=shard, compress=compress))
        ticket.sent()
        tracker.stats.identify_count += 1

    def _send(self, frame: bytes) -> None:
        if self._generation is not None:
            self._generation.send_soon(frame)

    def _drop_session(self, why: str) -> None:
        logger.warning("The session is given up", why=why, session=self._reception.label, **self._who())
        self._reception.forget_session()
        self._outside.keeper.forget()

    # ---------------------------------------------------------------- the identify gate

    def _request_slot(self) -> None:
        generation = self._machine.generation
        self._gate_request = asyncio.get_running_loop().create_task(self._ask_gate(generation))
        self._gate_request.add_done_callback(lambda request: self._gate_answered(request, generation))

    async def _ask_gate(self, generation: int) -> None:
        answer = await self._outside.admit(self.tracker.shard_id)
        if isinstance(answer, Refusal):
            self.post(trigger.SlotRefused(answer.until, _refusal_as_error(answer)), generation)
            return
        self._ticket = answer
        self.post(trigger.IdentifySlot(answer), generation)

    def _gate_answered(self, request: asyncio.Task[None], generation: int) -> None:
        if not request.cancelled() and (error := request.exception()) is not None:
            self.post(trigger.TaskFailed(Task.MASTER, error), generation)  # the gate is broken; the generation is over

    def _release_slot(self) -> None:
        if self._gate_request is not None:
            self._gate_request.cancel()
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.refund()

    # ---------------------------------------------------------------- timers and the end of a socket

    def _arm(self, deadline: Deadline, visit: int) -> None:
        if deadline.keeper is Keeper.DOCTOR:
            if self._generation is not None:
                self._generation.arm(deadline, visit)
            return
        missed = DeadlineMissed(f"{deadline.awaited} did not come within {deadline.seconds:g} s")
        self._later(deadline.seconds, trigger.Timeout(visit, missed))

    def _schedule_restart(self, wanted: command.ScheduleRestart) -> None:
        outside = self._outside
        seconds = max(outside.rng.uniform(window.low, window.high) for window in wanted.windows)
        if wanted.until is not None:
            seconds = max(seconds, (wanted.until - outside.clock.now()).total_seconds())
        self.tracker.restart_due_at = outside.clock.now() + timedelta(seconds=seconds)
        if not wanted.again:
            attempt = self._machine.attempts
            logger.info("Sleeping before restart", seconds=round(seconds, 3), attempt=attempt, **self._who())
        self._later(seconds, trigger.RestartDue())

    def _later(self, seconds: float, what: trigger.Trigger) -> None:
        self._timers.append(self._outside.clock.call_later(seconds, lambda: self.post(what)))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def _close_socket(self, code: int) -> None:
        transport = None if self._generation is None else self._generation.transport
        if transport is not None and not transport.closed:
            try:
                await within(self._outside.clock, STOP_CLOSE_SECONDS, transport.close(code))
            except TimeoutError:
                transport.abort()
        self.post(trigger.Stopped())


def _refusal_as_error(refusal: Refusal) -> DiscorderError:
    if refusal.cause is RefusalCause.BUDGET:
        return IdentifyBudgetSpent(refusal.reason, refusal.until)
    return DeadlineMissed(f"no identify slot: {refusal.reason}")
