"""A recorded session is replayed to a small client on a fake clock: a match passes, a difference is reported with its line."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import Closed, ConnectFailed, GatewayFailure, RecordingError
from discorder.transport.mock import MockGateway
from discorder.transport.recorded import Recording
from tests.stopwatch import Stopwatch

SHARD = (0, 1)
INTERVAL = 40.0


class Tape:
    """Writes a recording line by line. The assertions use ``line``, the number of the last entry."""

    def __init__(self, path: Path, *, filler: bool = False) -> None:
        self.path = path
        self.connection = 0
        header = {"format": "discorder-session", "version": 1, "created": "", "shards": 1, "filler": filler}
        self.rows: list[dict[str, Any]] = [header]

    def note(self, t: int, kind: str, **facts: Any) -> None:
        self.rows.append({"t": t, "c": self.connection, "shard": list(SHARD), "k": kind} | facts)

    def dial(self, t: int, *, host: str = "gateway.invalid", opens: bool = True) -> None:
        self.connection += 1
        self.note(t, "dial", url=f"wss://{host}/?v=10")
        if opens:
            self.note(t + 20, "open")

    def says(self, at: int, /, **frame: Any) -> None:
        self.note(at, "in", text=json.dumps(frame))

    def hears(self, at: int, /, **frame: Any) -> None:
        self.note(at, "out", text=json.dumps(frame))

    def handshake(self, t: int) -> None:
        """Record Hello, IDENTIFY and READY within 100 ms."""
        self.says(t, op=10, d={"heartbeat_interval": INTERVAL * 1000})
        self.hears(t + 10, op=2, d={"token": "<token>", "intents": 1, "properties": {"os": "linux"}})
        self.says(
            t + 100,
            op=0,
            s=1,
            t="READY",
            d={"session_id": "<session-1>", "resume_gateway_url": "wss://resume-1.invalid"},
        )

    def beat(self, t: int, *, ack: bool = True) -> None:
        self.hears(t, op=1, d=1)
        if ack:
            self.says(t + 50, op=11)

    def load(self) -> Recording:
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return Recording.load(self.path)


class Client:
    """A gateway client of sixty lines with faults that a test can switch on."""

    def __init__(self, gateway: MockGateway, clock: FakeClock, *, seed: int = 1) -> None:
        self.gateway, self.clock, self.random = gateway, clock, random.Random(seed)
        self.events: list[int] = []
        self.ends: list[GatewayFailure] = []
        self.session: str | None = None
        self.host = "wss://gateway.invalid/"
        self.redial_after = 3.0
        self.intents = 1
        self.token = "real"
        self.close_code = 4000
        self.transport = gateway.dial(SHARD)
        self.acked = True
        self.ready = asyncio.Event()
        self.beating: asyncio.Task[None] | None = None
        self.acts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            await self.generation()
            await self.clock.sleep(self.redial_after)
            self.transport = self.gateway.dial(SHARD)

    async def generation(self) -> None:
        try:
            await self.transport.connect(self.host, self.take)
            await self.transport.wait_closed()
        except GatewayFailure as end:
            self.ends.append(end)
        finally:
            if self.beating is not None:
                self.beating.cancel()

    def take(self, batch: list[bytes]) -> None:
        for message in batch:
            frame = json.loads(message)
            if frame["op"] == 10:
                self.beating = asyncio.create_task(self.beat())
                self.soon(self.greet())
            elif frame["op"] == 11:
                self.acked = True
            elif frame["op"] == 7:
                self.soon(self.transport.close(self.close_code))
            elif frame["op"] == 0:
                self.events.append(frame["s"])
                if frame["t"] == "READY":
                    self.ready.set()
                    self.session, self.host = frame["d"]["session_id"], frame["d"]["resume_gateway_url"]

    def soon(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self.acts.add(task)
        task.add_done_callback(self.acts.discard)

    async def greet(self) -> None:
        data: dict[str, Any] = {"token": self.token}
        if self.session is None:
            await self.send(2, data | {"intents": self.intents, "properties": {"os": "other"}})
        else:
            await self.send(6, data | {"session_id": self.session, "seq": self.events[-1]})

    async def beat(self) -> None:
        self.acked = True
        await self.clock.sleep(INTERVAL * self.random.random())
        while True:
            if not self.acked:
                await self.transport.close(self.close_code)
                return
            self.acked = False
            await self.send(1, None)
            await self.clock.sleep(INTERVAL)

    async def send(self, op: int, d: Any) -> None:
        await self.transport.send(json.dumps({"op": op, "d": d}).encode())


@asynccontextmanager
async def replaying(tape: Tape, **faults: Any) -> AsyncIterator[tuple[MockGateway, Client]]:
    clock = FakeClock()
    gateway = MockGateway(tape.load(), clock)
    client = Client(gateway, clock, seed=faults.pop("seed", 1))
    for name, value in faults.items():
        setattr(client, name, value)
    running = asyncio.create_task(client.run())
    try:
        yield gateway, client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        client.transport.abort()


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    return Tape(tmp_path / "s.jsonl")


async def difference(tape: Tape, **faults: Any) -> str:
    async with replaying(tape, **faults) as (gateway, _):
        with pytest.raises(RecordingError) as caught:
            await gateway.play()
    assert str(tape.path) in str(caught.value)
    return str(caught.value)


def normal(tape: Tape) -> None:
    tape.dial(0)
    tape.handshake(100)
    for number in range(2, 12):
        tape.says(1000 * number, op=0, s=number, t="TYPING_START", d={})


@pytest.mark.parametrize("seed", range(8))
async def test_hours_pass_and_events_arrive_in_order_whatever_the_jitter(tape: Tape, seed: int) -> None:
    """The recorded ACKs follow the beats of the replay, not the recorded times."""
    normal(tape)
    for beat in range(20_000, 3_600_000, 40_000):
        tape.beat(beat)
    tape.note(3_610_000, "close", code=4000, by="us")
    tape.rows.append({"t": 3_610_100, "c": None, "shard": None, "k": "end"})
    began = time.monotonic()
    async with replaying(tape, seed=seed) as (gateway, client):
        await gateway.play()
        assert client.events == list(range(1, 12))
        assert not client.ends
        assert gateway.clock.monotonic() == pytest.approx(3610, abs=1)
        await client.transport.close(4000)
        gateway.check()
    assert time.monotonic() - began < 10


async def test_a_recording_that_stops_short_leaves_the_client_connected(tape: Tape) -> None:
    normal(tape)
    async with replaying(tape) as (gateway, client):
        await gateway.play()
        assert client.events == list(range(1, 12))
        assert not client.transport.closed


async def test_a_zombie_a_failed_dial_and_a_resume_really_happen(tape: Tape) -> None:
    normal(tape)
    tape.beat(30_000)
    tape.beat(70_000, ack=False)
    tape.note(110_000, "close", code=4000, by="us")
    tape.dial(112_000, host="resume-1.invalid", opens=False)
    tape.note(112_100, "fail", error="refused the upgrade", status=503, by="network")
    tape.dial(115_000, host="resume-1.invalid")
    tape.says(115_100, op=10, d={"heartbeat_interval": INTERVAL * 1000})
    tape.hears(115_110, op=6, d={"token": "<token>", "session_id": "<session-1>", "seq": 11})
    tape.says(115_200, op=0, s=12, t="RESUMED", d={})
    tape.note(116_000, "close", code=4004, by="peer")
    async with replaying(tape) as (gateway, client):
        await gateway.play()
        zombie, refused, fatal = client.ends
        assert client.events == list(range(1, 13))
    assert isinstance(zombie, Closed)
    assert (zombie.code, zombie.by) == (4000, "us")
    assert isinstance(refused, ConnectFailed)
    assert refused.status == 503
    assert isinstance(fatal, Closed)
    assert (fatal.code, fatal.by) == (4004, "peer")


async def test_a_planned_reconnect_agrees_although_frames_cross_the_close(tape: Tape) -> None:
    normal(tape)
    tape.says(12_000, op=7, d=None)
    tape.says(12_003, op=0, s=12, t="TYPING_START", d={})
    tape.note(12_005, "close", code=4000, by="us")
    tape.dial(12_500, host="resume-1.invalid")
    tape.note(12_600, "close", code=None, by="network")
    async with replaying(tape) as (gateway, client):
        await gateway.play()
        assert [(end.code, end.by) for end in client.ends if isinstance(end, Closed)] == [
            (4000, "us"),
            (None, "network"),
        ]


async def test_another_frame_than_recorded_is_named_with_its_line(tape: Tape) -> None:
    normal(tape)
    text = await difference(tape, intents=99)
    assert "line 5" in text
    assert '"intents": 1' in text
    assert '"intents":99' in text
    assert "real" not in text


async def test_the_token_and_the_system_may_differ(tape: Tape) -> None:
    normal(tape)
    async with replaying(tape, token="quite another") as (gateway, _):
        await gateway.play()


async def test_a_frame_that_never_comes_is_named(tape: Tape) -> None:
    normal(tape)
    tape.hears(12_000, op=3, d={"status": "idle"})
    tape.says(13_000, op=0, s=12, t="TYPING_START", d={})
    text = await difference(tape)
    assert "line 17" in text
    assert "got nothing" in text


async def test_a_frame_too_many_is_named(tape: Tape) -> None:
    normal(tape)
    async with replaying(tape) as (gateway, client):
        await asyncio.sleep(0)
        playing = asyncio.create_task(gateway.play())
        await client.ready.wait()
        await client.send(3, {"status": "idle"})
        with pytest.raises(RecordingError, match="expected no further frame"):
            await playing


async def test_another_close_code_is_named(tape: Tape) -> None:
    normal(tape)
    tape.says(12_000, op=7, d=None)
    tape.note(12_005, "close", code=4000, by="us")
    tape.dial(12_500, host="resume-1.invalid")
    assert "expected close code 4000 (line 18), got 1000" in await difference(tape, close_code=1000)


async def test_a_close_that_was_not_recorded_is_named(tape: Tape) -> None:
    normal(tape)
    tape.beat(30_000, ack=False)
    tape.beat(70_000, ack=False)
    tape.says(200_000, op=0, s=12, t="TYPING_START", d={})
    assert "expected the connection to go on" in await difference(tape)


async def test_a_close_that_does_not_come_is_named(tape: Tape) -> None:
    normal(tape)
    tape.note(12_005, "close", code=4000, by="us")
    tape.dial(12_500, host="resume-1.invalid")
    assert "expected the client to end the connection" in await difference(tape)


async def test_a_dial_of_the_wrong_host_is_named(tape: Tape) -> None:
    tape.dial(0, host="resume-1.invalid")
    assert "expected a dial of resume-1.invalid, got the gateway" in await difference(tape)


async def test_a_dial_too_many_is_named(tape: Tape) -> None:
    normal(tape)
    tape.note(12_000, "close", code=4000, by="peer")
    tape.connection += 1
    row = {"t": 13_000, "c": 9, "shard": [1, 2], "k": "dial"}
    tape.rows.append(row)
    text = await difference(tape)
    assert "dial number 2, but only 1 were recorded" in text


async def test_a_client_that_never_dials_again_is_named(tape: Tape) -> None:
    normal(tape)
    tape.note(12_000, "close", code=4000, by="peer")
    tape.dial(13_000, host="resume-1.invalid")
    text = await difference(tape, redial_after=100_000.0)
    assert "line 18" in text
    assert "never dialled" in text


async def test_the_number_of_heartbeats_must_agree(tape: Tape) -> None:
    normal(tape)
    tape.beat(20_000)
    tape.note(300_000, "close", code=4000, by="peer")
    assert "expected 1 heartbeats, got" in await difference(tape)


async def test_filler_is_compared_with_filler(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "s.jsonl", filler=True)
    normal(tape)
    tape.rows[4]["text"] = tape.rows[4]["text"].replace("linux", "x")
    tape.hears(12_000, op=3, d={"status": "idle", "activities": [{"name": "xxxxx", "type": 0}]})
    tape.says(12_100, op=0, s=12, t="TYPING_START", d={})
    for name, agrees in [("chess", True), ("go", False)]:
        async with replaying(tape) as (gateway, client):
            playing = asyncio.create_task(gateway.play())
            await client.ready.wait()
            await client.send(3, {"status": "idle", "activities": [{"name": name, "type": 0}]})
            if agrees:
                await playing
            else:
                with pytest.raises(RecordingError, match=r"line 17.*got .*xx"):
                    await playing


async def test_the_speed_paces_it_in_real_time(tape: Tape) -> None:
    tape.dial(0)
    tape.handshake(100)
    tape.says(1000, op=0, s=2, t="TYPING_START", d={})
    watch = Stopwatch()
    async with replaying(tape) as (gateway, _):
        await gateway.play(speed=20)
    assert 0.02 < watch.seconds < 0.5  # 0.9 s at the speed of the recording


async def test_settle_is_asked_after_each_step(tape: Tape) -> None:
    normal(tape)
    seen: list[int] = []
    clock = FakeClock()

    async def settle() -> None:
        seen.append(len(client.events))

    gateway = MockGateway(tape.load(), clock, settle=settle)
    client = Client(gateway, clock)
    running = asyncio.create_task(client.run())
    await gateway.play()
    assert set(range(12)) <= set(seen)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    client.transport.abort()
