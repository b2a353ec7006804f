"""One generation: the life of one socket, and the coroutines that serve it.

The coroutines observe and report; they post triggers and never decide. Which of them run is the driver's to say
(`reconcile`). A task that is dismissed by the driver ends silently; one that ends by itself, or is cancelled by anybody else,
is reported as failed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from discorder.clock import Clock, Timer, within
from discorder.errors import (
    Closed,
    ConnectFailed,
    DeadlineMissed,
    FatalCloseError,
    ProtocolBreach,
    TaskDied,
    ZombieConnection,
)
from discorder.logs import logger
from discorder.reception import Callbacks, Reception
from discorder.statemachine import State, Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.close_codes import RESUMABLE_CLOSE, CloseClass, classify
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.states import DIAL_SECONDS, STABLE_SECONDS, Deadline
from discorder.tracker import ShardTracker
from discorder.transport.protocol import Transport
from discorder.wire import heartbeat_frame

CLOSE_SECONDS = 1.0  # for the closing handshake; a peer that is silent gets no more of our time


class Alarm:
    """Sleep until a moment or until somebody rings, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the sleeper, or let its next sleep return at once."""
        self._rung.set()

    async def sleep_until(self, due: float | None) -> None:
        """Return at monotonic second ``due`` (None: never) or when rung."""
        timer: Timer | None = None
        if due is not None and not self._rung.is_set():
            timer = self._clock.call_later(due - self._clock.monotonic(), self._rung.set)
        try:
            await self._rung.wait()
        finally:
            if timer is not None:
                timer.cancel()
            self._rung.clear()


@dataclass(slots=True)
class Armed:
    """A deadline that the doctor watches, at monotonic second ``due``, for the ``visit`` it was armed for."""

    deadline: Deadline
    visit: int
    due: float


class Generation:
    """The tasks and the socket of one connection.

    ``url`` gives what to dial, when it is known.
    """

    def __init__(
        self,
        number: int,
        transport: Transport,
        *,
        tracker: ShardTracker,
        reception: Reception,
        clock: Clock,
        rng: random.Random,
        url: Callable[[], Awaitable[str]],
        post: Callable[[trigger.Trigger], None],
        log_heartbeats: bool,
    ) -> None:
        self.number = number
        self.transport = transport
        self.tasks: dict[Task, asyncio.Task[None]] = {}
        self._live: set[Task] = set()  # started, and their end not yet reported
        self._tracker = tracker
        self._reception = reception
        self._clock = clock
        self._rng = rng
        self._url = url
        self._post = post
        self._pulse: Pulse | None = None
        self._entered_at = clock.monotonic()
        self._armed: Armed | None = None
        self._dismissed: set[asyncio.Task[None]] = set()
        self._thrown: dict[asyncio.Task[None], BaseException] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._doctor_alarm = Alarm(clock)
        self._beat_alarm = Alarm(clock)
        self._beat_asked = False
        self._reported = False  # the doctor has posted what ends this state
        self._stable_posted = False
        self._log_heartbeats = log_heartbeats
        self._task_ended = asyncio.Event()
        self._winding_up = False

    # ---------------------------------------------------------------- told by the driver

    def arm(self, deadline: Deadline, visit: int) -> None:
        """Let the doctor post a timeout for ``visit`` unless the state is left in time."""
        self._armed = Armed(deadline, visit, self._clock.monotonic() + deadline.seconds)
        self._doctor_alarm.ring()

    def state_entered(self) -> None:
        """The state changed: its old deadline is void."""
        self._entered_at = self._clock.monotonic()
        self._armed = None
        self._reported = False
        self._doctor_alarm.ring()

    def reconcile(self, wanted: frozenset[Task]) -> None:
        """Make the running tasks equal ``wanted``: cancel what is no longer in it, start what is new.

        The master is not cancelled: without a task left to wait for it finishes.
        """
        for name, task in self.tasks.items():
            if name not in wanted and name is not Task.MASTER and not task.done() and task not in self._dismissed:
                self._dismiss(task)
        self._winding_up = Task.MASTER not in wanted
        if self._winding_up:
            for write in self._writes:
                self._dismiss(write)
        for name in Task:  # in the order of the enum: the master first
            if name in wanted and (name not in self.tasks or self._must_start_anew(name)):
                self._start(name)
        self._task_ended.set()

    def send_soon(self, frame: bytes) -> None:
        """Write ``frame`` without waiting for it. A write that fails is reported as the processor's failure."""
        task = asyncio.get_running_loop().create_task(self.transport.send(frame), name=f"write-{self.number}")
        self._writes.add(task)
        task.add_done_callback(self._written)

    def throw_to(self, name: Task, error: BaseException) -> None:
        """Cancel the task ``name`` and have ``error`` reported as its failure; nothing happens if it has ended."""
        task = self.tasks.get(name)
        if task is not None and not task.done():
            self._thrown[task] = error
            task.cancel()

    async def finish(self) -> None:
        """Wait until no task of this generation is left. `reconcile` with nothing wanted must have come before."""
        while left := [task for task in (*self.tasks.values(), *self._writes) if not task.done()]:
            await asyncio.wait(left)

    # ---------------------------------------------------------------- tasks: start and end

    def _start(self, name: Task) -> None:
        bodies: dict[Task, Callable[[], Coroutine[None, None, None]]] = {
            Task.MASTER: self._master,
            Task.PROCESSOR: self._processor,
            Task.HEARTBEAT: self._heartbeat,
            Task.DOCTOR: self._doctor,
        }
        label = f"{name}-{self._tracker.shard_id}-{self.number}"
        task = asyncio.get_running_loop().create_task(bodies[name](), name=label)
        self.tasks[name] = task
        self._live.add(name)
        self._tracker.tasks[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))

    def _must_start_anew(self, name: Task) -> bool:
        """The doctor and the master are needed for the end of a connection, even if their own failure was its cause."""
        ending = self._tracker.state is State.UNHEALTHY
        return ending and name in self._tracker.failures and self.tasks[name].done()

    def _dismiss(self, task: asyncio.Task[None]) -> None:
        self._dismissed.add(task)
        task.cancel()

    def _ended(self, name: Task, task: asyncio.Task[None]) -> None:
        self._live.discard(name)
        self._task_ended.set()
        error = self._thrown.pop(task, None)
        thrown = error is not None
        if error is None and not task.cancelled():
            error = task.exception()
        if task in self._dismissed:
            self._log_stopped(name, "dismissed")
            return
        if name is Task.HEARTBEAT and isinstance(error, Closed) and not thrown:
            self._log_stopped(name, repr(error))
            return  # a closed socket is the processor's to report: it may still read the close code
        if error is None and task.cancelled():
            error = TaskDied(f"the {name} was cancelled by somebody other than the control plane")
        if error is None:
            return  # the doctor after its last visit, the master with nothing left to wait for
        self._log_stopped(name, repr(error))
        self._tracker.failures[name] = error
        self._post(_as_trigger(name, error))

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if task.cancelled() or task in self._dismissed:
            return
        error = task.exception()
        if error is not None and not isinstance(error, Closed):  # a closed socket is the processor's to report
            self._post(trigger.TaskFailed(Task.PROCESSOR, error))

    def _log_stopped(self, name: Task, reason: str) -> None:
        shard = self._tracker.shard_id
        logger.info("Stopped task", name=name.value, reason=reason, shard=shard, generation=self.number)

    # ---------------------------------------------------------------- tasks: what they do

    async def _master(self) -> None:
        """Owner of the generation's tasks: waits until the generation is wound up and none is left, then finishes."""
        while not self._winding_up or self._live != {Task.MASTER}:
            self._task_ended.clear()
            await self._task_ended.wait()
        logger.info("Control plane finished", shard=self._tracker.shard_id, generation=self.number)

    async def _processor(self) -> None:
        """Dials, then reads the socket; what is read goes through the `Reception`."""
        try:
            await within(self._clock, DIAL_SECONDS, self._dial())
        except TimeoutError:
            msg = f"no connection within {DIAL_SECONDS:g} s"
            raise ConnectFailed(msg) from None
        callbacks = Callbacks(self._post, self._hello, self._acknowledged, self._ask_for_beat)
        while True:
            batch = await self.transport.receive()
            if self._pulse is not None:
                self._pulse.frame(self._clock.monotonic())
            self._reception.take(batch, callbacks)

    async def _dial(self) -> None:
        url = await self._url()
        shown = url.partition("?")[0]
        logger.info("Connecting to gateway", url=shown, shard=self._tracker.shard_id, generation=self.number)
        await self.transport.connect(url)

    async def _heartbeat(self) -> None:
        """First beat after interval x jitter, then one every interval; op 1 is answered at once, off the schedule."""
        pulse = self._pulse
        if pulse is None:
            msg = "the heartbeat started without a Hello"
            raise ProtocolBreach(msg)
        due = self._clock.monotonic() + pulse.interval * self._rng.random()
        while True:
            await self._beat_alarm.sleep_until(due)
            now = self._clock.monotonic()
            if self._beat_asked or now >= due:
                self._beat_asked = False
                await self._beat(pulse)
            while due <= now:  # after a pause of the host, do not make up for what was missed
                due += pulse.interval

    async def _beat(self, pulse: Pulse) -> None:
        pulse.sent(self._clock.monotonic())
        self._doctor_alarm.ring()
        seq = self._reception.seq
        await self.transport.send(heartbeat_frame(seq))
        self._tracker.stats.heartbeat_sent_count += 1
        if self._log_heartbeats:
            logger.debug("Sent heartbeat", seq=seq, shard=self._tracker.shard_id)

    async def _doctor(self) -> None:
        """Keeps the state's deadline and the ACK age; in Unhealthy closes the socket and asks for the verdict."""
        while self._tracker.state is not State.UNHEALTHY:
            due = self._next_due()
            await self._doctor_alarm.sleep_until(due)
            self._examine()
        await self._close_socket()
        self._post(trigger.Diagnosed())

    def _next_due(self) -> float | None:
        if self._reported:
            return None
        moments = [self._deadline_at(), self._pulse.zombie_at() if self._beating() and self._pulse else None]
        if self._tracker.state is State.READY and self._clock.monotonic() < self._stable_at():
            moments.append(self._stable_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def _examine(self) -> None:
        """Post what became true; what ends the state once only, since the state changes before the next look."""
        if self._reported:
            return
        now = self._clock.monotonic()
        pulse = self._pulse
        deadline_at = self._deadline_at()
        if self._beating() and pulse is not None and pulse.is_zombie(now):
            waited = pulse.unanswered_for(now) or 0.0
            self._reported = True
            self._post(trigger.Zombie(ZombieConnection(f"no ACK for a heartbeat sent {waited:.1f} s ago")))
        elif deadline_at is not None and now >= deadline_at and self._armed is not None:
            self._reported = True
            self._post(trigger.Timeout(self._armed.visit, self._missed(self._armed.deadline)))
        if self._tracker.state is State.READY and not self._stable_posted and now >= self._stable_at():
            self._stable_posted = True
            self._post(trigger.Stable())

    def _stable_at(self) -> float:
        return self._entered_at + STABLE_SECONDS

    def _beating(self) -> bool:
        return self._tracker.state in {State.IDENTIFYING, State.RESUMING, State.READY}

    def _deadline_at(self) -> float | None:
        """The deadline of the state; during a replay every event moves it."""
        if self._armed is None:
            return None
        dispatch_at = self._reception.last_dispatch_at
        if self._tracker.state is State.RESUMING and dispatch_at is not None:
            return max(self._armed.due, dispatch_at + self._armed.deadline.seconds)
        return self._armed.due

    def _missed(self, deadline: Deadline) -> DeadlineMissed:
        return DeadlineMissed(f"{deadline.awaited} did not come within {deadline.seconds:g} s")

    async def _close_socket(self) -> None:
        if not self.transport.closed:
            try:
                await within(self._clock, CLOSE_SECONDS, self.transport.close(RESUMABLE_CLOSE))
            except TimeoutError:
                self.transport.abort()

    # ---------------------------------------------------------------- what the reception reports

    def _hello(self, interval: float) -> None:
        self._pulse = Pulse(interval, self._clock.monotonic())
        self._tracker.pulse = self._pulse

    def _acknowledged(self) -> None:
        if self._pulse is not None:
            self._pulse.acknowledged(self._clock.monotonic())

    def _ask_for_beat(self) -> None:
        self._beat_asked = True
        self._beat_alarm.ring()


def _as_trigger(name: Task, error: BaseException) -> trigger.Trigger:
    """What the end of a task means to the machine."""
    if name is Task.PROCESSOR and isinstance(error, ConnectFailed):
        return trigger.ConnectFailed(error)
    if name is Task.PROCESSOR and isinstance(error, Closed):
        row = classify(error.code)
        if row.kind is CloseClass.FATAL and error.code is not None:
            return trigger.Closed(error.code, FatalCloseError(error.code, row.meaning, row.remedy))
        return trigger.Closed(error.code, error)
    return trigger.TaskFailed(name, error)
