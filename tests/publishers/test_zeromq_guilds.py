"""The requests `guilds` and `follow` of the ROUTER, as a program in another language makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
import zmq

from discorder.clock import SystemClock
from discorder.guilds import unpack
from discorder.publishers.zeromq.following import FollowServer
from discorder.publishers.zeromq.protocol import FollowedPlace, FollowRequest
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event
from tests.facade.memory_feed import MemoryFeed, guild

Ask = Callable[..., Any]
SECONDS = 20.0


class Api:
    """A bus API with guilds."""

    def __init__(self, feed: MemoryFeed | None) -> None:
        self.feed = feed

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        return {}

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        pytest.fail(f"nobody reports, as {door} did")

    def last_ready(self, shard: int) -> Event | None:
        return None


@pytest.fixture
def api() -> Api:
    return Api(MemoryFeed(2, now=lambda: 0.0))


@pytest.fixture
async def bus(api: Api) -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:0")
    made.answer_from(api)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def sock(bus: ZmqPublisher) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER that keeps few messages."""
    context = zmq.Context()
    made = context.socket(zmq.DEALER)
    made.set(zmq.RCVHWM, 4)
    made.connect(bus.replay_endpoint)
    yield made
    context.destroy(linger=0)


async def part(sock: zmq.Socket[bytes]) -> list[bytes]:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return sock.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                await asyncio.sleep(0.002)


async def ask(sock: zmq.Socket[bytes], **fields: Any) -> tuple[dict[int, Any], dict[str, Any]]:
    """Return the guilds of an answer, and the fields of its last part."""
    sock.send(msgspec.json.encode({"v": 1, "id": "mine", "op": "guilds", **fields}))
    return await rest(sock)


async def rest(sock: zmq.Socket[bytes]) -> tuple[dict[int, Any], dict[str, Any]]:
    guilds: dict[int, Any] = {}
    while True:
        id_frame, topic, document = await part(sock)
        assert id_frame == b"mine"
        if not topic:
            return guilds, msgspec.json.decode(document)
        assert int(topic) not in guilds
        guilds[int(topic)] = msgspec.json.decode(unpack(document))


async def test_the_guilds_of_a_shard_come_with_their_place_in_the_stream(api: Api, sock: zmq.Socket[bytes]) -> None:
    feed = api.feed
    assert feed is not None
    feed.begin("label", [10, 20, 30], shard=1)
    feed.happen("GUILD_DELETE", {"id": "20", "unavailable": True}, shard=1)
    feed.happen("CHANNEL_CREATE", {"id": "7", "guild_id": "30", "type": 0}, shard=1)
    feed.happen("USER_UPDATE", {"id": "42", "username": "renamed"}, shard=1)
    guilds, last = await ask(sock, shard=1)
    assert guilds == {10: guild(10), 30: guild(30, channels=[{"id": "7", "type": 0}])}
    ready = last.pop("ready")
    assert (ready["user"]["username"], ready["new_field"]) == ("renamed", {"kept": True})
    assert last == {"ok": True, "shard": [1, 2], "session": "label", "seq": 7, "guilds": ["10", "20", "30"]}


async def test_without_a_shard_the_shards_are_listed(api: Api, sock: zmq.Socket[bytes]) -> None:
    assert await ask(sock) == ({}, {"ok": True, "shards": [[0, 2], [1, 2]]})


async def test_what_cannot_be_sent_is_refused_with_the_reason(api: Api, sock: zmq.Socket[bytes]) -> None:
    async def error(**fields: Any) -> tuple[str, str]:
        _, last = await ask(sock, **fields)
        assert last["ok"] is False
        return last["error"], last["message"]

    feed = api.feed
    assert feed is not None
    assert await error(shard=0) == ("not_ready", "the guilds of shard 0 are not known yet")
    assert await error(shard=2) == ("no_such_shard", "shard 2 of 2 does not run here")
    assert (await error(shard="0"))[0] == "bad_request"
    feed.layout = None
    assert await error() == ("not_ready", "the number of shards is not known yet")
    api.feed = None
    refused = await error(shard=0)
    assert refused[0] == "guilds_off"
    assert "set facade.journal" in refused[1]


async def test_guilds_are_sent_as_they_were_however_slowly_they_are_read(api: Api, sock: zmq.Socket[bytes]) -> None:
    feed = api.feed
    assert feed is not None
    ids = range(1000, 1400)
    feed.begin("label", ids)
    sock.send(msgspec.json.encode({"v": 1, "id": "mine", "op": "guilds", "shard": 0}))
    _, topic, document = await part(sock)
    for guild_id in ids:
        feed.happen("CHANNEL_CREATE", {"id": "7", "guild_id": str(guild_id), "type": 0})
    guilds, last = await rest(sock)
    guilds[int(topic)] = msgspec.json.decode(unpack(document))
    assert guilds == {guild_id: guild(guild_id) for guild_id in ids}
    assert last["seq"] == 401


async def follow(sock: zmq.Socket[bytes], *places: tuple[int, str, int], **fields: Any) -> dict[str, Any]:
    """Return the answer to the request `follow`, of a reader that knows of two shards."""
    request = {"v": 1, "id": "mine", "op": "follow", "places": places, "count": 2, "wait_s": 30, **fields}
    sock.send(msgspec.json.encode(request))
    id_frame, topic, document = await part(sock)
    assert (id_frame, topic) == (b"mine", b"")
    answer: dict[str, Any] = msgspec.json.decode(document)
    return answer


async def test_a_reader_follows_the_journal(api: Api, sock: zmq.Socket[bytes]) -> None:
    """What is there after its places comes at once, as it was kept; else the answer waits for the next event."""
    feed = api.feed
    assert feed is not None
    feed.begin("one", [10])
    feed.begin("two", [20], shard=1)
    feed.happen("MESSAGE_CREATE", {"content": "é"}, shard=1)
    first = await follow(sock, (0, "one", 2), (1, "two", 2))
    assert first["events"] == [[1, "two", 3, "MESSAGE_CREATE", 0.0, {"content": "é"}]]
    assert (first["ids"], first["count"], first["intents"], first["lost"]) == ([0, 1], 2, feed.intents, [])
    asyncio.get_running_loop().call_later(0.05, feed.happen, "TYPING_START", {})
    later = await follow(sock, (0, "one", 2), (1, "two", 3))
    assert later["events"] == [[0, "one", 3, "TYPING_START", 0.0, {}]]
    assert later["instance"] == first["instance"]
    feed.lose()
    feed.happen("TYPING_START", {})
    lost = await follow(sock, (0, "one", 3), (1, "two", 3))
    assert [event[2:4] for event in lost["events"]] == [[None, "DISCORDER_GAP"], [4, "TYPING_START"]]
    assert (await follow(sock, (0, "one", 4), (1, "two", 3), wait_s=0))["events"] == []


async def test_a_reader_learns_of_a_new_session_and_of_what_is_not_held(api: Api, sock: zmq.Socket[bytes]) -> None:
    """A new session comes from its READY on; a shard whose next events are gone, or that has none yet, needs the guilds."""
    feed = api.feed
    assert feed is not None
    feed.begin("one", [10])
    feed.begin("two", [20], shard=1)
    feed.happen("TYPING_START", {})
    feed.forget()
    assert (await follow(sock, (0, "one", 2), (1, "two", 2)))["lost"] == [0]
    assert (await follow(sock, (0, "", 0), (1, "", 0)))["lost"] == [0, 1]
    feed.begin("three", [10])
    begun = await follow(sock, (0, "one", 3), (1, "two", 2))
    assert [event[:4] for event in begun["events"]] == [[0, "three", 1, "READY"], [0, "three", 2, "GUILD_CREATE"]]


async def test_a_reader_learns_of_another_layout_at_once(api: Api, sock: zmq.Socket[bytes]) -> None:
    assert (await follow(sock, count=0))["ids"] == [0, 1]
    assert (await follow(sock, (0, "", 0)))["ids"] == [0, 1]
    feed = api.feed
    assert feed is not None
    feed.layout = range(1), 1
    answer = await follow(sock, (0, "", 0), (1, "", 0))
    assert (answer["ids"], answer["count"], answer["lost"]) == ([0], 1, [])
    api.feed = None
    assert (await follow(sock))["error"] == "guilds_off"


async def test_many_events_come_in_parts(api: Api, sock: zmq.Socket[bytes]) -> None:
    """An answer is bounded, and the next one goes on where it ended."""
    feed = api.feed
    assert feed is not None
    feed.begin("one", [10])
    for _ in range(8):
        feed.happen("MESSAGE_CREATE", {"content": "x" * 100_000})
    seq, answers = 2, 0
    while seq < 10:
        events = (await follow(sock, (0, "one", seq), (1, "", 0)))["events"]
        assert [event[2] for event in events] == list(range(seq + 1, seq + 1 + len(events)))
        seq, answers = seq + len(events), answers + 1
    assert answers == 3


async def test_an_answer_may_have_several_parts(api: Api, sock: zmq.Socket[bytes]) -> None:
    """Each has the next events, and the last one what every answer has."""
    feed = api.feed
    assert feed is not None
    feed.begin("one", [10])
    request = {"v": 1, "id": "mine", "op": "follow", "places": [[0, "one", 2], [1, "", 0]], "count": 2}
    sock.send(msgspec.json.encode({**request, "wait_s": 30, "parts": 3}))
    seen = []
    for _ in range(3):
        await asyncio.sleep(0.02)
        feed.happen("TYPING_START", {})
        _, topic, document = await part(sock)
        answer = msgspec.json.decode(document)
        seen.append((topic, [event[2] for event in (answer if topic else answer["events"])]))
    assert seen == [(b"events", [3]), (b"events", [4]), (b"", [5])]
    feed.happen("TYPING_START", {})
    assert [event[2] for event in (await follow(sock, (0, "one", 5), (1, "", 0)))["events"]] == [6]


async def test_an_answer_ends_with_a_part_that_has_no_room(api: Api) -> None:
    """Later parts would leave a hole. From outside no queue is full for certain, so this calls the server itself."""
    feed = api.feed
    assert feed is not None
    feed.begin("one", [10])
    feed.begin("two", [20], shard=1)
    has_room, sent = False, list[bytes]()

    def send(_: bytes, frames: tuple[bytes, bytes, bytes]) -> bool:
        sent.append(frames[2])
        return has_room

    server = FollowServer(send, SystemClock(), lambda: None, "instance")
    places = (FollowedPlace(0, "one", 2), FollowedPlace(1, "two", 2))
    request = FollowRequest(v=1, id="mine", places=places, count=2, wait_s=30.0, parts=4)
    server.begin(b"client", request)
    for _ in range(2):
        feed.happen("TYPING_START", {})
        server.note()
        server.pump(feed)
    assert len(sent) == 1
    has_room = True
    server.begin(b"client", request)
    server.pump(feed)
    assert [event[2] for event in msgspec.json.decode(sent[-1])] == [3, 4]
    server.clear()


@pytest.mark.parametrize("places", [[[0, "one"]], [["0", "one", 1]], [[0, "one", -2]], [[0, "x" * 65, 0]]])
async def test_odd_places_are_refused(sock: zmq.Socket[bytes], places: Any) -> None:
    assert (await follow(sock, *places))["error"] == "bad_request"
