"""Case 13: frames of an old socket that arrive after the redial."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from discorder.errors import GatewayFailure
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.transport.protocol import Deliver, Transport
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import Stage, StartStage


class Late:
    """A transport that does not stop when it is closed: it delivers what it holds back only when it is released."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._late: list[list[bytes]] = []
        self._end: GatewayFailure | None = None
        self._let_go = asyncio.Event()
        self.holds = False

    @property
    def has_read(self) -> bool:
        return bool(self._late) or self._end is not None

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str, deliver: Deliver) -> None:
        self._deliver = deliver
        await self._inner.connect(url, self._hold_or_deliver)

    def _hold_or_deliver(self, batch: list[bytes]) -> None:
        if self.holds:
            self._late.append(batch)
        else:
            self._deliver(batch)

    async def wait_closed(self) -> None:
        try:
            await self._inner.wait_closed()
        except GatewayFailure as end:
            if self.holds:
                self._end = end
                while not self._let_go.is_set():
                    with contextlib.suppress(asyncio.CancelledError):  # it ignores its cancellation
                        await self._let_go.wait()
            raise

    async def send(self, data: bytes) -> None:
        await self._inner.send(data)

    async def close(self, code: int) -> None:
        await self._inner.close(code)

    def abort(self) -> None:
        self._inner.abort()

    def let_go(self) -> None:
        self._let_go.set()
        for batch in self._late:
            self._deliver(batch)


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


async def late_socket(
    case: Case, sim: Simulator, start_stage: StartStage, words: Callable[[Simulator], Awaitable[None]]
) -> tuple[Stage, Late, Fault]:
    """Return a stage that is Ready, whose first socket has read ``words`` and holds them back."""
    sockets = Sockets()
    stage = start_stage(sim, wrap=sockets.wrap)
    stage.strict = False  # a reader that ignores its cancellation goes on running: that is the case
    await stage.ready()
    await say(sim)
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    old = sockets.all[0]
    old.holds = True
    fault = Fault(case, sim, stage)
    await words(sim)
    await stage.until(lambda: old.has_read)
    return stage, old, fault


@pytest.mark.parametrize("words", LAST_WORDS.values(), ids=LAST_WORDS.keys())
async def test_13_a_callback_of_an_old_socket_comes_after_the_redial(
    case: Case, sim: Simulator, start_stage: StartStage, words: Callable[[Simulator], Awaitable[None]]
) -> None:
    """Dropped and counted: it does not affect the new connection, and each event comes once."""
    stage, old, fault = await late_socket(case, sim, start_stage, words)
    tracker = stage.tracker
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
    stage, old, fault = await late_socket(case, sim, start_stage, words)
    await sim.ignore_openings()
    stage.tracker.throw_to("heartbeat", RuntimeError("simulated failure"))
    await stage.in_state(State.RESUMING, generation=2)
    old.let_go()
    await stage.spend(1.0)
    assert (stage.tracker.state, stage.tracker.generation) == (State.RESUMING, 2)
    await sim.heal()
    await sim.drop()
    await say(sim)
    await fault.recovered(3)
    assert await fault.cost() == FREE
