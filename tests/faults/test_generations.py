"""Case 13: what an old socket still has to say when the new one is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.transport.protocol import Transport
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.stage import Stage, StartStage


class Late:
    """A transport that ignores its cancellation: what it has read from its socket it hands out when it is let go."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._let_go = asyncio.Event()
        self.holds = False
        self.has_read = False

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str) -> None:
        await self._inner.connect(url)

    async def receive(self) -> list[bytes]:
        try:
            return await self._inner.receive()
        finally:
            await self._linger()

    async def _linger(self) -> None:
        self.has_read = self.holds
        while self.holds and not self._let_go.is_set():
            try:
                await self._let_go.wait()
            except asyncio.CancelledError:
                continue

    async def send(self, data: bytes) -> None:
        await self._inner.send(data)

    async def close(self, code: int) -> None:
        await self._inner.close(code)

    def abort(self) -> None:
        self._inner.abort()

    def let_go(self) -> None:
        self._let_go.set()


class Sockets:
    """The transports of a stage, in order of their generations."""

    def __init__(self) -> None:
        self.all: list[Late] = []

    def wrap(self, transport: Transport, _: tuple[int, int]) -> Late:
        self.all.append(Late(transport))
        return self.all[-1]


LAST_WORDS: dict[str, Callable[[Simulator], Awaitable[None]]] = {
    "an event": lambda sim: sim.dispatch("MESSAGE_CREATE", {"id": "late"}),
    "op 7": lambda sim: sim.reconnect(),
    "op 9 true": lambda sim: sim.invalidate(resumable=True),
    "op 9 false": lambda sim: sim.send_payload(b'{"op":9,"d":false}'),
    "Hello": lambda sim: sim.send_payload(b'{"op":10,"d":{"heartbeat_interval":1000}}'),
    "an ACK": lambda sim: sim.send_payload(b'{"op":11}'),
    "garbage": lambda sim: sim.send_payload(b"\x00"),
    "a fatal close": lambda sim: sim.close(4004),
    "a reset": lambda sim: sim.drop(),
}


async def held(stage: Stage, socket: Late) -> None:
    await stage.until(lambda: socket.has_read)


@pytest.mark.parametrize("words", LAST_WORDS.values(), ids=LAST_WORDS.keys())
async def test_13_a_callback_of_an_old_socket_comes_after_the_redial(
    case: Case, sim: Simulator, start_stage: StartStage, words: Callable[[Simulator], Awaitable[None]]
) -> None:
    """Dropped and counted: the new connection neither stumbles over it nor hears of it, and each event comes once."""
    sockets = Sockets()
    stage = start_stage(sim, wrap=sockets.wrap)
    stage.strict = False  # a reader that ignores its cancellation goes on running: that is the case
    tracker = await stage.ready()
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    old = sockets.all[0]
    old.holds = True
    fault = Fault(case, sim, stage)
    await words(sim)
    await held(stage, old)
    tracker.throw_to("heartbeat", RuntimeError("simulated failure"))
    await fault.recovered(2)
    session, stale = tracker.session_label, tracker.stats.stale_count
    old.let_go()
    await say(sim)
    await stage.spend(1.0)
    assert tracker.stats.stale_count == stale + 1
    assert (tracker.state, tracker.generation, tracker.session_label) == (State.READY, 2, session)
    assert tracker.heartbeat_interval_ms == 41_250
    assert await fault.cost() == FREE
    assert sim.resumed == 1


@pytest.mark.parametrize("words", LAST_WORDS.values(), ids=LAST_WORDS.keys())
async def test_13_an_old_socket_speaks_in_the_middle_of_a_resume(
    case: Case, sim: Simulator, start_stage: StartStage, words: Callable[[Simulator], Awaitable[None]]
) -> None:
    """RESUME is sent and nothing is replayed yet: an event of the old socket must not get in before the replay."""
    sockets = Sockets()
    stage = start_stage(sim, wrap=sockets.wrap)
    stage.strict = False
    tracker = await stage.ready()
    await say(sim)
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    old = sockets.all[0]
    old.holds = True
    fault = Fault(case, sim, stage)
    await words(sim)
    await held(stage, old)
    await sim.ignore_openings()
    tracker.throw_to("heartbeat", RuntimeError("simulated failure"))
    await stage.in_state(State.RESUMING, generation=2)
    old.let_go()
    await stage.spend(1.0)
    assert (tracker.state, tracker.generation) == (State.RESUMING, 2)
    await sim.heal()
    await sim.drop()
    await say(sim)
    await fault.recovered(3)
    assert await fault.cost() == FREE
