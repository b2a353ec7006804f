"""The driver of one shard: turns what happens into triggers, and the machine's commands into I/O.

It is the only caller of its machine. Triggers wait in an inbox that never blocks whoever posts; each is taken, handed to the
machine, and the commands that come back are carried out at once, none of them awaited. After every transition the running
tasks are made equal to ``RUNS[state]``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from datetime import timedelta

from discorder.clock import within
from discorder.errors import AttemptsExhausted, ProtocolBreach
from discorder.logs import logger
from discorder.outbound.sender import Sender
from discorder.shard.chronicle import Chronicle
from discorder.shard.doctor import BEATING
from discorder.shard.generation import Generation
from discorder.shard.handshake import Handshake
from discorder.shard.outside import Outside
from discorder.shard.reception import Reception
from discorder.shard.slot import Slot
from discorder.shard.timers import StateTimers
from discorder.statemachine import RUNS, CauseKind, Facts, ShardMachine, State, Task
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.table import WIRE, Name
from discorder.statemachine.terms import Deadline, Keeper
from discorder.tracking.shard_tracker import ShardTracker, Transition

STOP_CLOSE_SECONDS = 0.25  # for the closing handshake in Stopping, then the socket is dropped


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
        self._timers = StateTimers(outside.clock, outside.rng, self.post)
        self._slot = Slot(tracker.shard_id, outside.admit)
        self.sender = Sender(
            tracker.shard_id, clock=outside.clock, rng=outside.rng, stats=tracker.stats, watch=reception.watch
        )
        self._chronicle = Chronicle(
            tracker,
            machine,
            outside.clock,
            seq=lambda: reception.seq,
            announce=outside.delivery.announce,
            redact=outside.token.redact,
        )
        self._handshake = Handshake(tracker, reception, outside, self._slot, self._chronicle)
        self._closing: asyncio.Task[None] | None = None
        self._stopped_on_request = False
        outside.delivery.when_congested(self._congested)
        tracker.session = machine.session
        tracker.read_seq = lambda: reception.seq
        tracker.read_ready = lambda: reception.ready
        tracker.read_last_dispatch_at = lambda: reception.last_dispatch_at
        tracker.read_holding = lambda: outside.delivery.holding

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
        logger.warning("A publisher that must not lose is congested", publisher=publisher, **self._chronicle.who)
        self.post(trigger.Congested(publisher), self._machine.generation)

    def stop(self, *, goodbye: bool) -> None:
        """Ask for a graceful end, in whatever state."""
        self.tracker.terminate_flag = True
        self.post(trigger.Stop(goodbye=goodbye))

    def abort(self) -> None:
        """Drop the socket now: what is still to be awaited in Stopping is over."""
        if self._generation is not None:
            self._generation.transport.abort()

    def probe(self) -> None:
        """The clocks jumped: a live connection is to give a sign of life."""
        if self._generation is not None and self._machine.state in BEATING:
            self._generation.heartbeat.probe()
            self._generation.doctor.beating()

    def throw_to(self, task: Task, error: BaseException) -> None:
        """Cancel ``task`` of the present generation and have ``error`` reported as its failure."""
        if self._generation is not None:
            self._generation.throw_to(task, error)

    def _outcome(self) -> BaseException:
        cause = self._machine.cause
        assert cause is not None  # noqa: S101  # of the rows that end in Exited only those of a stop need none,
        assert cause.error is not None  # noqa: S101  # and what has no error of its own is planned
        if cause.kind is not CauseKind.FAILURE or self._machine.fails_on_error:
            return cause.error
        exhausted = AttemptsExhausted(self._machine.attempts + 1, cause.error)
        exhausted.__cause__ = cause.error
        return exhausted

    async def _clean_up(self) -> None:
        """Nothing of this shard is left when this returns, whichever way the loop ended."""
        self._timers.cancel()
        self._slot.release()
        self.sender.close()
        generation = self._generation
        if generation is not None:
            generation.reconcile(frozenset())
            generation.transport.abort()
            await generation.finish()
        await self._slot.close()
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.gather(self._closing, return_exceptions=True)
        self._machine.retire()

    # ---------------------------------------------------------------- one step

    def _take(self, what: trigger.Trigger, generation: int | None) -> None:
        if generation is not None and generation != self._machine.generation:
            self.tracker.stats.stale_count += 1
            logger.debug(
                "Dropped a stale report", trigger=what.name.value, of_generation=generation, **self._chronicle.who
            )
            return
        before = self._machine.state
        commands = self._machine.handle(what, self._facts())
        passed_over = [c for c in commands if isinstance(c, command.Ignored | command.Rejected)]
        if passed_over:
            self._pass_over(passed_over[0])
            return
        step = self._chronicle.record(before, what)
        if self._machine.state is not before:
            self._enter(step)
        for wanted in commands:
            self._carry_out(wanted)
        if self._generation is not None:
            self._generation.reconcile(RUNS[self._machine.state])
        self._outside.changed()

    def _enter(self, step: Transition) -> None:
        """A state was entered: its timers begin, those of the one before are void."""
        self._timers.cancel()
        if self._generation is not None:
            self._generation.doctor.state_entered()
            if step.target is State.READY:
                write, failed = self._generation.transport.send, self._generation.write_failed
                self.sender.ready(write, failed, new_session=step.trigger is Name.READY)
        if step.source is State.READY:
            self.sender.outbox.shut()
        self._stopped_on_request = self._stopped_on_request or step.target is State.STOPPING
        self._chronicle.landmark(step)
        if step.target is State.EXITED:
            self._outside.delivery.announce_lost(self._outside.clock.now(), ended=True)
            self._outside.keeper.finish()

    def _facts(self) -> Facts:
        return Facts(
            now=self._outside.clock.monotonic(),
            dispatched=self._reception.dispatched,
            socket_closed=self._generation is None or self._generation.transport.closed,
            may_open=self._outside.delivery.may_open(),
        )

    def _pass_over(self, passed: command.Ignored | command.Rejected) -> None:
        self.tracker.stats.unexpected_count += 1
        facts = {"state": passed.state.value, "trigger": passed.trigger.value, "why": passed.why, **self._chronicle.who}
        if isinstance(passed, command.Ignored):
            logger.debug("Ignored a trigger", **facts)
            return
        logger.warning("Rejected a trigger", **facts)
        if passed.trigger in WIRE:
            breach = ProtocolBreach(f"{passed.trigger} came in {passed.state}: {passed.why}")
            self.post(trigger.TaskFailed(Task.PROCESSOR, breach), self._machine.generation)

    # ---------------------------------------------------------------- commands

    def _carry_out(self, wanted: command.Command) -> None:  # one line per command
        match wanted:
            case command.OpenSocket():
                self._open_socket(wanted)
            case command.SendResume(session):
                self._send(self._handshake.resume(session))
            case command.RequestSlot():
                self._request_slot()
            case command.ReleaseSlot():
                self._slot.release()
            case command.SendIdentify():
                self._send(self._handshake.identify())
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
                self._slow_down(seconds)

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
            outbox=self.sender.outbox,
            log_heartbeats=outside.log_heartbeats,
        )

    def _request_slot(self) -> None:
        generation = self._machine.generation
        self._slot.request(lambda what: self.post(what, generation))

    def _send(self, frame: bytes) -> None:
        if self._generation is not None:
            self._generation.send_soon(frame)

    def _slow_down(self, seconds: float) -> None:
        logger.warning(
            "Discord says that we send too fast: half as many commands", seconds=seconds, **self._chronicle.who
        )
        self.sender.outbox.slow_down(seconds)

    def _drop_session(self, why: str) -> None:
        label = self._reception.label
        logger.warning("The session is given up", why=why, session=label, **self._chronicle.who)
        if label is not None:
            shard = (self.tracker.shard_id, self.tracker.shard_count)
            self._outside.delivery.session_dropped(shard, label, why, self._outside.clock.now())
        self._reception.forget_session()
        self._outside.keeper.drop()

    # ---------------------------------------------------------------- timers and the end of a socket

    def _arm(self, deadline: Deadline, visit: int) -> None:
        if deadline.keeper is Keeper.DOCTOR:
            if self._generation is not None:
                self._generation.doctor.arm(deadline, visit)
            return
        self._timers.arm(deadline, visit)

    def _schedule_restart(self, wanted: command.ScheduleRestart) -> None:
        seconds = self._timers.schedule_restart(wanted)
        self.tracker.restart_due_at = self._outside.clock.now() + timedelta(seconds=seconds)
        if not wanted.again:
            attempt = self._machine.attempts
            logger.info("Sleeping before restart", seconds=round(seconds, 3), attempt=attempt, **self._chronicle.who)

    async def _close_socket(self, code: int) -> None:
        transport = None if self._generation is None else self._generation.transport
        if transport is not None and not transport.closed:
            with contextlib.suppress(TimeoutError):  # what hangs is dropped in the row of `stopped`
                await within(self._outside.clock, STOP_CLOSE_SECONDS, transport.close(code))
        self.post(trigger.Stopped())
