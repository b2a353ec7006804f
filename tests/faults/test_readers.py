"""Cases 32, 34 to 36 and 40: what happens between the bus and its readers, and what one of them can do to the others."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from discorder.bot import replays
from discorder.bot.subscriber import Gap, Subscription, subscribe
from discorder.clock import SystemClock
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.replays import STREAMS, STREAMS_PER_CLIENT
from discorder.simulator import Simulator
from discorder.wire import ReceivedEvent
from tests.faults.fault import loss
from tests.faults.table import Case
from tests.harness import Stage, StartStage
from tests.relay import relay_to

SECONDS = 60.0
KIND = "MESSAGE_CREATE"
LARGE = {"content": "x" * 20_000}


class Bus(NamedTuple):
    """A control plane on the real clock, the simulator before it and the bus behind it."""

    sim: Simulator
    stage: Stage
    publisher: ZmqPublisher

    @property
    def wanted(self) -> list[int]:
        """The sequences of the messages that were sent."""
        return [seq for _, seq, kind in self.sim.sent if kind == KIND]

    async def say(self, count: int, data: Any = None) -> None:
        """Dispatch ``count`` messages, and return once all were published."""
        for _ in range(count):
            await self.sim.dispatch(KIND, data or {"content": "x" * 2_000})
        await self.stage.until(lambda: len(self.stage.recorder.events) == len(self.sim.sent))

    def subscribe(self, address: str = "", replay: str = "", **how: Any) -> Subscription[ReceivedEvent]:
        return subscribe(
            address or self.publisher.endpoints[0], [KIND], replay=replay or self.publisher.replay_endpoint, **how
        )

    def note(self, case: Case, seen: list[int], note: str = "") -> None:
        """One session, and each message once and in order."""
        assert (self.sim.identifies, self.sim.connects) == (1, 1)
        cost = loss([("", seq, KIND) for seq in self.wanted], [("", seq, KIND) for seq in seen])
        case.note(identifies=0, lost=cost.lost, duplicates=cost.duplicates, note=note)
        assert (cost.lost, cost.duplicates) == (0, 0)


@pytest.fixture
async def bus(start_stage: StartStage) -> AsyncIterator[Bus]:
    async with Simulator(guilds=1, identify_spacing=0.0) as sim:
        settings = ("publishers.bus.kind=zmq", "publishers.bus.bind=tcp://127.0.0.1:*")
        stage = start_stage(sim, *settings, clock=SystemClock())
        await stage.ready()
        (publisher,) = [one for one in stage.tracker.publishers if isinstance(one, ZmqPublisher)]
        yield Bus(sim, stage, publisher)
        await stage.stop()


async def take(subscription: Subscription[ReceivedEvent], count: int) -> list[int]:
    """The sequences of the next events; a gap is none and fails."""
    seen: list[int] = []
    async with asyncio.timeout(SECONDS):
        while len(seen) < count:
            item = await anext(subscription)
            assert isinstance(item, ReceivedEvent), item
            seen.append(item.seq or 0)
    return seen


# ---------------------------------------------------------------- 32


async def test_32_a_cursor_cannot_be_written(case: Case, bus: Bus, tmp_path: Path) -> None:
    """Its folder is gone: the events go on, `commit` alone raises; once it is there again the next life goes on behind them."""
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / "cursor"
    await bus.say(10)
    async with bus.subscribe(start="oldest", cursor=path) as reading:
        seen = await take(reading, 5)
        shutil.rmtree(folder)
        seen += await take(reading, 5)
        with pytest.raises(FileNotFoundError):
            await reading.commit()
        folder.mkdir()
        await reading.commit()
    await bus.say(5)
    async with bus.subscribe(cursor=path) as reading:
        seen += await take(reading, 5)
    bus.note(case, seen)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["a web server", "nobody speaks"])
async def test_32_something_else_listens_where_replays_are_asked_for(
    case: Case, bus: Bus, answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged once, and a Gap; live events go on."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    await bus.say(3)
    covered: list[int] = []
    seen: list[int] = []
    began = time.monotonic()
    async with bus.subscribe(start="oldest", replay=f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as reading:
        first = asyncio.create_task(anext(reading))
        await bus.stage.until(lambda: bus.publisher.subscriptions)
        await bus.say(1)
        async with asyncio.timeout(SECONDS):
            item: Any = await first
            while not isinstance(item, Gap):
                seen.append(item.seq)
                item = await anext(reading)
        took = time.monotonic() - began
        covered = [seq for seq in bus.wanted if item.from_seq <= seq <= (item.to_seq or 0)]
        await bus.say(1)
        while bus.wanted[-1] not in seen:
            seen += await take(reading, 1)
    server.close()
    assert took < 15.0
    assert caplog.text.count("No replay at") == 1
    case.note(recovery=took)
    bus.note(case, covered + seen, note="live events go on without replays")


# ---------------------------------------------------------------- 34


@pytest.mark.slow
@pytest.mark.parametrize("live_only", [False, True], ids=["with replays", "live only"])
async def test_34_a_path_that_carries_nothing_more_and_stays_open(case: Case, bus: Bus, live_only: bool) -> None:
    """No FIN, no RST: noticed within 30 s; the missed events are replayed, or are a gap under ``live_only``."""
    async with relay_to(bus.publisher.endpoints[0]) as (relay, address):  # noqa: SIM117  # it needs the address
        async with bus.subscribe(address, live_only=live_only) as reading:
            first = asyncio.create_task(take(reading, 1))
            await bus.stage.until(lambda: bus.publisher.subscriptions)
            await bus.say(1)
            seen = await first
            relay.freeze()
            began = time.monotonic()
            await bus.say(5)
            covered: list[int] = []
            async with asyncio.timeout(SECONDS):
                while bus.wanted[-1] not in {*seen, *covered}:
                    item = await anext(reading)
                    if isinstance(item, Gap):
                        covered += sorted({*range(item.from_seq, (item.to_seq or 0) + 1)} - {*seen})
                    else:
                        seen.append(item.seq or 0)
    took = time.monotonic() - began
    assert took <= 30.0
    assert bool(covered) == live_only
    case.note(recovery=took)
    bus.note(case, seen + covered, note="told of all, live only" if live_only else "replayed all")


# ---------------------------------------------------------------- 35


async def test_35_each_connection_is_reset_after_a_tenth_of_the_replay(
    case: Case, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay is requested again from where it stopped: from the beginning it would never end."""
    monkeypatch.setattr(replays, "ANSWER_TIMEOUT", 0.2)
    await bus.say(1_000)
    began = time.monotonic()
    async with relay_to(bus.publisher.replay_endpoint, reset_after=200_000) as (relay, address):  # noqa: SIM117  # as above
        async with bus.subscribe(replay=address, start="oldest") as reading:
            seen = await take(reading, 1_000)
            await bus.say(1)
            seen += await take(reading, 1)
    assert relay.resets >= 9
    case.note(recovery=time.monotonic() - began)
    bus.note(case, seen, note=f"{relay.resets} resets in 1,000 events")


# ---------------------------------------------------------------- 36


@contextmanager
def idle_readers(endpoint: str, count: int, replays_each: int) -> Iterator[None]:
    """Clients that ask for replays and fetch nothing."""
    context = zmq.Context()
    clients = [context.socket(zmq.DEALER) for _ in range(count)]
    for client in clients:
        client.set(zmq.RCVHWM, 1)
        client.set(zmq.RCVBUF, 65_536)
        client.connect(endpoint)
        for number in range(replays_each):
            client.send(json.dumps({"v": 1, "id": number, "op": "replay", "shard": 0}).encode())
    try:
        yield
    finally:
        context.destroy(linger=0)


async def test_36_readers_that_ask_for_all_the_replays_there_may_be_and_fetch_nothing(case: Case, bus: Bus) -> None:
    """The next reader waits for some seconds at most, and gets everything."""
    await bus.say(300, LARGE)
    with idle_readers(bus.publisher.replay_endpoint, STREAMS // STREAMS_PER_CLIENT, STREAMS_PER_CLIENT):
        await asyncio.sleep(0.5)  # all of them are being served
        began = time.monotonic()
        async with bus.subscribe(start="oldest") as reading:
            seen = await take(reading, 300)
            took = time.monotonic() - began
            await bus.say(1)
            seen += await take(reading, 1)
    assert took < 10.0
    case.note(recovery=took)
    bus.note(case, seen)


# ---------------------------------------------------------------- 40

FLOOD = """
import sys, time, zmq
client = zmq.Context().socket(zmq.XSUB)
client.set(zmq.SNDHWM, 1_000)
client.connect(sys.argv[1])
end, number = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    number += 1
    topic = b"MESSAGE_CREATE" if sys.argv[2] == "one topic" else b"%020d" % number
    for switch in (b"\\1", b"\\0") if sys.argv[2] != "more and more topics" else (b"\\1",):
        try:
            client.send(switch + topic, zmq.NOBLOCK)
        except zmq.Again:
            time.sleep(0.0005)
print(number)
"""
FLOOD_SECONDS = 3.0
MIB = 1024 * 1024


def resident() -> int:
    """Bytes of memory that this process uses now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.system
@pytest.mark.parametrize("how", ["one topic", "new topics", "more and more topics"])
async def test_40_a_client_that_switches_subscriptions_on_and_off(case: Case, bus: Bus, how: str) -> None:
    """As fast as it can: events are on time, memory is bounded, other readers lose nothing."""
    loop = asyncio.get_running_loop()
    before, turns = resident(), [loop.time()]
    async with bus.subscribe(start="oldest") as reading:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FLOOD, bus.publisher.endpoints[0], how, str(FLOOD_SECONDS)),
            stdout=asyncio.subprocess.PIPE,
        )
        flood = asyncio.create_task(process.communicate())
        seen: list[int] = []
        while not flood.done():
            await bus.say(1)
            seen += await take(reading, 1)
            turns.append(loop.time())
            await asyncio.sleep(0.01)
    sent = int((await flood)[0])
    longest = max(later - earlier for earlier, later in itertools.pairwise(turns))
    grown = (resident() - before) / MIB
    assert sent > 1_000
    assert longest < 2.0
    assert grown < 100
    bus.note(case, seen, note=f"{how}: an event took {longest * 1000:.0f} ms at the most, {grown:.0f} MiB more used")
