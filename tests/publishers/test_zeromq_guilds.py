"""The request `guilds` of the ROUTER, as a program in another language makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
import zmq

from discorder.guilds import unpack
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
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None
    ) -> Mapping[str, object]:
        return {}

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
