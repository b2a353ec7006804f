"""The gateway that feeds the measured client: a process of its own, told what to do by lines of JSON.

It encodes a round before the clock runs and then only writes bytes. The sequences rise over the whole run. A round has ended
when the client has answered the op 1 that follows the last event: then it has read everything.

    {"do": "prepare", "events": 40000}         → {"prepared": …}
    {"do": "send", "rate": 4000}  (0 = as fast as the client reads)  → {"seconds": …, "sent": {seq: monotonic, …} or null}
    {"do": "beats"}                            → {"lateness": [seconds, …]}
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web

from tests.bench.events import ENCODERS, dispatch, dispatches, websocket_frame

CHUNK = 64  # messages in one write at saturation
HIGH_WATER = 4 * 1024 * 1024  # bytes in the transport's buffer above which a saturating sender waits
BOT = {
    "id": "81384788765712384",
    "username": "bench",
    "discriminator": "0000",
    "global_name": None,
    "avatar": None,
    "bot": True,
}
APPLICATION = {"id": BOT["id"], "flags": 0}


class Shard:
    """One connection of the measured client."""

    def __init__(
        self, gateway: Gateway, socket: web.WebSocketResponse, transport: asyncio.Transport, mode: str
    ) -> None:
        encoder = ENCODERS[mode]()
        self._encoder, self._opcode = encoder, encoder.opcode
        self._gateway = gateway
        self._socket = socket
        self._transport = transport
        self._acks = 0  # owed while a prepared round is being written: the compressor is ahead
        self._busy = False
        self._drained = asyncio.Event()
        self._expected_beat: float | None = None
        self.seq = 0
        self.id = 0
        self.frames: list[bytes] = []
        self.seqs: list[int] = []

    def write(self, message: dict[str, Any]) -> None:
        """Encode and write one message that was not prepared."""
        self._transport.write(self.frame(json.dumps(message, separators=(",", ":")).encode()))

    def frame(self, message: bytes) -> bytes:
        """Encode ``message`` into a websocket frame."""
        return websocket_frame(self._encoder.encode(message), self._opcode)

    async def serve(self) -> None:
        """Say Hello and answer what comes until the client has gone."""
        self.write({"t": None, "s": None, "op": 10, "d": {"heartbeat_interval": int(self._gateway.interval * 1000)}})
        async for message in self._socket:
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                self._take(json.loads(message.data))

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == 1:
            self._beat()
        elif message["op"] == 2:  # Identify
            shard = message["d"].get("shard", [0, 1])
            self.id = shard[0]
            self.seq += 1
            ready = {
                "v": 10,
                "user": BOT,
                "guilds": [],
                "session_id": f"bench-{id(self):x}-{time.time_ns():x}",
                "resume_gateway_url": self._gateway.url,
                "shard": shard,
                "application": APPLICATION,
            }
            self.write({"t": "READY", "s": self.seq, "op": 0, "d": ready})
            self._gateway.identified(self)

    def _beat(self) -> None:
        now = time.monotonic()
        if self._expected_beat is not None:
            self._gateway.lateness.append(now - self._expected_beat)
        self._expected_beat = now + self._gateway.interval
        self._drained.set()
        if self._busy and self._opcode != ENCODERS["none"].opcode:
            self._acks += 1
        else:
            self.write({"t": None, "s": None, "op": 11, "d": None})

    async def prepare(self, count: int) -> None:
        """Encode the next ``count`` events, and the op 1 behind them. Heartbeats are answered meanwhile."""
        self._busy = True
        source = dispatches(self.id)
        self.frames, self.seqs = [], []
        for _ in range(count):
            self.seq += 1
            self.frames.append(self.frame(dispatch(*_with_seq(next(source), self.seq))))
            self.seqs.append(self.seq)
            if self.seq % CHUNK == 0:
                await asyncio.sleep(0)
        self.frames.append(self.frame(b'{"t":null,"s":null,"op":1,"d":null}'))

    def write_frames(self, first: int, last: int) -> None:
        """Write prepared frames."""
        self._transport.write(b"".join(self.frames[first:last]))

    async def room(self) -> None:
        """Wait until the client has read most of what was written."""
        while self._transport.get_write_buffer_size() > HIGH_WATER:  # noqa: ASYNC110  # a transport tells nobody
            await asyncio.sleep(0.0005)

    async def read_everything(self) -> None:
        """Wait for the answer to the last op 1, then send the ACKs that are owed."""
        await self._drained.wait()
        self._busy = False
        for _ in range(self._acks):
            self.write({"t": None, "s": None, "op": 11, "d": None})
        self._acks = 0

    def begin(self) -> None:
        """Forget beats that came before the round."""
        self._drained.clear()


def _with_seq(named: tuple[str, bytes], seq: int) -> tuple[str, int, bytes]:
    return named[0], seq, named[1]


class Gateway:
    """All connections of the measured client, and the REST API in front of them."""

    def __init__(self, interval: float, *, scheme: str, shards: int) -> None:
        self.interval = interval
        self.url = ""
        self.lateness: list[float] = []
        self._scheme = scheme
        self._shards = shards
        self._connections: list[Shard] = []
        self._tell = _tell

    async def start(self, trust: ssl.SSLContext | None) -> int:
        """Listen on a free port and return it."""
        app = web.Application()
        app.router.add_get("/api/{version}/gateway/bot", self._gateway_bot)
        app.router.add_get("/api/{version}/gateway", self._gateway_bot)
        app.router.add_get("/api/{version}/users/@me", _json(BOT))
        app.router.add_get("/api/{version}/oauth2/applications/@me", _json({**APPLICATION, **_OWNER}))
        app.router.add_get("/{path:.*}", self._websocket)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust)
        await site.start()
        port: int = runner.addresses[0][1]
        self.url = f"{self._scheme}://localhost:{port}/"
        return port

    def identified(self, shard: Shard) -> None:
        """A session was opened; say so once all are."""
        self._connections.append(shard)
        if len(self._connections) == self._shards:
            self._tell({"ready": len(self._connections)})

    async def _gateway_bot(self, _request: web.Request) -> web.Response:
        limit = {"total": 100_000, "remaining": 100_000, "reset_after": 0, "max_concurrency": 1_000}
        return _answer({"url": self.url, "shards": self._shards, "session_start_limit": limit})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=0, autoping=True)
        await socket.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.set_write_buffer_limits(high=2**31)  # `room` waits instead
        await Shard(self, socket, request.transport, request.query.get("compress", "none")).serve()
        return socket

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one line of the driver."""
        match order["do"]:
            case "prepare":
                each = order["events"] // len(self._connections)
                for shard in self._connections:
                    await shard.prepare(each)
                return {"prepared": each * len(self._connections)}
            case "send":
                return await self._send(order["rate"], stamps=order.get("stamps", False))
            case "beats":
                lateness, self.lateness = self.lateness, []
                return {"lateness": lateness}
        raise ValueError(order)

    async def _send(self, rate: float, *, stamps: bool) -> dict[str, Any]:
        shards = self._connections
        for shard in shards:
            shard.begin()
        began = time.monotonic()
        sent: dict[int, float] = {}
        if rate:
            await self._send_at(rate, shards, sent if stamps else None)
        else:
            await asyncio.gather(*(_saturate(shard) for shard in shards))
        await asyncio.gather(*(shard.read_everything() for shard in shards))
        return {"seconds": time.monotonic() - began, "sent": sent if stamps else None}

    async def _send_at(self, rate: float, shards: Sequence[Shard], sent: dict[int, float] | None) -> None:
        """One event at a time, evenly spaced, over the shards in turn. It spins: timers are too coarse."""
        began, count = time.monotonic(), len(shards[0].frames) - 1
        for index in range(count):
            for place, shard in enumerate(shards):
                due = began + (index * len(shards) + place) / rate
                while time.monotonic() < due:  # noqa: ASYNC110  # timers are too coarse
                    await asyncio.sleep(0)
                shard.write_frames(index, index + 1)
                if sent is not None:
                    sent[shard.seqs[index]] = time.monotonic()
        for shard in shards:
            shard.write_frames(count, count + 1)


async def _saturate(shard: Shard) -> None:
    for first in range(0, len(shard.frames), CHUNK):
        await shard.room()
        shard.write_frames(first, first + CHUNK)


_OWNER = {"name": "bench", "description": "", "owner": BOT, "bot_public": True, "bot_require_code_grant": False,
          "verify_key": "00", "summary": "", "icon": None, "team": None, "rpc_origins": []}  # fmt: skip


def _json(document: dict[str, Any]) -> Any:
    async def answer(_request: web.Request) -> web.Response:
        return _answer(document)

    return answer


def _answer(document: dict[str, Any]) -> web.Response:
    """Without a charset: discord.py parses nothing else."""
    return web.Response(body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})


def _tell(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--interval", type=float, default=45.0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--certificate", help="a PEM file with key and certificate: listen with TLS")
    options = parser.parse_args()
    trust = None
    if options.certificate:
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trust.load_cert_chain(options.certificate)
    gateway = Gateway(options.interval, scheme="wss" if trust else "ws", shards=options.shards)
    _tell({"port": await gateway.start(trust)})
    orders = await _lines()
    while line := await orders.readline():
        _tell(await gateway.obey(json.loads(line)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
