"""Run a control plane in a test: against a simulator on real sockets, or on in-memory connections that the test plays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import pytest

from discorder.clock import Clock, FakeClock
from discorder.config import load_config
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.errors import Closed, NotStarted
from discorder.plane.shard_factory import PlaneDependencies, Wrap
from discorder.publishers.protocol import Publisher
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import SessionStore
from discorder.simulator import Simulator
from discorder.statemachine import RUNS, State, Task
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.tracker import GatewayTracker
from discorder.transport.protocol import Deliver, Transport
from discorder.wire import Event, Op, session_label

T = TypeVar("T")

STEP = 0.05  # seconds of a fake clock per step; with a millisecond of real time it runs some thirty times too fast
AT_REST = {State.READY, State.RESTARTING}  # no answer is awaited from a socket but ACKs
TOKEN = "MTIz.in-memory.not-a-secret"
LookUp = Callable[[], Awaitable[GatewayInfo]]
SETTINGS = ("publishers.sink.kind=channel", "session.store=", "log.level=debug", "http.bind?=")


class Hasty(random.Random):
    """Draws the shortest wait of every window, and the middle of everything else, so that each run is the same."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)

    def random(self) -> float:
        return 0.5


class Unlucky(random.Random):
    """Draws the longest wait of every window, for tests that measure the worst case."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)

    def random(self) -> float:
        return 0.999


class Hanging:
    """A publisher whose publish never returns."""

    name = "hanging"
    durable = False

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...


class Recorder:
    """A publisher that keeps all it gets in ``everything``; ``events`` has Discord's events, ``records`` the plane's own."""

    durable = False

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.everything: list[Event] = []
        self.events: list[Event] = []

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        self.publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.everything.extend(events)
        self.events.extend(event for event in events if event.seq is not None)
        return len(events)

    async def close(self) -> None: ...

    @property
    def records(self) -> list[Event]:
        """Return the control plane's own records."""
        return [event for event in self.everything if event.seq is None]

    @property
    def seen(self) -> list[tuple[str | None, int | None, str]]:
        """Return (session label, seq, type) of each event, in order."""
        return [(event.session, event.seq, event.type) for event in self.events]


class StageRef(TrackerRef):
    """A tracker reference that adds publishers and calls ``on_fill`` when the tracker is set."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        super().__init__()
        self._publishers = publishers
        self.on_fill: Callable[[GatewayTracker], None] = lambda _: None

    def fill(self, tracker: GatewayTracker) -> None:
        for publisher in self._publishers:
            tracker.add_publisher(publisher)
        super().fill(tracker)
        self.on_fill(tracker)


class Stage:
    """One run of `serve`. On a `FakeClock`, `until` advances the clock; otherwise it waits in real time."""

    def __init__(
        self,
        *settings: str,
        clock: Clock,
        token: str = TOKEN,
        client: BotClient | None = None,  # with real time by default
        publishers: Sequence[Publisher] = (),
        dial: Callable[[tuple[int, int]], Transport] | None = None,
        look_up: LookUp | None = None,
        rng: random.Random | None = None,
        wrap: Wrap | None = None,
        store: SessionStore | None = None,
    ) -> None:
        self.clock = clock
        self.strict = True  # check after each step that the running tasks are those of the state
        self.stride = STEP  # seconds per step at rest; a test that lasts hours sets a larger one
        self.recorder = Recorder()
        self.ref = StageRef([self.recorder, *publishers])
        self._settings = [*SETTINGS, *settings]
        self._around = PlaneDependencies(
            clock=clock, rng=rng or Hasty(), dial=dial, wrap=wrap, look_up=look_up, store=store
        )
        self.client = client or BotClient(token)
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        config = load_config(None, self._settings)
        await serve_config(lambda: config, client=self.client, tracker_ref=self.ref, dependencies=self._around)

    @property
    def fake(self) -> FakeClock:
        """Return the clock if it is a fake one."""
        assert isinstance(self.clock, FakeClock)
        return self.clock

    @property
    def tracker(self) -> GatewayTracker:
        return self.ref.value

    @property
    def states(self) -> list[State]:
        """Return every state so far, in order."""
        return [step.target for step in self.tracker.transitions if step.target is not step.source]

    async def until(self, predicate: Callable[[], object], *, within: float = 30.0, while_running: bool = True) -> None:
        """Let time pass until ``predicate()``; ``within`` is in seconds of the stage's clock."""
        end = self.clock.monotonic() + within
        while not predicate():
            if while_running and self.task.done():
                await self.task
                pytest.fail("the control plane ended before")
            if self.clock.monotonic() > end:
                pytest.fail(f"not within {within} s; {self.tracker!r}")
            await self.pass_time()

    async def started(self) -> None:
        """Wait in real time until `serve` has made its tracker, which takes longer on a busy machine; the clock stands still."""
        while not self._shards():
            if self.task.done():
                await self.task
                pytest.fail("the control plane ended before")
            await asyncio.sleep(0.001)

    async def result(self, wanted: Coroutine[Any, Any, T], *, within: float = 60.0) -> T:
        """Let time pass until ``wanted`` is done; return its result or raise its exception."""
        task = asyncio.ensure_future(wanted)
        await self.until(task.done, within=within)
        return await task

    async def pass_time(self) -> None:
        """Take one step, and check that the running tasks are those of the state."""
        await asyncio.sleep(0.001)
        if isinstance(self.clock, FakeClock):
            at_rest = all(shard.state in AT_REST for shard in self._shards())
            await self.clock.advance(self.stride if at_rest else STEP)
            await self._the_right_tasks_run()

    async def spend(self, seconds: float) -> None:
        """Let ``seconds`` of the stage's clock pass."""
        end = self.clock.monotonic() + seconds
        await self.until(lambda: self.clock.monotonic() >= end - 1e-6, within=seconds + self.stride)

    async def _the_right_tasks_run(self) -> None:
        """Check the running tasks. The rule holds only when the inbox is empty, so allow a few turns of the loop."""
        wrong: list[ShardTracker] = []
        for _ in range(300 if self.strict else 0):
            wrong = [shard for shard in self._shards() if running_tasks(shard) != RUNS[shard.state]]
            if not wrong:
                return
            await asyncio.sleep(0)
        if wrong:
            pytest.fail("\n".join(f"{shard.state}: {running_tasks(shard)} run" for shard in wrong))

    def _shards(self) -> Sequence[ShardTracker]:
        try:
            return self.tracker.shards
        except NotStarted:
            return ()

    async def in_state(self, state: State, *, generation: int | None = None, within: float = 30.0) -> GatewayTracker:
        """Let time pass until the shard is in ``state`` (of ``generation``)."""
        await self.until(lambda: self._is_in(state, generation), within=within)
        return self.tracker

    def _is_in(self, state: State, generation: int | None) -> bool:
        try:
            tracker = self.tracker
        except NotStarted:
            return False
        return tracker.state is state and (generation is None or tracker.generation == generation)

    async def ready(self, generation: int | None = None, *, within: float = 30.0) -> GatewayTracker:
        return await self.in_state(State.READY, generation=generation, within=within)

    async def end(self, *, within: float = 30.0) -> BaseException | None:
        """Let time pass until `serve` has ended by itself; return the exception that it raised."""
        await self.until(self.task.done, within=within, while_running=False)
        return self.task.exception()

    async def stop(self, *, goodbye: bool = False) -> None:
        """Call `shutdown` and let time pass until every task of the plane is done."""
        stopping = asyncio.ensure_future(shutdown(self.tracker, goodbye=goodbye))
        await self.until(lambda: stopping.done() and self.task.done(), while_running=False)
        await stopping
        await self.task


def running_tasks(shard: ShardTracker) -> set[Task]:
    """Return the tasks of the current generation that have not ended."""
    return {name for name, task in shard.tasks.items() if not task.done()}


class StartStage(Protocol):
    """Starts a plane against a simulator, on a fake clock unless another one is given."""

    def __call__(
        self,
        sim: Simulator,
        *settings: str,
        clock: Clock | None = None,
        publishers: Sequence[Publisher] = (),
        look_up: LookUp | None = None,
        rng: random.Random | None = None,
        wrap: Wrap | None = None,
        store: SessionStore | None = None,
        token: str = ...,
        client: BotClient | None = None,
    ) -> Stage: ...


class Caught:
    """Compares what a simulator sent in its sessions with what a stage's recorder received."""

    def __init__(self, sim: Simulator, stage: Stage) -> None:
        self._sim = sim
        self._stage = stage

    @property
    def sent(self) -> list[tuple[str, int, str]]:
        return [(session_label(session), seq, kind) for session, seq, kind in self._sim.sent]

    async def up(self) -> None:
        """Return once every event was published, once and in order. Fail otherwise."""
        await self._stage.until(lambda: len(self._stage.recorder.events) >= len(self.sent))
        assert self._stage.recorder.seen == self.sent
        assert self._sim.violations == []


@pytest.fixture
async def start_simulator() -> AsyncIterator[Callable[..., Awaitable[Simulator]]]:
    """Return a function that starts simulators with options. They do not enforce spacing, since their clock is the real one."""
    running: list[Simulator] = []

    async def start(**options: Any) -> Simulator:
        sim = Simulator(**{"identify_spacing": 0.0, "missed_heartbeats": 0.0, "guilds": 2, **options})
        await sim.start()
        running.append(sim)
        return sim

    yield start
    await asyncio.gather(*(sim.stop() for sim in running))


@pytest.fixture
async def sim(start_simulator: Callable[..., Awaitable[Simulator]]) -> Simulator:
    """A simulator with two guilds that send nothing until a test dispatches something."""
    return await start_simulator()


@pytest.fixture
async def stages() -> AsyncIterator[list[Stage]]:
    """The stages of a test. Those that still run at its end are cancelled."""
    running: list[Stage] = []
    yield running
    for stage in running:
        stage.task.cancel()
        end = asyncio.gather(stage.task, return_exceptions=True)
        for _ in range(1000):
            if end.done():
                break
            await stage.pass_time()
        await end


@pytest.fixture
def start_stage(stages: list[Stage]) -> StartStage:
    """Return a function that starts a plane against a simulator."""

    def start(sim: Simulator, *settings: str, clock: Clock | None = None, **around: Any) -> Stage:
        stage = Stage(
            f"gateway.api={sim.api_url}", *settings, clock=clock or FakeClock(), **{"token": sim.token, **around}
        )
        stages.append(stage)
        return stage

    return start


# ------------------------------------------------------------------------------------------------ connections in memory


class Line:
    """A connection in memory. The test plays the gateway: it feeds frames and reads ``sent``."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[dict[str, Any]] = []
        self.close_codes: list[int] = []
        self.aborted = False
        self.accepts = asyncio.Event()  # cleared: the dial hangs
        self.accepts.set()
        self.writes = asyncio.Event()  # cleared: a write hangs
        self.writes.set()
        self.answers_close = True
        self.write_error: BaseException | None = None
        self._open = False
        self._end: Closed | None = None
        self._deliver: Deliver | None = None
        self._inbox: list[bytes] = []
        self._arrived = asyncio.Event()
        self._seq = 0

    # called by the control plane

    @property
    def closed(self) -> bool:
        return not self._open

    async def connect(self, url: str, deliver: Deliver) -> None:
        self.url = url
        await self.accepts.wait()
        self._open = True
        self._deliver = deliver
        self._soon()

    async def wait_closed(self) -> None:
        while self._inbox or self._end is None:
            self._arrived.clear()
            await self._arrived.wait()
        self._open = False
        raise self._end

    async def send(self, data: bytes) -> None:
        await self.writes.wait()
        if self.write_error is not None:
            raise self.write_error
        self.sent.append(msgspec.json.decode(data))

    async def close(self, code: int) -> None:
        self._inbox.clear()
        self.close_codes.append(code)
        if not self.answers_close:
            await asyncio.Event().wait()
        self._finish(Closed(code, "us"))
        self._open = False

    def abort(self) -> None:
        self._inbox.clear()
        self.aborted = self.aborted or self._open
        self._finish(Closed(None, "us", "aborted"))
        self._open = False

    # called by the test

    def feed(self, *frames: dict[str, Any] | bytes) -> None:
        """Deliver the frames in one batch."""
        self._inbox.extend(frame if isinstance(frame, bytes) else msgspec.json.encode(frame) for frame in frames)
        self._soon()

    def hello(self, interval_ms: float = 41_250) -> None:
        self.feed({"op": Op.HELLO, "d": {"heartbeat_interval": interval_ms}})

    def ready(self, session_id: str = "s1") -> None:
        self.feed(self.dispatched("READY", {"session_id": session_id, "resume_gateway_url": "ws://resume.test"}))

    def dispatched(self, kind: str, data: Any = None, *, seq: int | None = None) -> dict[str, Any]:
        """Return a dispatch frame, with the next sequence unless one is given."""
        self._seq = self._seq + 1 if seq is None else seq
        return {"op": Op.DISPATCH, "t": kind, "s": self._seq, "d": data or {}}

    def goes_on_after(self, seq: int) -> None:
        self._seq = seq

    def ack(self) -> None:
        self.feed({"op": Op.HEARTBEAT_ACK})

    def lose(self, code: int | None = None) -> None:
        """End the connection: by the peer with ``code``, or by the network without one."""
        self._finish(Closed(code, "network" if code is None else "peer"))

    def ops(self, op: Op) -> list[Any]:
        """Return ``d`` of each sent frame with this opcode."""
        return [frame["d"] for frame in self.sent if frame["op"] == op]

    def _finish(self, end: Closed) -> None:
        self._end = self._end or end
        self._arrived.set()

    def _soon(self) -> None:
        """Deliver at the next turn of the loop; frames that arrive until then are one batch."""
        if self._deliver is not None:
            asyncio.get_running_loop().call_soon(self.hand_over)

    def hand_over(self) -> None:
        """Deliver what has arrived."""
        batch, self._inbox = self._inbox, []
        if batch and self._deliver is not None:
            self._deliver(batch)
        self._arrived.set()


class Exchange:
    """Gives each generation a new `Line`, or one that was prepared."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._prepared: list[Line] = []
        self.url = "ws://main.test"
        self.answers = asyncio.Event()  # cleared: the look-up hangs
        self.answers.set()

    def prepare(self, line: Line | None = None) -> Line:
        """Return the connection of the next generation, so that the test can change it before the dial."""
        line = line or Line()
        self._prepared.append(line)
        return line

    def dial(self, shard: tuple[int, int]) -> Line:
        line = self._prepared.pop(0) if self._prepared else Line()
        self.lines.append(line)
        return line

    async def look_up(self) -> GatewayInfo:
        await self.answers.wait()
        limit = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=86_400_000, max_concurrency=1)
        return GatewayInfo(url=self.url, shards=1, session_start_limit=limit)


class MemoryStage(Stage):
    """A stage on an `Exchange`, with a fake clock."""

    def __init__(self, exchange: Exchange, *settings: str, publishers: Sequence[Publisher] = ()) -> None:
        self.exchange = exchange
        super().__init__(
            *settings, clock=FakeClock(), publishers=publishers, dial=exchange.dial, look_up=exchange.look_up
        )

    async def line(self, number: int = 1) -> Line:
        """Return the connection of the ``number``-th generation, once it exists."""
        await self.until(lambda: len(self.exchange.lines) >= number)
        return self.exchange.lines[number - 1]

    async def identified(self, interval_ms: float = 41_250) -> Line:
        """Return the first connection, on which the shard is Ready."""
        line = await self.line()
        line.hello(interval_ms)
        await self.until(lambda: line.ops(Op.IDENTIFY))
        line.ready()
        await self.ready()
        return line

    async def resuming(self, number: int) -> Line:
        """Return the connection of a later generation, after RESUME has been sent."""
        line = await self.line(number)
        line.hello()
        await self.until(lambda: line.ops(Op.RESUME))
        line.goes_on_after(line.ops(Op.RESUME)[0]["seq"])
        return line


class StartMemoryStage(Protocol):
    """Starts a plane on in-memory connections."""

    def __call__(self, *settings: str, publishers: Sequence[Publisher] = ()) -> MemoryStage: ...


@pytest.fixture
async def exchange() -> Exchange:
    """The source of the connections of `start_memory_stage`."""
    return Exchange()


@pytest.fixture
def start_memory_stage(stages: list[Stage], exchange: Exchange) -> StartMemoryStage:
    """Return a function that starts a plane on in-memory connections."""

    def start(*settings: str, publishers: Sequence[Publisher] = ()) -> MemoryStage:
        stage = MemoryStage(exchange, *settings, publishers=publishers)
        stages.append(stage)
        return stage

    return start


@pytest.fixture
def rng() -> Hasty:
    """A random generator whose draws are always the same."""
    return Hasty()


@pytest.fixture
def catch() -> Callable[[Simulator, Stage], Caught]:
    """Return the class that compares what was sent with what was published."""
    return Caught
