"""Answers those who read the bus: replay out of the ring, the last READY, positions, and commands on their way to Discord.

It never waits for a client. What a client does not fetch stays in its own pipe of `CLIENT_HWM` messages; a replay goes on when
there is room, a few documents at each turn of the loop, and any other answer for which there is none is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

import zmq

from discorder.clock import Clock
from discorder.errors import CommandRefused
from discorder.publishers.protocol import Desk
from discorder.publishers.zeromq_requests import (
    MAX_REQUEST_BYTES,
    BadRequest,
    CommandRequest,
    Frames,
    PositionsRequest,
    ReadyRequest,
    ReplayRequest,
    Request,
    answer,
    parse,
    position_fields,
    refusal,
)
from discorder.publishers.zeromq_ring import Place, Replay, Ring

CLIENT_HWM = 32  # messages that wait for one client
REQUESTS_PER_TURN = 32
LOOKS_PER_TURN = 256  # documents looked at for one client in one turn
BYTES_PER_TURN = 262_144  # sent to one client in one turn, or one document
BUSY_PAUSE = 0.002  # seconds between two turns while there is something to do: the session's events go first
LONGEST_PAUSE = 0.5  # seconds between two looks at a client that does not read
STREAMS_PER_CLIENT = 8
STREAMS = 256
COMMANDS = 64  # on their way at one time

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stream:
    """One answer that is being replayed."""

    id_frame: bytes
    replay: Replay


def configure_router(sock: zmq.Socket[bytes]) -> None:
    """What a ROUTER needs before it is bound."""
    sock.set(zmq.ROUTER_MANDATORY, 1)  # a full pipe is told, instead of dropping in silence
    sock.set(zmq.SNDHWM, CLIENT_HWM)
    sock.set(zmq.RCVHWM, REQUESTS_PER_TURN)
    sock.set(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)


class Router:
    """The ROUTER socket beside the bus. All methods belong to the loop."""

    def __init__(
        self, sock: zmq.Socket[bytes], ring: Ring, clock: Clock, *, desk: Desk | None, commands_off: str
    ) -> None:
        """``sock`` is bound already. ``commands_off``: why commands are refused; "" = they are not."""
        self._socket = sock
        self._descriptor = int(sock.get(zmq.FD))
        self._ring = ring
        self._clock = clock
        self._desk = desk
        self._commands_off = commands_off
        self._streams: dict[bytes, deque[Stream]] = {}
        self._commands: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._pause = BUSY_PAUSE
        self._unsent = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def unsent(self) -> int:
        """How many answers were dropped because their client did not read."""
        return self._unsent

    def start(self) -> None:
        """Begin to answer."""
        # The descriptor tells of news once, so every wake-up reads until nothing is left.
        asyncio.get_running_loop().add_reader(self._descriptor, self._woken.set)
        self._woken.set()
        self._task = asyncio.create_task(self._run(), name="bus router")

    async def stop(self) -> None:
        """Answer no more. The socket is the caller's to close. Idempotent."""
        tasks = [task for task in (self._task, *self._commands) if task is not None]
        if self._task is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._task = None
        self._streams.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------- the loop

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                more = self._read()
                progress = self._pump()
                more = more or bool(
                    int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN
                )  # sending may have swallowed the news
            except zmq.ZMQError as error:  # the socket itself is broken: nothing of this may reach the events
                logger.warning("The bus stops answering: %s", error)
                return
            await self._clock.sleep(BUSY_PAUSE)
            if more or progress:
                self._pause = BUSY_PAUSE
                self._woken.set()
            elif self._streams:  # nobody reads: look again, less and less often
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                self._clock.call_later(self._pause, self._woken.set)

    def _read(self) -> bool:
        """Take in a few requests; False when there are no more."""
        for _ in range(REQUESTS_PER_TURN):
            try:
                client, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            try:
                self._serve(client, parse(frames))
            except BadRequest as error:
                self._send(client, refusal(error.id, error.error, str(error)))
        return True

    def _serve(self, client: bytes, request: Request) -> None:
        match request:
            case ReplayRequest():
                self._begin_replay(client, request)
            case CommandRequest():
                self._begin_command(client, request)
            case ReadyRequest():
                self._send_ready(client, request)
            case PositionsRequest():
                self._send_positions(client, request)

    # ---------------------------------------------------------------- replay

    def _begin_replay(self, client: bytes, request: ReplayRequest) -> None:
        self._ring.trim(self._clock.monotonic())
        log = self._ring.log(request.shard)
        if log is None or not log.runs:
            self._send(
                client, refusal(request.id_frame, "no_such_shard", f"no event of shard {request.shard} came yet")
            )
            return
        streams = self._streams.get(client, ())
        if len(streams) >= STREAMS_PER_CLIENT or sum(map(len, self._streams.values())) >= STREAMS:
            self._send(client, refusal(request.id_frame, "busy", "too many replays at a time", 1.0))
            return
        asked = None if request.session is None else Place(request.session, request.after)
        types = None if request.types is None else frozenset(name.encode() for name in request.types)
        self._streams.setdefault(client, deque()).append(Stream(request.id_frame, Replay(log, asked, types)))

    def _pump(self) -> bool:
        """Give every client that waits for a replay a bit of it; False when none of them had room."""
        progress = False
        for client in list(self._streams):
            streams = self._streams[client]
            try:
                progress |= self._advance(client, streams)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                streams.clear()  # it has left
            if not streams:
                del self._streams[client]
        return progress

    def _advance(self, client: bytes, streams: deque[Stream]) -> bool:
        stream, sent = streams[0], 0
        replay = stream.replay
        try:
            for _ in range(LOOKS_PER_TURN):
                entry = replay.look()
                if entry is None:
                    self._socket.send_multipart((client, *_end(stream)), zmq.DONTWAIT)
                    streams.popleft()
                    return True
                if replay.wanted(entry):
                    frames = (client, stream.id_frame, entry.topic, entry.document)
                    self._socket.send_multipart(frames, zmq.DONTWAIT)
                    sent += len(entry.document)
                replay.step()
                if sent >= BYTES_PER_TURN:
                    break
        except zmq.Again:
            return sent > 0
        return True

    # ---------------------------------------------------------------- the rest

    def _send_ready(self, client: bytes, request: ReadyRequest) -> None:
        ready = None if self._desk is None else self._desk.last_ready(request.shard)
        if ready is None:
            text = f"shard {request.shard} had no READY yet, or is not here"
            self._send(client, refusal(request.id_frame, "not_ready", text))
            return
        self._send(client, (request.id_frame, b"READY", ready.document))
        self._send(client, answer(request.id_frame, {}))

    def _send_positions(self, client: bytes, request: PositionsRequest) -> None:
        shards = [
            {"shard": position.shard, "session": position.session, **position_fields(position)}
            for position in self._ring.positions()
        ]
        self._send(client, answer(request.id_frame, {"shards": shards, "commands": not self._commands_off}))

    def _begin_command(self, client: bytes, request: CommandRequest) -> None:
        if self._commands_off or self._desk is None:
            text = self._commands_off or "this bus is not connected to a control plane"
            self._send(client, refusal(request.id_frame, "commands_off", text))
            return
        if len(self._commands) >= COMMANDS:
            self._send(client, refusal(request.id_frame, "busy", "too many commands at a time", 1.0))
            return
        task = asyncio.create_task(self._command(self._desk, client, request), name=f"command {request.command}")
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _command(self, desk: Desk, client: bytes, request: CommandRequest) -> None:
        try:
            told = await desk.command(request.command, request.d, shard=request.shard, guild_id=request.guild_id)
        except CommandRefused as error:
            frames = refusal(request.id_frame, error.reason, str(error), error.retry_after)
        except Exception:
            logger.exception("The command %s of a bot failed", request.command)
            frames = refusal(request.id_frame, "internal_error", "the control plane's log says what happened")
        else:
            frames = answer(request.id_frame, told)
        self._send(client, frames)

    def _send(self, client: bytes, frames: Frames) -> None:
        """Send it if the client has room for it and is still there."""
        try:
            self._socket.send_multipart((client, *frames), zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in {zmq.EAGAIN, zmq.EHOSTUNREACH}:
                raise
            self._unsent += 1
        self._woken.set()  # sending may have swallowed the news of a request


def _end(stream: Stream) -> Frames:
    replay = stream.replay
    since = {"session": replay.since.session, "seq": replay.since.seq}
    last = replay.last
    return answer(
        stream.id_frame, {"complete": replay.complete, "session": last.session, "last": last.seq, "since": since}
    )
