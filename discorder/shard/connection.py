"""Run one connection: a socket and the coroutines that serve it.

The coroutines only post triggers; the driver decides which of them run (`reconcile`). A task that the driver cancels ends
silently; a task that ends by itself, or that other code cancels, is reported as failed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine

from discorder.clock import Clock, within
from discorder.errors import Closed, ConnectFailed, FatalCloseError, GatewayFailure, ProtocolBreach, TaskDied
from discorder.logs import logger
from discorder.outbound.outbox import Outbox
from discorder.shard.dependencies import DialTarget
from discorder.shard.heartbeat import Heartbeat
from discorder.shard.liveness import LivenessMonitor
from discorder.shard.receiver import Callbacks, Receiver
from discorder.statemachine import Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.close_codes import CloseClass
from discorder.statemachine.table import DIAL_SECONDS
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport.protocol import Transport

TOO_MANY_REQUESTS = 429  # HTTP: the limit applies to our address, and all hosts of the gateway share it


class Connection:
    """Hold the tasks and the socket of one connection.

    ``target`` returns the URL to dial as soon as it is known. ``hold_dials`` is called with the seconds for which our address
    must not dial.
    """

    def __init__(
        self,
        number: int,
        transport: Transport,
        *,
        tracker: ShardTracker,
        receiver: Receiver,
        clock: Clock,
        rng: random.Random,
        target: Callable[[], Awaitable[DialTarget]],
        hold_dials: Callable[[float], None],
        post: Callable[[trigger.Trigger], None],
        outbox: Outbox,
        log_heartbeats: Callable[[], bool],
    ) -> None:
        self.number = number
        self.transport = transport
        self.tasks: dict[Task, asyncio.Task[None]] = {}
        self._live: set[Task] = set()  # started tasks whose end is not reported yet
        self._tracker = tracker
        self._receiver = receiver
        self._clock = clock
        self.substituted = False  # the resume host was dialled because the main host is not known
        self._target = target
        self._hold_dials = hold_dials
        self._post = post
        self._outbox = outbox
        self.liveness = LivenessMonitor(tracker=tracker, clock=clock, post=post)
        self.heartbeat = Heartbeat(
            transport,
            tracker=tracker,
            clock=clock,
            rng=rng,
            seq=lambda: receiver.seq,
            beating=self._beating,
            log_beats=log_heartbeats,
        )
        self._dismissed: set[asyncio.Task[None]] = set()
        self._thrown: dict[asyncio.Task[None], BaseException] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._task_ended = asyncio.Event()
        self._held: list[bytes] | None = None  # frames received while the driver handles a trigger
        self._callbacks = Callbacks(self._signal, self._hello, self.heartbeat.acknowledged, self.heartbeat.ask)

    # ---------------------------------------------------------------- called by the driver

    def reconcile(self, wanted: frozenset[Task]) -> None:
        """Make the running tasks equal ``wanted``: cancel the tasks that are no longer in it, start the new ones.

        The master is not cancelled: it finishes when no other task is left.
        """
        for name, task in self.tasks.items():
            if name not in wanted and name is not Task.MASTER and not task.done() and task not in self._dismissed:
                self._dismiss(task)
        self._winding_up = Task.MASTER not in wanted
        if self._winding_up:
            for write in self._writes:
                self._dismiss(write)
        for name in Task:  # in the order of the enum: the master first
            if name in wanted and name not in self.tasks:
                self._start(name)
        self._task_ended.set()

    def send_soon(self, frame: bytes) -> None:
        """Write IDENTIFY or RESUME without waiting for the write. A failed write is reported as a failure of the processor."""
        self._outbox.control_sent()
        task = asyncio.get_running_loop().create_task(self.transport.send(frame), name=f"write-{self.number}")
        self._writes.add(task)
        task.add_done_callback(self._written)

    def throw_to(self, name: Task, error: BaseException) -> None:
        """Cancel the task ``name`` and report ``error`` as its failure. Do nothing if it has ended."""
        task = self.tasks.get(name)
        if task is not None and not task.done():
            self._thrown[task] = error
            task.cancel()

    async def finish(self) -> None:
        """Wait until no task of this connection is left. Call `reconcile` with an empty set before."""
        while left := [task for task in (*self.tasks.values(), *self._writes) if not task.done()]:
            await asyncio.wait(left)

    # ---------------------------------------------------------------- tasks: start and end

    def _start(self, name: Task) -> None:
        bodies: dict[Task, Callable[[], Coroutine[None, None, None]]] = {
            Task.MASTER: self._master,
            Task.PROCESSOR: self._processor,
            Task.HEARTBEAT: self.heartbeat.run,
            Task.DOCTOR: self.liveness.run,
        }
        label = f"{name}-{self._tracker.shard_id}-{self.number}"
        task = asyncio.get_running_loop().create_task(bodies[name](), name=label)
        self.tasks[name] = task
        self._live.add(name)
        self._tracker.tasks[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))

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
            if error is not None:
                self._drop_late(repr(error))
            self._log_stopped(name, "dismissed")
            return
        if name is Task.HEARTBEAT and isinstance(error, Closed) and not thrown:
            self._log_stopped(name, repr(error))
            return  # the processor reports a closed socket: it may still read the close code
        if error is None and task.cancelled():
            error = TaskDied(f"the {name} was cancelled by somebody other than the control plane")
        if error is None:
            return  # the master: no other task is left
        self._log_stopped(name, repr(error))
        self._tracker.failures[name] = error
        self._post(_as_trigger(name, error))

    def _written(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task in self._dismissed:
            return
        error = task.exception()
        if error is not None and not isinstance(error, Closed):  # the processor reports a closed socket
            self.write_failed(error)

    def write_failed(self, error: BaseException) -> None:
        """Report a frame that could not be written although the socket is open: the connection is unusable."""
        self._post(trigger.TaskFailed(Task.PROCESSOR, error))

    def _drop_late(self, what: str) -> None:
        self._tracker.stats.stale_count += 1
        shard = self._tracker.shard_id
        logger.debug("Dropped what a dismissed task still had to say", what=what, shard=shard, generation=self.number)

    def _log_stopped(self, name: Task, reason: str) -> None:
        shard = self._tracker.shard_id
        logger.info("Stopped task", name=name.value, reason=reason, shard=shard, generation=self.number)

    # ---------------------------------------------------------------- tasks: their bodies

    async def _master(self) -> None:
        """Wait until the driver has ended the connection and no other task is left."""
        while not self._winding_up or self._live != {Task.MASTER}:
            self._task_ended.clear()
            await self._task_ended.wait()
        logger.info("Control plane finished", shard=self._tracker.shard_id, generation=self.number)

    async def _processor(self) -> None:
        """Dial, then wait for the end of the connection; the transport passes the frames to `_deliver`."""
        try:
            await within(self._clock, DIAL_SECONDS, self._dial())
        except TimeoutError:
            msg = f"no connection within {DIAL_SECONDS:g} s"
            raise ConnectFailed(msg) from None
        try:
            await self.transport.wait_closed()
        except GatewayFailure:
            while self._held is not None:
                await self._clock.sleep(0)
            raise

    def _deliver(self, batch: list[bytes]) -> None:
        """Take the frames of one read; called by the transport."""
        if self._held is None:
            self._take(batch)
        else:
            self._held += batch

    def _take(self, batch: list[bytes]) -> None:
        """Take ``batch`` up to READY. The rest follows after the driver has handled it.

        So READY is stored before the burst of events after it is published. Behind other frames nothing waits: an event that came
        with op 7 is published, whatever becomes of its session.
        """
        if self.tasks[Task.PROCESSOR].cancelling():  # the driver has given up this socket
            self._drop_late("a batch")
            return
        self.heartbeat.frame()
        self._callbacks.opened = False
        try:
            taken = self._receiver.take(batch, self._callbacks)
        except Exception as error:  # noqa: BLE001  # any error is a failure of the processor
            self.throw_to(Task.PROCESSOR, error)
            return
        if self._callbacks.opened:
            self._held = batch[taken:]
            asyncio.get_running_loop().call_soon(self._take_held)

    def _take_held(self) -> None:
        held, self._held = self._held, None
        if held:
            self._take(held)

    def _signal(self, what: trigger.Trigger) -> None:
        self._callbacks.opened = isinstance(what, trigger.Ready) or self._callbacks.opened
        self._post(what)

    def _hello(self, interval: float) -> None:
        self.heartbeat.hello(interval)
        self._outbox.hello(interval)

    def _beating(self) -> None:
        self.liveness.beating()
        self._outbox.control_sent()

    async def _dial(self) -> None:
        target = await self._target()
        self.substituted = target.substituted
        shown = target.url.partition("?")[0]
        logger.info("Connecting to gateway", url=shown, shard=self._tracker.shard_id, generation=self.number)
        try:
            await self.transport.connect(target.url, self._deliver)
        except ConnectFailed as error:
            if error.status == TOO_MANY_REQUESTS:
                self._hold_dials(error.retry_after)
            raise


def _as_trigger(name: Task, error: BaseException) -> trigger.Trigger:
    """Return the trigger for the end of the task ``name`` with ``error``."""
    if name is Task.PROCESSOR and isinstance(error, ConnectFailed):
        return trigger.ConnectFailed(error, error.retry_after, error.status == TOO_MANY_REQUESTS)
    if name is Task.PROCESSOR and isinstance(error, ProtocolBreach):
        return trigger.Breach(error)
    if name is Task.PROCESSOR and isinstance(error, Closed):
        closed = trigger.Closed(error.code, error)
        if closed.close_code.kind is CloseClass.FATAL and error.code is not None:
            fatal = FatalCloseError(error.code, closed.close_code.meaning, closed.close_code.remedy)
            return trigger.Closed(error.code, fatal)
        return closed
    return trigger.TaskFailed(name, error)
