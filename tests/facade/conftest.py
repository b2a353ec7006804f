"""A façade on a feed in memory, and raw bots."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, runtime_checkable

import aiohttp
import msgspec
import pytest

from discorder.clock import SystemClock
from discorder.config import Facade
from discorder.facade.clients import Client, Clients
from discorder.facade.commands import CommandSender
from discorder.facade.live import FacadeServices
from discorder.facade.opening import listening_sockets
from discorder.facade.places import Places
from discorder.facade.rest import PassThrough
from discorder.facade.server import FacadeServer
from discorder.facade.session_id import session_key
from tests.facade.memory_feed import ALL_INTENTS, MemoryFeed, MemoryPlaces

SECONDS = 30.0  # for what is waited for, on a busy machine
TOKENS = {"one": "NDI.facade.one-one-one-one-one-one", "two": "NDI.facade.two-two-two-two-two-two"}


class SentCommands:
    """Takes the commands instead of Discord."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, Any]] = []
        self.changed = asyncio.Event()
        self.may_pass = asyncio.Event()
        self.may_pass.set()

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        await self.may_pass.wait()
        assert shard is not None
        self.sent.append((op, shard, d))
        self.changed.set()

    async def until(self, count: int) -> list[tuple[int, int, Any]]:
        async with asyncio.timeout(SECONDS):
            while len(self.sent) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.sent


class Stage:
    """A façade with two bots, "one" and "two", and what is behind it."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.clock = SystemClock()
        self.feed = MemoryFeed(now=self.now)
        self.commands = SentCommands()
        self.store = MemoryPlaces()
        self.clients = [Client(name, token) for name, token in TOKENS.items()]
        self.heartbeat = 15.0
        self.rest: Callable[[Clients], PassThrough] | None = None
        self.http = http
        self.bots: list[Bot] = []
        self.server: FacadeServer | None = None

    def now(self) -> float:
        return self.clock.now().timestamp()

    async def open(self) -> None:
        clients = Clients(self.clients)
        services = FacadeServices(
            self.feed,
            clients,
            session_key("the real token"),
            CommandSender(self.commands, self.clock),
            Places(self.store, self.now),
            self.clock,
            self.heartbeat,
        )
        self.server = FacadeServer(services, None if self.rest is None else self.rest(clients))
        await self.server.start(await listening_sockets(Facade(bind="127.0.0.1:0")))

    @property
    def url(self) -> str:
        assert self.server is not None
        assert self.server.url is not None
        return self.server.url

    @property
    def sessions(self) -> int:
        assert self.server is not None
        return len(self.server.status().sessions)

    async def close(self) -> None:
        assert self.server is not None
        await self.server.close()
        self.server = None

    async def bot(self, name: str = "one", query: str = "/?v=10&encoding=json") -> Bot:
        """Connect; HELLO has been read."""
        bot = Bot(self, TOKENS[name])
        self.bots.append(bot)
        await bot.dial(query)
        return bot


class Place(Protocol):
    """Where a façade listens, and the connections of its bots."""

    http: aiohttp.ClientSession

    @property
    def url(self) -> str: ...


@runtime_checkable
class Counting(Protocol):
    """A façade that says how many sessions have a connection."""

    @property
    def sessions(self) -> int: ...


class Bot:
    """A raw client. Every frame has a deadline."""

    def __init__(self, stage: Place, token: str) -> None:
        self._stage = stage
        self.token = token
        self.websocket: aiohttp.ClientWebSocketResponse | None = None
        self.session_id = ""
        self.seq = 0
        self.interval = 0
        self._inflate: Any = None
        self._opened: list[aiohttp.ClientWebSocketResponse] = []

    async def dial(self, query: str = "/?v=10&encoding=json") -> None:
        url = self._stage.url.replace("http", "ws") + query
        if "zlib-stream" in query:
            self._inflate = zlib.decompressobj()
        self.websocket = await self._stage.http.ws_connect(url, autoclose=False, max_msg_size=0)
        self._opened.append(self.websocket)
        hello = await self.frame()
        assert hello["op"] == 10
        self.interval = hello["d"]["heartbeat_interval"]

    async def send(self, op: int, d: Any = None) -> None:
        assert self.websocket is not None
        await self.websocket.send_str(msgspec.json.encode({"op": op, "d": d}).decode())

    async def message(self) -> aiohttp.WSMessage:
        assert self.websocket is not None
        return await self.websocket.receive(timeout=SECONDS)

    async def frame(self) -> dict[str, Any]:
        message = await self.message()
        assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        data = message.data if self._inflate is None else self._inflate.decompress(message.data)
        frame: dict[str, Any] = msgspec.json.decode(data)
        if frame["s"] is not None:
            self.seq = frame["s"]
        return frame

    async def event(self, kind: str) -> dict[str, Any]:
        """Return the next frame, which must be an event of this type."""
        frame = await self.frame()
        assert frame["t"] == kind, frame
        return frame

    async def identify(self, *, guilds: int = 0, **changes: Any) -> dict[str, Any]:
        """IDENTIFY; return READY's ``d``. READY and the guilds have been read."""
        d = {"token": self.token, "intents": ALL_INTENTS, "properties": {"browser": "raw"}, **changes}
        await self.send(2, d)
        ready: dict[str, Any] = (await self.event("READY"))["d"]
        self.session_id = ready["session_id"]
        for _ in range(guilds):
            await self.event("GUILD_CREATE")
        return ready

    async def resume(self, session_id: str = "", seq: int | None = None) -> None:
        await self.send(
            6,
            {
                "token": self.token,
                "session_id": session_id or self.session_id,
                "seq": self.seq if seq is None else seq,
            },
        )

    async def close_code(self) -> tuple[int, str]:
        """Return code and reason of the close frame that comes next."""
        message = await self.message()
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return message.data, str(message.extra)

    async def is_cut(self) -> None:
        """Wait for the end of the socket, without a close frame."""
        message = await self.message()
        assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}, message
        assert self.websocket is not None
        assert self.websocket.close_code == 1006

    def vanish(self) -> None:
        """Cut the socket, as a process that is killed does."""
        assert self.websocket is not None
        transport = self.websocket._writer.transport  # noqa: SLF001  # aiohttp's own close is polite
        assert isinstance(transport, asyncio.Transport)
        transport.abort()

    async def gone(self) -> None:
        """Cut the socket and wait until the façade has noticed."""
        assert isinstance(self._stage, Counting)
        before = self._stage.sessions
        self.vanish()
        async with asyncio.timeout(SECONDS):
            while self._stage.sessions >= before:  # noqa: ASYNC110  # the façade gives no sign of it
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for one in self._opened:
            await one.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as http:
        made = Stage(http)
        yield made
        for bot in made.bots:
            await bot.close()
        if made.server is not None:
            await made.close()


@pytest.fixture
async def facade(stage: Stage) -> Stage:
    """A façade with two guilds, which is open."""
    stage.feed.begin("label", [10, 20])
    await stage.open()
    return stage
