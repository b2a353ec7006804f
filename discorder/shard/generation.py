"""One generation: the life of one socket, and the coroutines that serve it.

The coroutines observe and report; they post triggers and never decide. Which of them run is the driver's to say
(`reconcile`). A task that is dismissed by the driver ends silently; one that ends by itself, or is cancelled by anybody else,
is reported as failed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine

from discorder.clock import Clock, within
from discorder.errors import Closed, ConnectFailed, FatalCloseError, ProtocolBreach, TaskDied
from discorder.logs import logger
from discorder.outbound.outbox import Outbox
from discorder.shard.doctor import Doctor
from discorder.shard.heartbeat import Heartbeat
from discorder.shard.reception import Callbacks, Reception
from discorder.statemachine import State, Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.close_codes import CloseClass, classify
from discorder.statemachine.table import DIAL_SECONDS
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport.protocol import Transport


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
        outbox: Outbox,
        log_heartbeats: bool,
    ) -> None:
        self.number = number
        self.transport = transport
        self.tasks: dict[Task, asyncio.Task[None]] = {}
        self._live: set[Task] = set()  # started, and their end not yet reported
        self._tracker = tracker
        self._reception = reception
        self._clock = clock
        self._url = url
        self._post = post
        self._outbox = outbox
        self.doctor = Doctor(transport, tracker=tracker, clock=clock, post=post)
        self.heartbeat = Heartbeat(
            transport,
            tracker=tracker,
            clock=clock,
            rng=rng,
            seq=lambda: reception.seq,
            beating=self._beating,
            log_beats=log_heartbeats,
        )
        self._dismissed: set[asyncio.Task[None]] = set()
        self._thrown: dict[asyncio.Task[None], BaseException] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._task_ended = asyncio.Event()
        self._signalled = False  # the processor posted a trigger that the driver has not had a turn for

    # ---------------------------------------------------------------- told by the driver

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
        """Write IDENTIFY or RESUME without waiting for it. A write that fails is reported as the processor's failure."""
        self._outbox.control_sent()
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
            Task.HEARTBEAT: self.heartbeat.run,
            Task.DOCTOR: self.doctor.run,
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
            if error is not None:
                self._drop_late(repr(error))
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
        self._post(_as_trigger(name, error, before_hello=self._tracker.pulse is None))

    def _written(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task in self._dismissed:
            return
        error = task.exception()
        if error is not None and not isinstance(error, Closed):  # a closed socket is the processor's to report
            self.write_failed(error)

    def write_failed(self, error: BaseException) -> None:
        """A frame could not be written, and the socket is not closed: the connection is of no use."""
        self._post(trigger.TaskFailed(Task.PROCESSOR, error))

    def _drop_late(self, what: str) -> None:
        self._tracker.stats.stale_count += 1
        shard = self._tracker.shard_id
        logger.debug("Dropped what a dismissed task still had to say", what=what, shard=shard, generation=self.number)

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
        heartbeat = self.heartbeat
        callbacks = Callbacks(self._signal, self._hello, heartbeat.acknowledged, heartbeat.ask)
        while True:
            batch = await self.transport.receive()
            if asyncio.current_task() in self._dismissed:  # it ignored its cancellation: this socket is an old one
                self._drop_late("a batch")
                return
            heartbeat.frame()
            self._reception.take(batch, callbacks)
            if self._signalled:  # the driver's turn, so that READY is stored before the burst behind it is read
                self._signalled = False
                await self._clock.sleep(0)

    def _signal(self, what: trigger.Trigger) -> None:
        self._signalled = True
        self._post(what)

    def _hello(self, interval: float) -> None:
        self.heartbeat.hello(interval)
        self._outbox.hello(interval)

    def _beating(self) -> None:
        self.doctor.beating()
        self._outbox.control_sent()

    async def _dial(self) -> None:
        url = await self._url()
        shown = url.partition("?")[0]
        logger.info("Connecting to gateway", url=shown, shard=self._tracker.shard_id, generation=self.number)
        await self.transport.connect(url)


def _as_trigger(name: Task, error: BaseException, *, before_hello: bool) -> trigger.Trigger:
    """What the end of a task means to the machine.

    A host that speaks nonsense where Hello is due is no better than one that refuses: the other host gets its turn.
    """
    if name is Task.PROCESSOR and (
        isinstance(error, ConnectFailed) or (isinstance(error, ProtocolBreach) and before_hello)
    ):
        return trigger.ConnectFailed(error)
    if name is Task.PROCESSOR and isinstance(error, Closed):
        row = classify(error.code)
        if row.kind is CloseClass.FATAL and error.code is not None:
            return trigger.Closed(error.code, FatalCloseError(error.code, row.meaning, row.remedy))
        return trigger.Closed(error.code, error)
    return trigger.TaskFailed(name, error)
