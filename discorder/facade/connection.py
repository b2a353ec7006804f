"""Serve one websocket of a bot: one task reads, one writes, and nothing is queued between them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from discorder.clock import Timer
from discorder.facade import frames
from discorder.facade.commands import COMMAND_OPS
from discorder.facade.encoding import Encode
from discorder.facade.handshake import Identify, Refused, Resume, Unresumable, check_identify, check_resume
from discorder.facade.live import FacadeServices
from discorder.facade.session import BotSession, identified, resumed, shard_known
from discorder.facade.stream import SessionLost
from discorder.logs import logger
from discorder.wire import MAX_SEND_BYTES, Op

CLOSE_SECONDS = 1.0  # for a bot to answer a close frame, or to close by itself after op 7
MISSED_HEARTBEATS = 2  # after which the socket is aborted
LATE_SECONDS = 1.0  # more, in case the event loop was held up and heartbeats wait to be read
BURST_SECONDS = 60.0  # that one frame of the opening burst may wait for a bot that does not read: it holds a snapshot


class _Interrupted(Exception):
    """The connection ends before the bot has got a session."""


class BotConnection:
    """One websocket, from HELLO to its end. ``url``: where the bot is to resume."""

    def __init__(
        self,
        services: FacadeServices,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        encode: Encode,
        url: str,
    ) -> None:
        self._services = services
        self._websocket = websocket
        self._transport = transport
        self._encode = encode
        self._url = url
        self._woken = asyncio.Event()
        self._acks = 0
        self._opening: Identify | Resume | Unresumable | None = None  # what the bot asked for and has not got yet
        self._refused: Refused | None = None
        self._stopping = False
        self._why = ""  # the connection ends, for the log
        self._last_beat = services.clock.monotonic()
        self._late = False
        self._timer: Timer | None = None
        self.session: BotSession | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done when `run` has ended

    async def run(self) -> None:
        """Serve the websocket until it is closed."""
        writer = asyncio.create_task(self._write(), name="facade-writer")
        self._watch()
        try:
            await self._read()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            writer.cancel()
            if self.session is not None:
                self.session.end(self._why or "its socket broke")
                self.session = None
            self._transport.abort()  # a close by the HTTP server would have the code 1000
            self.ended.set_result(None)
            await asyncio.gather(writer, return_exceptions=True)

    def stop(self) -> None:
        """Send what there is, then op 7; the bot is to connect again."""
        self._stopping, self._why = True, "the façade stops"
        self._woken.set()

    def abort(self) -> None:
        """Cut the socket, without a close frame: the bot resumes."""
        self._transport.abort()

    def _cut(self, why: str) -> None:
        self._why = why
        self.abort()

    # ---------------------------------------------------------------- reading

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                await self._received(message.data)
            elif message.type is WSMsgType.PING:
                await self._websocket.pong(message.data)
            elif message.type is WSMsgType.CLOSE:
                if self._refused is None:
                    self._why = self._why or f"closed by the bot with {message.data or 1000}"
                    await self._websocket.close(code=message.data or 1000, drain=False)  # the bot's own code
                return
            elif message.type is not WSMsgType.PONG:
                return

    async def _received(self, frame: bytes) -> None:
        if self._refused is not None:
            return
        try:
            await self._take(frame)
        except Refused as refused:
            self._refuse(refused)

    async def _take(self, frame: bytes) -> None:
        op, d = _parse(frame)
        if op == Op.HEARTBEAT:
            self._last_beat, self._late = self._services.clock.monotonic(), False
            if self.session is not None:
                self.session.heartbeat(d)
            self._acks += 1
            self._woken.set()
        elif op in {Op.IDENTIFY, Op.RESUME}:
            self._open(op, d)
        elif op not in COMMAND_OPS:
            raise Refused(
                4001, f"there is no opcode {op}", "the bot's library sends what Discord would not take either"
            )
        elif self.session is None:
            raise Refused(4003, "not authenticated: IDENTIFY comes first")
        else:
            await self._command(self.session, op, d)

    def _open(self, op: int, d: Any) -> None:
        if self.session is not None or self._opening is not None:
            raise Refused(4005, "already authenticated")
        if op == Op.IDENTIFY:
            self._opening = check_identify(d, self._services.clients)
        else:
            try:
                self._opening = check_resume(d, self._services.clients, self._services.key)
            except Unresumable as error:
                self._opening = error
        self._woken.set()

    async def _command(self, session: BotSession, op: int, d: Any) -> None:
        if session.commands.is_full:
            if self._services.commands.log_limit.due(session.client_name, "full") is not None:
                logger.warning(
                    "As many commands of a bot wait as may; nothing more is read from it until Discord's limits allow",
                    client=session.client_name,
                    shard=session.shard_id,
                )
            self._last_beat = float("inf")  # its heartbeats are not read, either
            await session.commands.room()
            self._last_beat = self._services.clock.monotonic()
        session.commands.take(op, d)

    def _watch(self) -> None:
        """Abort the socket after two missed heartbeats."""
        clock = self._services.clock
        left = self._last_beat + MISSED_HEARTBEATS * self._services.heartbeat - clock.monotonic()
        if left > 0:
            self._timer = clock.call_later(min(left, self._services.heartbeat), self._watch)
        elif not self._late:
            self._late = True
            self._timer = clock.call_later(LATE_SECONDS, self._watch)
        else:
            self._cut("it sent no heartbeats, so its socket was cut")

    # ---------------------------------------------------------------- writing

    async def _write(self) -> None:
        try:
            await self._put(frames.hello(self._services.heartbeat))
            while self._refused is None:
                self._woken.clear()
                try:
                    await self._advance()
                except SessionLost as lost:
                    await self._invalidate(str(lost))
                except Unresumable as error:
                    await self._refuse_resume(error)
                except _Interrupted:
                    pass
                if self._stopping:
                    await self._put(frames.RECONNECT)
                    await self._services.clock.sleep(CLOSE_SECONDS)
                    self.abort()
                    return
                await self._woken.wait()
        except Refused as refused:
            self._refuse(refused)
        except ConnectionError:
            return
        except TimeoutError:
            logger.warning("A bot did not read its guilds; its socket was cut", **self._about())
            self._cut("it did not read its guilds, so its socket was cut")
        except Exception as error:  # noqa: BLE001  # a failure of one bot's connection stays there
            logger.opt(exception=error).error("A connection of the façade failed", **self._about())
            self._cut("a failure of the façade")
        if self._refused is not None:
            await self._close(self._refused)

    async def _advance(self) -> None:
        """Send all that there is to send."""
        await self._send_acks()
        opening = self._opening
        if isinstance(opening, Unresumable):
            raise opening
        if isinstance(opening, Identify):
            await self._until_known(opening.shard[0])
            session, snapshot = identified(self._services, opening, self._woken)
            self.session, self._opening = session, None
            await session.send_burst(snapshot, self._url, self._put_in_burst)
        elif isinstance(opening, Resume):
            await self._until_known(opening.session.shard[0])
            self.session, self._opening = resumed(self._services, opening, self._woken), None
            await self.session.send_replay(self._put)
        if self.session is not None:
            await self.session.send_events(self._put)

    async def _until_known(self, shard: int) -> None:
        """Wait until the shard is known, and answer heartbeats meanwhile."""
        known = asyncio.create_task(shard_known(self._services, shard))
        try:
            while not known.done():
                woken = asyncio.create_task(self._woken.wait())
                try:
                    await asyncio.wait({known, woken}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
                self._woken.clear()
                await self._send_acks()
                if self._stopping or self._refused is not None:
                    raise _Interrupted
        finally:
            known.cancel()

    async def _invalidate(self, reason: str) -> None:
        assert self.session is not None  # noqa: S101  # it has lost its events
        client, shard = self.session.client_name, self.session.shard_id
        self.session.close()
        self.session = None
        await self._send_invalid(reason, client, shard)

    async def _refuse_resume(self, error: Unresumable) -> None:
        self._opening = None
        await self._send_invalid(str(error), error.client, error.shard)

    async def _send_invalid(self, reason: str, client: str, shard: int | None) -> None:
        about = {"client": client} if shard is None else {"client": client, "shard": shard}
        logger.info("A bot has to begin a new session of the façade (op 9)", reason=reason, **about)
        self._services.counts.of(client, shard).invalid_sessions += 1
        await self._put(frames.INVALID_SESSION)

    async def _put_in_burst(self, frame: bytes) -> None:
        async with asyncio.timeout(BURST_SECONDS):
            await self._put(frame)

    async def _put(self, frame: bytes) -> None:
        """Send one message, behind the acknowledgements that are due. Returns when the socket takes more."""
        if self._acks:
            await self._send_acks()
        await self._send(frame)

    async def _send_acks(self) -> None:
        while self._acks:
            self._acks -= 1
            await self._send(frames.ACK)

    async def _send(self, frame: bytes) -> None:
        payload, binary = self._encode(frame)
        await self._websocket.send_frame(payload, WSMsgType.BINARY if binary else WSMsgType.TEXT)

    def _refuse(self, refused: Refused) -> None:
        self._refused, self._why = refused, f"refused with {refused.code}: {refused.reason}"
        self._woken.set()
        if isinstance(self._opening, Identify):
            self._services.counts.refused[self._opening.client.name] = f"{refused.code}: {refused.reason}"
        logger.warning(
            "The façade refused a bot",
            code=refused.code,
            reason=refused.reason,
            **({"remedy": refused.remedy} if refused.remedy else {}),
            **self._about(),
        )

    async def _close(self, refused: Refused) -> None:
        try:
            body = struct.pack("!H", refused.code) + refused.reason.encode()[:123]
            await self._websocket.send_frame(body, WSMsgType.CLOSE)
            await self._services.clock.sleep(CLOSE_SECONDS)
        except ConnectionError:
            return
        self.abort()

    def _about(self) -> dict[str, object]:
        if self.session is not None:
            return {"client": self.session.client_name, "shard": self.session.shard_id}
        return {"client": self._opening.client.name} if isinstance(self._opening, Identify | Resume) else {}


def _parse(frame: bytes) -> tuple[int, Any]:
    """Return the opcode and ``d``. Raises `Refused`."""
    if len(frame) > MAX_SEND_BYTES:
        raise Refused(4002, f"a frame of {len(frame):,} bytes; Discord takes {MAX_SEND_BYTES:,}")
    try:
        document = msgspec.json.decode(frame)
    except (ValueError, RecursionError):
        raise Refused(4002, "a frame that is not JSON, or nested too deeply") from None
    if not isinstance(document, dict) or type(document.get("op")) is not int:
        raise Refused(4002, "a frame without an opcode")
    return document["op"], document.get("d")
