"""Run the state machine of one shard: pass it the triggers in order and carry out the commands that it returns.

Posting a trigger never blocks. No command is awaited. After each transition the running tasks are made equal to
``RUNS[state]``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from discorder.errors import AttemptsExhausted, ProtocolBreach, SessionInvalidated
from discorder.logs import logger
from discorder.outbound.outbound import Sender
from discorder.shard.connection import Connection
from discorder.shard.dependencies import ShardDependencies
from discorder.shard.handshake import Handshake
from discorder.shard.identify_request import IdentifyRequest
from discorder.shard.liveness import BEATING
from discorder.shard.receiver import Receiver
from discorder.shard.state_work import SocketCloser, StateTimers
from discorder.shard.transition_log import TransitionLog
from discorder.statemachine import RUNS, Ended, EndKind, Facts, ShardMachine, State, Task
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.table import LIVE
from discorder.statemachine.terms import Deadline, Keeper
from discorder.tracking.shard_tracker import ArmedDeadline, Backoff, Host, ShardTracker, Transition, unpause_command


class ShardDriver:
    """Run one shard from Disconnected to Exited."""

    def __init__(
        self,
        tracker: ShardTracker,
        machine: ShardMachine,
        receiver: Receiver,
        dependencies: ShardDependencies,
    ) -> None:
        self.tracker = tracker
        self._machine = machine
        self._receiver = receiver
        self._dependencies = dependencies
        self._inbox: deque[tuple[trigger.Trigger, int | None]] = deque()
        self._arrived = asyncio.Event()
        self._connection: Connection | None = None
        self._timers = StateTimers(
            dependencies.clock, dependencies.rng, lambda what: self.post(what, self._machine.generation)
        )
        self._slot = IdentifyRequest(tracker.shard_id, dependencies.admit)
        self.sender = Sender(
            tracker.shard_id,
            clock=dependencies.clock,
            rng=dependencies.rng,
            stats=tracker.stats,
            watch=receiver.watch,
            pause_reason=lambda: tracker.pause_reason,
        )
        self._transition_log = TransitionLog(
            tracker,
            machine,
            dependencies.clock,
            seq=lambda: receiver.seq,
            announce=dependencies.delivery.announce,
            redact=dependencies.token.redact,
        )
        self._handshake = Handshake(tracker, receiver, dependencies, self._slot, self._transition_log)
        self._closer = SocketCloser(dependencies.clock, self._transition_log)
        self._ended: Ended | None = None
        self._stepping = False  # a transition is being carried out
        dependencies.delivery.when_congested(self._congested)
        tracker.session = machine.session
        tracker.read_seq = lambda: receiver.seq
        tracker.read_ready = lambda: receiver.ready
        tracker.read_last_dispatch_at = lambda: receiver.last_dispatch_at
        tracker.read_holding = lambda: dependencies.delivery.holding
        tracker.read_host = self._host

    # ---------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Run until Exited. Return after a stop.

        Raises any other error that ended the shard: `FatalCloseError`, `AttemptsExhausted`, or the failure itself under
        ``fail_on_error``.
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
        if self._ended is not None:
            _raise_end(self._ended)

    def post(self, what: trigger.Trigger, generation: int | None = None) -> None:
        """Put a trigger into the inbox; `Stop` goes to its head.

        ``generation``: the connection that posts it. A trigger of an older connection is dropped and counted.
        """
        if isinstance(what, trigger.Stop):
            self._inbox.appendleft((what, None))
        else:
            self._inbox.append((what, generation))
        self._arrived.set()

    def _congested(self, publisher: str) -> None:
        logger.warning("A publisher that must not lose is congested", publisher=publisher, **self._transition_log.who)
        self.post(trigger.Congested(publisher), self._machine.generation)

    def stop(self, *, goodbye: bool) -> None:
        """Begin a graceful stop, in any state."""
        self.tracker.terminate_flag = True
        self.post(trigger.Stop(goodbye=goodbye))

    def request(self, what: trigger.Verb) -> str | None:
        """Take an operator's trigger now, before all that waits in the inbox. Return the reason if it has no effect.

        Called during a transition of this shard, by a publisher or a log sink, it has none.
        """
        if self._stepping:
            return f"it is in a transition: call {what.name} later, from a task"
        passed_over = self._take(what, None)
        return None if passed_over is None else passed_over.why

    def abort(self) -> None:
        """Drop the socket without a close frame."""
        if self._connection is not None:
            self._connection.transport.abort()

    def probe(self) -> None:
        """Send a heartbeat at once after a clock jump, and expect its answer soon."""
        if self._connection is not None and self._machine.state in BEATING:
            self._connection.heartbeat.probe()
            self._connection.liveness.beating()

    def throw_to(self, task: Task, error: BaseException) -> None:
        """Cancel ``task`` of the current connection and report ``error`` as its failure."""
        if self._connection is not None:
            self._connection.throw_to(task, error)

    async def _clean_up(self) -> None:
        """Release all resources of this shard, however the loop ended."""
        self._timers.cancel()
        self._slot.release()
        self.sender.close()
        if self._connection is not None:
            self._connection.reconcile(frozenset())
            self._connection.transport.abort()
            await self._connection.finish()
        await self._slot.close()
        await self._closer.finish()
        self._machine.retire()

    # ---------------------------------------------------------------- one step

    def _take(self, what: trigger.Trigger, generation: int | None) -> command.PassedOver | None:
        """Handle one trigger. Return the report of the machine if it has no effect."""
        self._stepping = True
        try:
            return self._step(what, generation)
        finally:
            self._stepping = False

    def _step(self, what: trigger.Trigger, generation: int | None) -> command.PassedOver | None:
        if generation is not None and generation != self._machine.generation:
            self.tracker.stats.stale_count += 1
            logger.debug(
                "Dropped a stale report", trigger=what.name.value, of_generation=generation, **self._transition_log.who
            )
            return None
        if isinstance(what, trigger.Ready):  # a URL that must not be dialled is neither kept nor stored
            session = what.session
            what = trigger.Ready(replace(session, resume_url=self._dependencies.resume_url(session.resume_url)))
        if isinstance(what, trigger.Resumed) and (why := self._dependencies.why_end(self._receiver.label)) is not None:
            what = trigger.InvalidSession(SessionInvalidated(why), by_us=True)
        before = self._machine.state
        commands = self._machine.handle(what, self._facts())
        passed_over = [c for c in commands if isinstance(c, command.PassedOver)]
        if passed_over:
            self._pass_over(passed_over[0])
            return passed_over[0]
        step = self._transition_log.record(before, what)
        if self._machine.state is not before:
            self._enter(step)
        for wanted in commands:
            self._carry_out(wanted)
        if self._connection is not None:
            self._connection.reconcile(RUNS[self._machine.state])
        self._dependencies.changed(self.tracker, step)
        return None

    def _enter(self, step: Transition) -> None:
        """Cancel the timers and the close of the previous state after a change of state."""
        self._timers.cancel()
        self._closer.cancel()
        self.tracker.armed = self.tracker.backoff = None
        if self._connection is not None:
            self._connection.liveness.state_entered()
        self._transition_log.landmark(step)

    def _facts(self) -> Facts:
        return Facts(
            now=self._dependencies.clock.monotonic(),
            dispatched=self._receiver.dispatched,
            socket_closed=self._connection is None or self._connection.transport.closed,
            may_open=self._dependencies.delivery.may_open(),
            substituted=self._connection is not None and self._connection.substituted,
        )

    def _host(self) -> Host:
        substituted = self._connection is not None and self._connection.substituted
        to_resume_host = self._machine.to_resume_host or (self._machine.state in LIVE and substituted)
        return Host.RESUME if to_resume_host else Host.MAIN

    def _pass_over(self, passed: command.PassedOver) -> None:
        self.tracker.stats.unexpected_count += 1
        facts = {
            "state": passed.state.value,
            "trigger": passed.trigger.value,
            "why": passed.why,
            **self._transition_log.who,
        }
        if isinstance(passed, command.Ignored):
            logger.debug("Ignored a trigger", **facts)
            return
        self.tracker.stats.rejected_count += 1
        logger.warning("Rejected a trigger", **facts)
        if isinstance(passed, command.ReportBreach):
            breach = ProtocolBreach(f"{passed.trigger} came in {passed.state}: {passed.why}")
            self.post(trigger.Breach(breach), self._machine.generation)

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
                self._dependencies.saver.save(session)
            case command.DropSession(why):
                self._drop_session(why)
            case command.CloseSocket():
                self._close_socket(wanted)
            case command.AbortSocket():
                self.abort()
            case command.Diagnose():
                self.post(trigger.Diagnosed(), self._machine.generation)
            case command.ScheduleRestart():
                self._schedule_restart(wanted)
            case command.WakeRestart():
                self._note_due_in(self._timers.wake_restart(wanted))
            case command.SavePause():
                self._save_pause()
            case command.DropPause():
                self._drop_pause()
            case command.ArmDeadline(deadline, visit):
                self._arm(deadline, visit)
            case command.SlowDown(seconds):
                self._slow_down(seconds)
            case command.OpenOutbox(new_session):
                self._open_outbox(new_session=new_session)
            case command.ShutOutbox():
                self.sender.outbox.shut()
            case command.SaveProgress():
                self._dependencies.saver.opened()
            case command.End(ended):
                self._end(ended)

    def _open_socket(self, wanted: command.OpenSocket) -> None:
        dependencies, number = self._dependencies, wanted.generation
        known = "" if self._machine.session is None else self._machine.session.resume_url
        transport = dependencies.transport()
        self.tracker.websocket = transport
        self.tracker.pulse = None
        self.tracker.tasks.clear()
        self.tracker.failures.clear()
        self._receiver.connection_opened()
        dependencies.delivery.connection_opened()
        self._connection = Connection(
            number,
            transport,
            tracker=self.tracker,
            receiver=self._receiver,
            clock=dependencies.clock,
            rng=dependencies.rng,
            target=lambda: dependencies.target(wanted.url, known),
            hold_dials=dependencies.hold_dials,
            post=lambda what: self.post(what, number),
            outbox=self.sender.outbox,
            log_heartbeats=dependencies.log_heartbeats,
        )

    def _request_slot(self) -> None:
        generation = self._machine.generation
        refusal = self._receiver.identify_refusal
        if refusal is not None and refusal.until > self._dependencies.clock.now():
            self.post(refusal, generation)
            return
        self._slot.request(lambda what: self.post(what, generation))

    def _send(self, frame: bytes) -> None:
        if self._connection is not None:
            self._connection.send_soon(frame)

    def _open_outbox(self, *, new_session: bool) -> None:
        if self._connection is not None:
            write, failed = self._connection.transport.send, self._connection.write_failed
            self.sender.ready(write, failed, new_session=new_session)

    def _end(self, ended: Ended) -> None:
        self._ended = ended
        self._dependencies.delivery.announce_lost(self._dependencies.clock.now(), ended=True)
        self._dependencies.saver.finish()

    def _slow_down(self, seconds: float) -> None:
        logger.warning(
            "Discord says that we send too fast: half as many commands", seconds=seconds, **self._transition_log.who
        )
        self.sender.outbox.slow_down(seconds)

    def _drop_session(self, why: str) -> None:
        label = self._receiver.label
        logger.warning("The session is given up", why=why, session=label, **self._transition_log.who)
        if label is not None:
            shard = (self.tracker.shard_id, self.tracker.shard_count)
            self._dependencies.delivery.session_dropped(shard, label, why, self._dependencies.clock.now())
        self._receiver.forget_session()
        self._dependencies.saver.drop()

    # ---------------------------------------------------------------- timers and the end of a socket

    def _arm(self, deadline: Deadline, visit: int) -> None:
        self.tracker.armed = ArmedDeadline(deadline, self._dependencies.clock.monotonic())
        if deadline.keeper is Keeper.DOCTOR:
            if self._connection is not None:
                self._connection.liveness.arm(deadline, visit)
            return
        self._timers.arm(deadline, visit)

    def _schedule_restart(self, wanted: command.ScheduleRestart) -> None:
        seconds = self._timers.schedule_restart(wanted)
        self._note_due_in(seconds)
        if not wanted.again and not self._machine.is_paused:
            attempt = self._machine.attempts
            logger.info(
                "Sleeping before restart", seconds=round(seconds, 3), attempt=attempt, **self._transition_log.who
            )

    def _note_due_in(self, seconds: float) -> None:
        due = self._dependencies.clock.monotonic() + seconds
        self.tracker.backoff = None if self._machine.is_paused else Backoff(seconds, due)

    def _save_pause(self) -> None:
        since = self._dependencies.clock.now()
        self.tracker.paused_since, self.tracker.backoff = since, None
        self._dependencies.saver.pause(since)
        logger.warning(
            "The shard is paused: it is not dialled until it is unpaused",
            remedy=unpause_command(self.tracker.shard_id),
            **self._transition_log.who,
        )

    def _drop_pause(self) -> None:
        self.tracker.paused_since = None
        self._dependencies.saver.unpause()
        logger.info("The shard is unpaused", **self._transition_log.who)

    def _close_socket(self, wanted: command.CloseSocket) -> None:
        generation = self._machine.generation
        transport = None if self._connection is None else self._connection.transport
        if transport is None or transport.closed:
            self.post(wanted.then, generation)
        else:
            self._closer.close(transport, wanted, lambda: self.post(wanted.then, generation))


def _raise_end(ended: Ended) -> None:
    """Raise the error that ended a shard; return if a stop was requested."""
    if ended.kind is EndKind.EXHAUSTED:
        raise AttemptsExhausted(ended.attempts, ended.error) from ended.error
    if ended.error is not None:
        raise ended.error
