"""A raw gateway client, and simulators that are stopped at the end of a test."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
import pytest

from discorder.simulator import Simulator
from discorder.simulator.payloads import replay_order

ALL_INTENTS = 53_608_447


class RawClient:
    """One websocket of a client that knows opcodes and nothing more. Every frame it gets has a deadline of 5 s."""

    def __init__(self, http: aiohttp.ClientSession, sim: Simulator) -> None:
        self._http = http
        self._sim = sim
        self._inflate = zlib.decompressobj()
        self._websocket: aiohttp.ClientWebSocketResponse | None = None
        self.raw: list[aiohttp.WSMessage] = []
        self.seq = 0

    @property
    def websocket(self) -> aiohttp.ClientWebSocketResponse:
        assert self._websocket is not None
        return self._websocket

    async def dial(self, url: str | None = None, query: str = "v=10&encoding=json") -> Self:
        self._websocket = await self._http.ws_connect(
            f"{url or self._sim.gateway_url}/?{query}", autoclose=False, max_msg_size=0
        )
        return self

    async def send(self, op: int, d: Any = None) -> None:
        await self.websocket.send_str(msgspec.json.encode({"op": op, "d": d}).decode())

    async def message(self) -> aiohttp.WSMessage:
        message = await self.websocket.receive(timeout=60)
        self.raw.append(message)
        return message

    async def frame(self) -> dict[str, Any]:
        """The next gateway message; a self-contained zlib frame is inflated."""
        message = await self.message()
        assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        data = zlib.decompress(message.data) if message.type is aiohttp.WSMsgType.BINARY else message.data
        return self._read(data)

    async def stream_frame(self) -> dict[str, Any]:
        """The next message of a zlib-stream, however many websocket frames it takes."""
        buffer = b""
        while not buffer.endswith(b"\x00\x00\xff\xff"):
            message = await self.message()
            assert message.type is aiohttp.WSMsgType.BINARY
            buffer += message.data
        return self._read(self._inflate.decompress(buffer))

    def _read(self, data: bytes | str) -> dict[str, Any]:
        frame: dict[str, Any] = msgspec.json.decode(data)
        if frame["s"] is not None:
            self.seq = frame["s"]
        return frame

    async def until(self, event_type: str) -> dict[str, Any]:
        """``d`` of the next dispatch of this type."""
        while (frame := await self.frame())["t"] != event_type:
            pass
        d: dict[str, Any] = frame["d"]
        return d

    async def until_op(self, op: int) -> Any:
        """``d`` of the next frame with this opcode."""
        while (frame := await self.frame())["op"] != op:
            pass
        return frame["d"]

    async def close_code(self) -> int:
        """The code of the close frame that comes next, after whatever else comes; it is answered with 4000."""
        while (message := await self.message()).type is not aiohttp.WSMsgType.CLOSE:
            assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        await self.websocket.close(code=4000)
        code: int = message.data
        return code

    def identity(self, **changes: Any) -> dict[str, Any]:
        return {"token": self._sim.token, "properties": {}, "intents": ALL_INTENTS, **changes}

    async def identify(self, *, guilds: int | None = None, **changes: Any) -> dict[str, Any]:
        """HELLO, IDENTIFY, READY and the GUILD_CREATEs that follow; returns READY's ``d``."""
        assert (await self.frame())["op"] == 10
        await self.send(2, self.identity(**changes))
        ready = await self.until("READY")
        for _ in ready["guilds"] if guilds is None else range(guilds):
            await self.until("GUILD_CREATE")
        return ready

    async def resume(self, session_id: str, seq: Any, **changes: Any) -> None:
        """HELLO and RESUME."""
        assert (await self.frame())["op"] == 10
        await self.send(6, {"token": self._sim.token, "session_id": session_id, "seq": seq, **changes})

    def vanish(self) -> None:
        """Reset the connection, as a process that is killed does."""
        sock = self.websocket.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)

    async def close(self, code: int = 4000) -> None:
        await self.websocket.close(code=code)


class SeenEvents:
    """Counts the events that a library has parsed; awaits more of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def add(self, event_type: str) -> None:
        self.counts[event_type] += 1
        self._changed.set()

    async def wait_for(self, wanted: Counter[str]) -> None:
        """Return once each type was seen as often as ``wanted`` says."""
        async with asyncio.timeout(60):
            while not wanted <= self.counts:
                self._changed.clear()
                await self._changed.wait()

    async def all_of(self, sim: Simulator) -> None:
        """Return once every dispatch that was sent has been seen."""
        await self.wait_for(Counter(event_type for _, _, event_type in sim.sent))

    async def all_payloads(self, sim: Simulator) -> None:
        """Play the 135 sample frames, and return once all were seen."""
        before = len(sim.sent)
        await sim.play_all_payloads()
        assert len(sim.sent) - before == len(replay_order()) == 135
        await self.all_of(sim)
        assert set(self.counts) >= {payload.type for payload in replay_order()}

    async def resume_after_drop(self, sim: Simulator) -> None:
        """Reset the connection; what was missed must be replayed once, without another IDENTIFY."""
        await sim.drop()
        await sim.dispatch("MISSED_WHILE_AWAY", {})
        await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
        await self.all_of(sim)
        assert self.counts["MISSED_WHILE_AWAY"] == 1
        assert sim.identifies == 1


@pytest.fixture
async def seen() -> SeenEvents:
    """What a library has parsed so far."""
    return SeenEvents()


class ClientFactory:
    """Makes raw clients and closes what they leave open."""

    def __init__(self) -> None:
        self._http = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()

    def __call__(self, sim: Simulator) -> RawClient:
        return RawClient(self._http, sim)


@pytest.fixture
async def make_client() -> AsyncIterator[Callable[[Simulator], RawClient]]:
    """Makes raw clients of a simulator."""
    async with ClientFactory() as factory:
        yield factory


@pytest.fixture
async def start_simulator() -> AsyncIterator[Callable[..., Awaitable[Simulator]]]:
    """Starts simulators; their keywords are the options. IDENTIFYs need no spacing unless it is asked for."""
    running: list[Simulator] = []

    async def start(**options: Any) -> Simulator:
        sim = Simulator(**{"identify_spacing": 0.0, **options})
        await sim.start()
        running.append(sim)
        return sim

    yield start
    await asyncio.gather(*(sim.stop() for sim in running))
