"""Injected faults: their grammar, and what a client sees of each."""

from __future__ import annotations

import asyncio
import logging

import pytest

from discorder.clock import FakeClock
from discorder.errors import Closed, ConnectFailed
from discorder.transport.fault_grammar import DEFAULT_MOMENT, FaultKind, parse_fault
from discorder.transport.faulty import FaultInjector, FaultyTransport
from discorder.transport.protocol import MAX_BATCH, Deliver

ACK = b'{"op":11}'
EVENT = b'{"op":0,"s":1,"t":"TYPING_START","d":{}}'
SHARD = (0, 1)


@pytest.mark.parametrize(
    ("text", "kind", "at", "every", "seconds", "code"),
    [
        ("drop@30s", FaultKind.DROP, 30, 0, 0, 0),
        ("drop", FaultKind.DROP, DEFAULT_MOMENT, 0, 0, 0),
        ("drop/30s", FaultKind.DROP, 30, 30, 0, 0),
        ("drop@5s/1.5m", FaultKind.DROP, 5, 90, 0, 0),
        ("stall=10s@60s", FaultKind.STALL, 60, 0, 10, 0),
        ("stall=500ms/1h", FaultKind.STALL, 3600, 3600, 0.5, 0),
        ("close=4009@1m", FaultKind.CLOSE, 60, 0, 0, 4009),
        ("zombie@0s", FaultKind.ZOMBIE, 0, 0, 0, 0),
        ("slow-dial=3s", FaultKind.SLOW_DIAL, 0, 0, 3, 0),
        ("slow-dial=3s@1m", FaultKind.SLOW_DIAL, 60, 0, 3, 0),
    ],
)
def test_the_grammar(text: str, kind: FaultKind, at: float, every: float, seconds: float, code: int) -> None:
    fault = parse_fault(text)
    assert (fault.kind, fault.at, fault.every, fault.seconds, fault.code) == (kind, at, every, seconds, code)
    assert str(fault) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a fault"),
        ("drop@", "the moment '' is no duration"),
        ("drop@30", "a number with ms, s, m or h"),
        ("stall=\u0663s", "a number with ms, s, m or h"),
        ("drop@25h", "at most 24h"),
        ("drop@1s@2s", "not a fault"),
        ("drop/0.5s", "the period is shorter than 1 s"),
        ("drop=1s@2s", "drop takes no value"),
        ("reset@1s", "there is no fault 'reset', only drop, stall, close, zombie, slow-dial"),
        ("stall@1s", "it needs a duration: stall=10s"),
        ("stall=0s@1s", "the duration is 0"),
        ("close@1s", "it needs a close code"),
        ("close=1006@1s", "but 1004, 1005, 1006 and 1015"),
        ("close=40000@1s", "it needs a close code"),
        ("slow-dial=3s/1m", "takes no period"),
    ],
)
def test_a_mistake_is_named_with_examples(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"drop@30s, drop/5m") as error:
        parse_fault(text)
    assert str(error.value).startswith(repr(text))
    assert said in str(error.value)


class Peer:
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        self.closed = True
        self.sent: list[bytes] = []
        self.said: list[str] = []  # how the client ended it
        self._deliver: Deliver | None = None
        self._end = asyncio.get_running_loop().create_future()

    async def connect(self, url: str, deliver: Deliver) -> None:
        self.closed, self._deliver = False, deliver

    def says(self, *messages: bytes) -> None:
        assert self._deliver is not None
        self._deliver(list(messages))

    def ends(self, end: Closed) -> None:
        self.closed = True
        if not self._end.done():
            self._end.set_result(end)

    async def wait_closed(self) -> None:
        raise await asyncio.shield(self._end)

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def close(self, code: int) -> None:
        self.said.append(f"close {code}")
        self.ends(Closed(code, "us"))

    def abort(self) -> None:
        self.said.append("abort")
        self.ends(Closed(None, "us", "aborted"))


class Bench:
    """An injector on a fake clock, and connections through it."""

    def __init__(self, *faults: str) -> None:
        self.clock = FakeClock()
        self.injector = FaultInjector([parse_fault(fault) for fault in faults], self.clock)
        self.got: list[list[bytes]] = []
        self.peer = Peer()

    async def connected(self) -> FaultyTransport:
        self.peer = Peer()
        transport = self.injector.wrap(self.peer, SHARD)
        await transport.connect("ws://gateway", self.got.append)
        return transport


async def end_of(transport: FaultyTransport) -> Closed:
    with pytest.raises(Closed) as ended:
        await transport.wait_closed()
    return ended.value


async def test_a_drop_is_a_reset_of_the_network() -> None:
    bench = Bench("drop@30s")
    with bench.injector:
        transport = await bench.connected()
        await bench.clock.advance(29.9)
        bench.peer.says(EVENT)
        before = transport.closed
        await bench.clock.advance(0.2)
        assert (bench.got, before, transport.closed) == ([[EVENT]], False, True)
        end = await end_of(transport)
        with pytest.raises(Closed):
            await transport.send(b"{}")
    assert (end.code, end.by) == (None, "network")
    assert "drop@30s" in str(end)
    assert bench.peer.said == ["abort"]


async def test_a_close_seems_to_come_from_the_gateway() -> None:
    bench = Bench("close=4000@1s")
    with bench.injector:
        transport = await bench.connected()
        await bench.clock.advance(1)
        end = await end_of(transport)
    assert (end.code, end.by) == (4000, "peer")


async def test_a_period_hits_each_later_connection() -> None:
    bench = Bench("drop@5s/30s")
    with bench.injector:
        dropped = []
        for _ in range(10):
            transport = await bench.connected()
            await bench.clock.advance(10)
            dropped.append(transport.closed)
    assert dropped == [True, False, False, True, False, False, True, False, False, True]


async def test_a_stall_holds_messages_and_the_end_behind_them() -> None:
    bench = Bench("stall=10s@1s")
    with bench.injector:
        transport = await bench.connected()
        await bench.clock.advance(1)
        for _ in range(MAX_BATCH + 1):
            bench.peer.says(EVENT)
        await transport.send(b"a heartbeat")
        bench.peer.ends(Closed(4000, "peer"))
        ending = asyncio.create_task(end_of(transport))
        await bench.clock.advance(9.9)
        assert (bench.got, ending.done()) == ([], False)
        await bench.clock.advance(0.2)
        assert list(map(len, bench.got)) == [MAX_BATCH, 1]
        assert (await ending).code == 4000
    assert bench.peer.sent == [b"a heartbeat"]


async def test_a_connection_that_is_given_up_in_a_stall_delivers_nothing_more() -> None:
    bench = Bench("stall=10s@1s")
    with bench.injector:
        for give_up in ("close", "abort"):
            transport = await bench.connected()
            await bench.clock.advance(1)
            bench.peer.says(EVENT)
            if give_up == "close":
                await transport.close(4000)
            else:
                transport.abort()
            assert (await end_of(transport)).by == "us"
            await bench.clock.advance(20)
            assert bench.got == [] or give_up == "abort"
            bench.got.clear()


async def test_a_zombie_gets_no_acknowledgement_any_more() -> None:
    """On the connections that are open at the moment; the next one is sound."""
    bench = Bench("zombie@1s")
    with bench.injector:
        await bench.connected()
        bench.peer.says(ACK, EVENT)
        await bench.clock.advance(1)
        bench.peer.says(ACK)
        bench.peer.says(ACK, EVENT, b"no json")
        await bench.connected()
        bench.peer.says(ACK)
    assert bench.got == [[ACK, EVENT], [EVENT, b"no json"], [ACK]]


async def test_a_slow_dial_can_be_given_up() -> None:
    bench = Bench("slow-dial=3s")
    with bench.injector:
        await bench.clock.advance(0)
        dial = asyncio.create_task(bench.connected())
        await bench.clock.advance(2.9)
        assert not dial.done()
        await bench.clock.advance(0.2)
        assert not (await dial).closed
        peer = Peer()
        late = bench.injector.wrap(peer, SHARD)
        dial_of_late = asyncio.create_task(late.connect("ws://gateway", bench.got.append))
        await bench.clock.advance(1)
        late.abort()
        await bench.clock.advance(3)
        with pytest.raises(ConnectFailed, match="while a fault delayed its dial"):
            await dial_of_late
        assert peer.closed


async def test_the_log_says_loudly_what_is_injected(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench("drop@30s", "drop@30s", "slow-dial=1s")
    with caplog.at_level(logging.WARNING), bench.injector:
        await bench.clock.advance(31)
    assert [record.message for record in caplog.records] == [
        "Faults are injected: never in production",
        *["Injected a fault"] * 3,
    ]
    assert caplog.records[0].__dict__["faults"] == "drop@30s, drop@30s, slow-dial=1s"
    assert bench.clock.next_due() is None
