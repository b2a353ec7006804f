"""The ROUTER beside the bus, as a program in another language uses it: a JSON request, three frames in reply."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import zmq

from discorder.bot.subscriber import subscribe
from discorder.clock import FakeClock, SystemClock
from discorder.errors import AddressInUse, CommandRateLimited, ConfigError
from discorder.publishers.zeromq import sockets
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.replays import STREAMS, STREAMS_PER_CLIENT
from discorder.publishers.zeromq.ring import Ring
from discorder.publishers.zeromq.router import BUSY_PAUSE, Router
from discorder.publishers.zeromq.running_commands import WAITING_OF_CLIENT
from discorder.publishers.zeromq.subscriptions import connections
from discorder.wire import Event, ReceivedEvent, decode_document, replay_address
from tests.relay import relay_to

MakeEvent = Callable[..., Event]
SESSION = "0123456789abcdef"
SECONDS = 20.0


class Client:
    """A DEALER that waits without blocking the loop, on which the bus runs as well."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.socket = sock

    def send(self, request: Mapping[str, Any] | bytes) -> None:
        self.socket.send(request if isinstance(request, bytes) else msgspec.json.encode({"v": 1, "id": 7, **request}))

    async def part(self) -> tuple[bytes, bytes, bytes]:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    id_frame, topic, document = self.socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    await asyncio.sleep(0.002)
                else:
                    return id_frame, topic, document

    async def answer(self) -> tuple[list[tuple[bytes, bytes]], dict[str, Any]]:
        """Return the parts before the last, and the content of the last."""
        parts: list[tuple[bytes, bytes]] = []
        while True:
            _, topic, document = await self.part()
            if not topic:
                return parts, msgspec.json.decode(document)
            parts.append((topic, document))

    async def ask(self, request: Mapping[str, Any] | bytes) -> dict[str, Any]:
        self.send(request)
        return (await self.answer())[1]


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:0")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Return a function that makes clients of a bus."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(bus: ZmqPublisher, **options: int) -> Client:
        sock = context.socket(zmq.DEALER)
        made.append(sock)
        for name, value in options.items():
            sock.set(getattr(zmq, name), value)
        sock.connect(bus.replay_endpoint)
        return Client(sock)

    yield make
    context.destroy(linger=0)


Connect = Callable[..., Client]


LARGE = b'"' + b"x" * 20_000 + b'"'


def replays_of(bus: ZmqPublisher) -> int:
    """Return how many replays are pending; this is not visible from outside."""
    assert bus._router is not None  # noqa: SLF001
    return len(bus._router._replays)  # noqa: SLF001


async def test_replay_is_byte_identical_in_order_and_ends_with_where_it_ends(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    events = [make_event(seq, data=f'{{"n":{10**40 + seq},"t":"é\\u00e9"}}'.encode()) for seq in range(1, 3_001)]
    bus.publish_nowait(events)
    client = connect(bus)
    client.send({"op": "replay", "shard": 0, "session": SESSION, "after": 41, "types": None})
    parts, last = await client.answer()
    assert [document for _, document in parts] == [event.document for event in events[41:]]
    assert {topic for topic, _ in parts} == {b"MESSAGE_CREATE"}
    since = {"session": SESSION, "seq": 41}
    assert last == {"ok": True, "complete": True, "shard": [0, 1], "session": SESSION, "last": 3_000, "since": since}


async def test_the_id_of_the_request_stands_on_every_part(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    bus.publish_nowait([make_event(1)])
    client = connect(bus)
    for given, frame in ((7, b"7"), ("sieben", b"sieben")):
        client.send({"id": given, "op": "replay", "shard": 0})
        assert [(await client.part())[0] for _ in range(2)] == [frame, frame]


async def test_a_filtered_replay_compares_exactly(bus: ZmqPublisher, connect: Connect, make_event: MakeEvent) -> None:
    bus.publish_nowait([make_event(1, "MESSAGE_DELETE_BULK"), make_event(2, "MESSAGE_DELETE"), make_event(3)])
    client = connect(bus)
    client.send({"op": "replay", "shard": 0, "session": SESSION, "after": 0, "types": ["MESSAGE_DELETE"]})
    parts, last = await client.answer()
    assert [topic for topic, _ in parts] == [b"MESSAGE_DELETE"]
    assert last["last"] == 3


async def test_who_asks_for_more_than_is_held_gets_what_there_is_and_is_told(
    connect: Connect, make_event: MakeEvent
) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:0", ring_bytes=2_000)
    await bus.open()
    bus.publish_nowait([make_event(seq) for seq in range(1, 101)])
    client = connect(bus)
    client.send({"op": "replay", "shard": 0, "session": SESSION, "after": 41})
    parts, last = await client.answer()
    seqs = [decode_document(document).seq for _, document in parts]
    assert last["complete"] is False
    assert last["since"] == {"session": SESSION, "seq": 100 - len(seqs)}
    assert seqs == list(range(101 - len(seqs), 101))
    await bus.close()


async def test_the_positions_of_all_shards(bus: ZmqPublisher, connect: Connect, make_event: MakeEvent) -> None:
    bus.publish_nowait([make_event(1, "READY", shard=(1, 2)), make_event(2, shard=(1, 2))])
    answer = await connect(bus).ask({"op": "positions"})
    types = {"READY": 1, "MESSAGE_CREATE": 2}
    assert answer["shards"] == [{"shard": [1, 2], "session": SESSION, "since": 0, "last": 2, "types": types}]


async def test_positions_are_published_as_they_move_and_once_more_at_the_end(make_event: MakeEvent) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:0", linger_ms=5_000)
    await bus.open()
    context = zmq.Context()
    sub = context.socket(zmq.SUB)
    sub.connect(bus.endpoints[0])
    sub.subscribe("DISCORDER_POSITION")
    async with asyncio.timeout(SECONDS):
        while not bus.subscriptions:  # noqa: ASYNC110  # ZeroMQ tells of subscriptions only when asked
            await asyncio.sleep(0.005)
    bus.publish_nowait([make_event(1)])
    read = lambda: decode_document(sub.recv_multipart()[1])  # noqa: E731
    async with asyncio.timeout(SECONDS):
        first = await asyncio.to_thread(read)
        bus.publish_nowait([make_event(2)])
        second, _ = await asyncio.gather(asyncio.to_thread(read), bus.close())
    assert first.json() == {"since": 0, "last": 1, "types": {"MESSAGE_CREATE": 1}}
    assert second.json() == {"since": 0, "last": 2, "types": {"MESSAGE_CREATE": 2}}
    assert (first.seq, first.prev, first.session, first.shard) == (None, None, SESSION, (0, 1))
    sub.close(linger=0)
    context.term()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("request_", "error", "word"),
    [
        (b"garbage", "bad_request", "JSON"),
        (b"\xff\xfe", "bad_request", ""),
        (b"[" * 50_000, "bad_request", ""),
        (b"[]", "bad_request", "object"),
        ({"op": "sing"}, "bad_request", "sing"),
        ({"op": "replay"}, "bad_request", "shard"),
        ({"op": "replay", "shard": "0"}, "bad_request", "int"),
        ({"op": "replay", "shard": 0, "after": 1 << 70}, "bad_request", "int"),
        ({"op": "replay", "shard": 9}, "no_such_shard", "9"),
        ({"op": "ready", "shard": 0}, "not_ready", "READY"),
        ({"op": "command", "command": "presence", "d": {}}, "commands_off", "control plane"),
        ({"v": 2, "op": "replay", "shard": 0}, "unsupported_version", "version 1"),
        ({"v": 10**300, "op": "positions"}, "bad_request", "int"),
        ({"id": "n" * 65, "op": "positions"}, "bad_request", "64"),
        ({"id": 10**300, "op": "positions"}, "bad_request", "int"),
        ({"id": 1.5, "op": "positions"}, "bad_request", "float"),
        ({"op": "replay", "shard": 10**30}, "bad_request", "int"),
        ({"op": "replay", "shard": -1}, "bad_request", "0"),
        ({"op": "replay", "shard": 0, "session": "s" * 65}, "bad_request", "64"),
        ({"op": "replay", "shard": 0, "after": -1}, "bad_request", "0"),
        ({"op": "replay", "shard": 0, "types": ["T" * 101]}, "bad_request", "100"),
        ({"op": "replay", "shard": 0, "types": [str(number) for number in range(1_001)]}, "bad_request", "1000"),
        ({"op": "command", "command": "c" * 65, "d": {}}, "bad_request", "64"),
        ({"op": "command", "command": "members", "guild_id": "9" * 5_000, "d": {}}, "bad_request", "20"),
        ({"op": "command", "command": "members", "guild_id": 10**40, "d": {}}, "bad_request", "int"),
        (b'{"v":1,"id":7,"op":"command","command":"members","guild_id":%b}' % (b"9" * 5_000), "bad_request", "range"),
        (b'{"v":1,"id":%b,"op":"positions"}' % (b"9" * 5_000), "bad_request", "range"),
        (b'{"v":1,"id":"\\ud800","op":"positions"}', "bad_request", "JSON"),
    ],
)
async def test_a_request_that_cannot_be_answered_gets_an_error_that_says_why(
    bus: ZmqPublisher, connect: Connect, request_: Any, error: str, word: str
) -> None:
    client = connect(bus)
    answer = await client.ask(request_)
    assert answer["ok"] is False
    assert answer["error"] == error
    assert word in answer["message"]
    assert "shards" in await client.ask({"op": "positions"}), "and the next one is answered"


async def test_what_is_no_request_at_all_disturbs_nobody(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    client, stranger = connect(bus), connect(bus)
    stranger.socket.send_multipart([b"a"] * 50)
    assert (await stranger.answer())[1]["error"] == "bad_request"
    stranger.socket.send(b"x" * 200_000)  # ZeroMQ closes the connection
    with socket.create_connection(("127.0.0.1", int(bus.replay_endpoint.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        bus.publish_nowait([make_event(1)])
        assert (await client.ask({"op": "positions"}))["shards"][0]["last"] == 1


async def test_a_client_that_does_not_read_costs_neither_memory_nor_the_others_anything(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    """Its replay waits in the ring, its further requests are refused, and the replies that it does not read are dropped."""
    bus.publish_nowait([make_event(seq, data=b'"' + b"x" * 20_000 + b'"') for seq in range(1, 501)])
    asleep, awake = connect(bus, RCVHWM=1, RCVBUF=65_536), connect(bus)
    for number in range(200):
        asleep.send({"id": number, "op": "replay", "shard": 0})
    for _ in range(3):
        awake.send({"op": "replay", "shard": 0, "session": SESSION, "after": 100})
        parts, last = await awake.answer()
        assert (len(parts), last["complete"]) == (400, True)
    assert replays_of(bus) == STREAMS_PER_CLIENT
    seqs = []
    while (part := await asleep.part())[1] or part[0] != b"0":
        if part[0] == b"0":
            seqs.append(decode_document(part[2]).seq)
    assert seqs == list(range(1, 501))


async def test_a_client_that_leaves_in_the_middle_is_forgotten(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    bus.publish_nowait([make_event(seq, data=b'"' + b"x" * 20_000 + b'"') for seq in range(1, 1_001)])
    client = connect(bus, RCVHWM=1)
    client.send({"op": "replay", "shard": 0})
    await client.part()
    client.socket.close(linger=0)
    async with asyncio.timeout(SECONDS):
        while replays_of(bus):  # noqa: ASYNC110  # the bus has no event for it
            await asyncio.sleep(0.01)


async def test_a_replay_that_nobody_fetches_is_dropped(connect: Connect, make_event: MakeEvent) -> None:
    """The limit is ten seconds without room in the pipes. The client then gets only what they hold."""
    clock = FakeClock()
    bus = ZmqPublisher("tcp://127.0.0.1:0", clock=clock)
    await bus.open()
    bus.publish_nowait([make_event(seq, data=LARGE) for seq in range(1, 1_001)])
    asleep = connect(bus, RCVHWM=1, RCVBUF=65_536)
    asleep.send({"op": "replay", "shard": 0})
    for _ in range(100):
        await clock.advance(0.09)
        await asyncio.sleep(0.002)
    assert replays_of(bus) == 1, "nine seconds are no reason"
    async with asyncio.timeout(SECONDS):
        while replays_of(bus):
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
    await bus.close()


async def test_clients_that_do_not_fetch_keep_no_other_one_waiting(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    """32 clients use all the replays that are allowed; another one gets "busy" for a second at most."""
    bus.publish_nowait([make_event(seq, data=LARGE) for seq in range(1, 301)])
    idle = [connect(bus, RCVHWM=1, RCVBUF=65_536) for _ in range(STREAMS // STREAMS_PER_CLIENT)]
    for client in idle:
        for number in range(STREAMS_PER_CLIENT):
            client.send({"id": number, "op": "replay", "shard": 0})
    async with asyncio.timeout(SECONDS):
        while replays_of(bus) < STREAMS:  # noqa: ASYNC110  # the bus has no event for it
            await asyncio.sleep(0.01)
    client, began = connect(bus), time.monotonic()
    request = {"op": "replay", "shard": 0, "session": SESSION, "after": 0}
    client.send(request)
    parts, last = await client.answer()
    while not last["ok"]:
        assert (last["error"], parts) == ("busy", [])
        await asyncio.sleep(last["retry_after"] / 4)
        client.send(request)
        parts, last = await client.answer()
    assert (len(parts), last["complete"]) == (300, True)
    assert time.monotonic() - began < 10


async def test_an_event_without_a_name_ends_no_replay(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    """Discord may send ``t: ""``; the empty topic marks the last part."""
    events = [make_event(1), make_event(2, ""), make_event(3)]
    bus.publish_nowait(events)
    client = connect(bus)
    client.send({"op": "replay", "shard": 0, "session": SESSION, "after": 0})
    parts, last = await client.answer()
    assert [document for _, document in parts] == [event.document for event in events]
    assert last["complete"] is True
    async with subscribe(bus.endpoints[0], start="oldest", replay=bus.replay_endpoint) as got, asyncio.timeout(SECONDS):
        items = [await anext(got) for _ in events]
        bus.publish_nowait([make_event(4, ""), make_event(5)])
        items += [await anext(got) for _ in range(2)]
    assert [item.seq for item in items if isinstance(item, ReceivedEvent)] == [1, 2, 3, 4, 5]


async def test_a_connection_that_dies_without_a_word_is_noticed_on_both_sides(
    bus: ZmqPublisher, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides notice it within a second here. The bus closes the connection, and so does a client without special options."""
    monkeypatch.setattr(sockets, "BEAT_MS", 100)
    monkeypatch.setattr(sockets, "SILENCE_MS", 400)
    await bus.close()
    await bus.open()
    endpoints = (bus.endpoints[0], bus.replay_endpoint)
    context = zmq.Context()
    sub, dealer = context.socket(zmq.SUB), context.socket(zmq.DEALER)
    lost = []
    async with relay_to(endpoints[0]) as (first, sub_address), relay_to(endpoints[1]) as (second, dealer_address):
        for sock, address in ((sub, sub_address), (dealer, dealer_address)):
            sock.set(zmq.RECONNECT_IVL, -1)
            lost.append(sock.get_monitor_socket(zmq.EVENT_DISCONNECTED))
            sock.connect(address)
        sub.subscribe("")
        async with asyncio.timeout(SECONDS):
            while not bus.subscriptions or not connections([bus.replay_endpoint]):  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)
            assert not any(monitor.poll(0) for monitor in lost), "as long as it lives nothing is closed"
            first.freeze()
            second.freeze()
            while connections(endpoints) or not all(monitor.poll(0) for monitor in lost):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
    context.destroy(linger=0)


async def test_a_flood_of_requests_leaves_the_loop_its_turns(
    bus: ZmqPublisher, connect: Connect, make_event: MakeEvent
) -> None:
    bus.publish_nowait([make_event(1)])
    clients = [connect(bus) for _ in range(4)]
    for client in clients:
        for number in range(500):
            client.send({"id": number, "op": "positions"} if number % 2 else b"nonsense")
    loop = asyncio.get_running_loop()
    gaps, before = [], loop.time()
    for _ in range(200):
        await asyncio.sleep(0)
        gaps.append(loop.time() - before)
        before = loop.time()
    assert max(gaps) < 0.5


# ---------------------------------------------------------------- commands


class FakeDesk:
    """A bus API that records its calls."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None
        self.waits: list[float] = []
        self.reports: list[tuple[str, int, int, bytes]] = []
        self.may_pass = asyncio.Event()
        self.may_pass.set()
        self.ready: Event | None = None
        self.feed = None

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        self.commands.append((name, d, shard, guild_id))
        self.waits.append(wait_s)
        await self.may_pass.wait()
        if self.refuses is not None:
            raise self.refuses
        return {"nonce": "n"} if name == "members" else {}

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        if door == "wrong":
            msg = "a reason"
            raise ValueError(msg)
        self.reports.append((door, part, parts, status))

    def last_ready(self, shard: int) -> Event | None:
        return self.ready if shard == 0 else None


@pytest.fixture
async def desk(bus: ZmqPublisher) -> FakeDesk:
    """The bus opened anew, with a bus API behind it."""
    made = FakeDesk()
    await bus.close()
    bus.answer_from(made)
    await bus.open()
    return made


async def test_a_command_reaches_the_desk_and_its_answer_the_client(
    bus: ZmqPublisher, desk: FakeDesk, connect: Connect
) -> None:
    client = connect(bus)
    d = {"status": "idle", "activities": []}
    assert await client.ask({"op": "command", "command": "presence", "d": d}) == {"ok": True}
    told = await client.ask({"op": "command", "command": "members", "guild_id": "41", "d": {"query": ""}})
    assert told == {"ok": True, "nonce": "n"}
    assert desk.commands == [("presence", d, None, None), ("members", {"query": ""}, None, "41")]
    assert (await client.ask({"op": "positions"}))["commands"] is True


async def test_a_refusal_has_its_reason_and_its_time(bus: ZmqPublisher, desk: FakeDesk, connect: Connect) -> None:
    desk.refuses = CommandRateLimited("enough", 1.25)
    answer = await connect(bus).ask({"op": "command", "command": "presence", "shard": 0, "d": {}})
    assert (answer["ok"], answer["error"], answer["retry_after"]) == (False, "rate_limited", 1.25)


async def test_a_command_that_fails_inside_is_an_answer_too(
    bus: ZmqPublisher, desk: FakeDesk, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    desk.refuses = RuntimeError("a mistake of ours")
    answer = await connect(bus).ask({"op": "command", "command": "presence", "d": {}})
    assert answer["error"] == "internal_error"
    assert "a mistake of ours" in caplog.text


async def test_a_command_may_wait_and_holds_up_no_other_one(
    bus: ZmqPublisher, desk: FakeDesk, connect: Connect
) -> None:
    """``wait_s`` reaches the desk; so many may wait that those of one client are bounded, and others still are sent at once."""
    desk.may_pass.clear()
    client, other = connect(bus), connect(bus)
    for number in range(WAITING_OF_CLIENT + 1):
        client.send({"id": number, "op": "command", "command": "members", "shard": 0, "d": {}, "wait_s": 7.5})
    id_frame, _, document = await client.part()
    assert (id_frame, msgspec.json.decode(document)["error"]) == (b"%d" % WAITING_OF_CLIENT, "busy")
    desk.may_pass.set()
    assert (await other.ask({"op": "command", "command": "members", "shard": 0, "d": {}}))["ok"] is True
    assert desk.waits == [*[7.5] * WAITING_OF_CLIENT, 0.0]
    too_long = {"op": "command", "command": "members", "shard": 0, "d": {}, "wait_s": 601}
    assert (await other.ask(too_long))["error"] == "bad_request"


async def test_a_report_of_a_facade_reaches_the_desk(bus: ZmqPublisher, desk: FakeDesk, connect: Connect) -> None:
    """Byte for byte; a wrong one is refused with the reason, and an insecure bus takes none."""
    client = connect(bus)
    client.send(b'{"v":1,"id":7,"op":"facade_report","door":"d","part":1,"parts":2,"status":{"url": null}}')
    assert (await client.answer())[1] == {"ok": True}
    assert desk.reports == [("d", 1, 2, b'{"url": null}')]
    refused = await client.ask({"op": "facade_report", "door": "wrong", "status": {}})
    assert (refused["error"], refused["message"]) == ("bad_request", "a reason")
    for fields in ({"door": ""}, {"door": "x" * 65}, {"door": "d", "parts": 257}, {"door": "d", "parts": 0}):
        assert (await client.ask({"op": "facade_report", "status": {}, **fields}))["error"] == "bad_request"
    insecure = ZmqPublisher("tcp://127.0.0.1:0", insecure=True)
    insecure.answer_from(desk)
    await insecure.open()
    assert (await connect(insecure).ask({"op": "facade_report", "door": "d", "status": {}}))["error"] == "commands_off"
    await insecure.close()


async def test_the_last_ready_is_told(
    bus: ZmqPublisher, desk: FakeDesk, connect: Connect, make_event: MakeEvent
) -> None:
    desk.ready = make_event(1, "READY", b'{"v":10}')
    client = connect(bus)
    client.send({"op": "ready", "shard": 0})
    parts, last = await client.answer()
    assert parts == [(b"READY", desk.ready.document)]
    assert last == {"ok": True}
    assert (await client.ask({"op": "ready", "shard": 1}))["error"] == "not_ready"


async def test_an_insecure_bus_takes_no_commands(connect: Connect) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:0", insecure=True)
    bus.answer_from(FakeDesk())
    await bus.open()
    client = connect(bus)
    answer = await client.ask({"op": "command", "command": "presence", "d": {}})
    assert (answer["error"], "insecure" in answer["message"]) == ("commands_off", True)
    assert (await client.ask({"op": "positions"}))["commands"] is False
    await bus.close()


# ---------------------------------------------------------------- addresses


async def test_it_is_beside_the_first_address(tmp_path: Path) -> None:
    for bind in ("tcp://127.0.0.1:*", f"ipc://{tmp_path}/bus"):
        bus = ZmqPublisher([bind, "tcp://127.0.0.1:*"])
        await bus.open()
        assert bus.replay_endpoint == replay_address(bus.endpoints[0])
        await bus.close()
        assert bus.replay_endpoint == ""


def hold_a_port_with_a_free_one_below() -> socket.socket:
    """Try several ports: the system assigns them at random, and the one below may be in use."""
    while True:
        holder = socket.create_server(("127.0.0.1", 0))
        try:
            socket.create_server(("127.0.0.1", holder.getsockname()[1] - 1)).close()
        except OSError:
            holder.close()
        else:
            return holder


async def test_an_address_that_is_taken_is_a_warning_unless_it_was_named(caplog: pytest.LogCaptureFixture) -> None:
    with hold_a_port_with_a_free_one_below() as holder:
        port = holder.getsockname()[1]
        bus = ZmqPublisher(f"tcp://127.0.0.1:{port - 1}")
        await bus.open()
        assert bus.replay_endpoint == ""
        assert (
            f"No replay and no commands on this bus: publishers.zmq.replay: tcp://127.0.0.1:{port} is in use"
            in caplog.text
        )
        await bus.close()
        named = ZmqPublisher("tcp://127.0.0.1:*", replay=f"tcp://127.0.0.1:{port}")
        with pytest.raises(AddressInUse, match=r"publishers\.zmq\.replay: .* is in use"):
            await named.open()


async def test_it_can_be_left_out(make_event: MakeEvent) -> None:
    bus = ZmqPublisher("tcp://127.0.0.1:*", replay="")
    await bus.open()
    bus.publish_nowait([make_event(1)])
    assert bus.replay_endpoint == ""
    assert len(bus._ring) == 0, "nothing is kept for nobody"  # noqa: SLF001
    await bus.close()


def test_the_same_rule_of_security_holds_for_it() -> None:
    with pytest.raises(ConfigError, match=r"publishers\.zmq\.replay: other hosts"):
        ZmqPublisher(replay="tcp://*:6001")
    ZmqPublisher(replay="tcp://*:6001", insecure=True)


def test_the_address_beside_an_address() -> None:
    assert replay_address("tcp://127.0.0.1:6000") == "tcp://127.0.0.1:6001"
    assert replay_address("tcp://[::1]:6000") == "tcp://[::1]:6001"
    assert replay_address("ipc:///run/bus") == "ipc:///run/bus.replay"
    for wrong in ("tcp://127.0.0.1:65535", "tcp://127.0.0.1", "nothing"):
        with pytest.raises(ValueError, match="no port after"):
            replay_address(wrong)


class Swallowing:
    """A ROUTER whose descriptor does not signal a request that comes while something is sent, as with ZeroMQ."""

    def __init__(self, *requests: Mapping[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.coming: list[Mapping[str, Any]] = []
        self.left = False  # the client of the next reply has left
        self._here = list(requests)
        self._descriptor, self._other_end = os.pipe()

    def get(self, option: int) -> int:
        return self._descriptor if option == zmq.FD else zmq.POLLIN * bool(self._here)

    def recv_multipart(self, _: int) -> list[bytes]:
        if not self._here:
            raise zmq.Again
        return [b"client", msgspec.json.encode({"v": 1, **self._here.pop(0)})]

    def send_multipart(self, frames: tuple[bytes, ...], _: int) -> None:
        self._here, self.coming = [*self._here, *self.coming], []
        if self.left:
            self.left = False
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        self.sent.append(msgspec.json.decode(frames[-1]))

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._other_end)


async def test_a_request_that_comes_while_a_command_is_answered_is_answered_too() -> None:
    """Its arrival is signalled once, and sending the reply may have consumed the signal."""
    asked, done = asyncio.Event(), asyncio.Event()

    class Waiting:
        feed = None

        async def command(
            self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
        ) -> Mapping[str, object]:
            asked.set()
            await done.wait()
            return {"told": (name, d, shard, guild_id)}

        def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
            pytest.fail(f"nobody reports, as {door} did")

        def last_ready(self, shard: int) -> Event | None:
            pytest.fail(f"nobody asked for READY of {shard}")

    sock = Swallowing({"id": 1, "op": "command", "command": "presence", "d": {"status": "idle"}})
    ring = Ring(max_bytes=1_000, max_seconds=1.0)
    router = Router(cast("zmq.Socket[bytes]", sock), ring, SystemClock(), bus_api=Waiting(), commands_off="")
    router.start()
    await asked.wait()
    await asyncio.sleep(4 * BUSY_PAUSE)  # the router has seen that no request is left, and waits for a signal
    sock.coming = [{"id": 2, "op": "positions"}]
    done.set()
    deadline = time.monotonic() + 5.0
    while len(sock.sent) < 2 and time.monotonic() < deadline:  # noqa: ASYNC110  # the router has no event for it
        await asyncio.sleep(BUSY_PAUSE)
    await router.stop()
    sock.close()
    assert [answer.get("ok") for answer in sock.sent] == [True, True], "the second request was never read"


async def test_a_request_that_comes_while_another_client_leaves_is_answered_too(make_event: MakeEvent) -> None:
    """The reply to the client that left cannot be sent, but the attempt may have consumed the signal of the request."""
    ring = Ring(max_bytes=10_000, max_seconds=60.0)
    event = make_event(1)
    ring.append([event], [event.document], time.monotonic())
    sock = Swallowing({"id": 1, "op": "replay", "shard": 0})
    sock.left = True
    sock.coming = [{"id": 2, "op": "positions"}]
    router = Router(cast("zmq.Socket[bytes]", sock), ring, SystemClock(), bus_api=None, commands_off="")
    router.start()
    deadline = time.monotonic() + 5.0
    while not sock.sent and time.monotonic() < deadline:  # noqa: ASYNC110  # the router has no event for it
        await asyncio.sleep(BUSY_PAUSE)
    await router.stop()
    sock.close()
    assert [sorted(answer) for answer in sock.sent] == [["commands", "ok", "shards"]], "the request was never read"
