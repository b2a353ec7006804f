"""Answer the readers of the bus: replays from the ring, guilds, the journal, the last READY, positions, and commands to Discord.

The router never waits for a client. Unread answers stay in the client's queue of `CLIENT_HWM` messages; a replay continues
when there is room (`discorder.publishers.zeromq.replays`), and any other answer without room is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial

import zmq

from discorder.clock import Clock
from discorder.errors import NO_JOURNAL
from discorder.guilds.feed import Feed
from discorder.publishers.delivery.keep_running import keep_running
from discorder.publishers.protocol import BusApi
from discorder.publishers.zeromq.following import FollowServer
from discorder.publishers.zeromq.protocol import (
    MAX_REQUEST_BYTES,
    BadRequest,
    CommandRequest,
    FacadeReportRequest,
    FollowRequest,
    Frames,
    GuildsRequest,
    PositionsRequest,
    ReadyRequest,
    ReplayMessage,
    Request,
    answer,
    parse,
    position_fields,
    refusal,
)
from discorder.publishers.zeromq.replays import GuildsReader, ReplayServer, Stream
from discorder.publishers.zeromq.ring import Ring
from discorder.publishers.zeromq.running_commands import RunningCommands
from discorder.publishers.zeromq.shard_log import LogReader
from discorder.wire import StreamPosition

CLIENT_HWM = 32  # messages that wait for one client
REQUESTS_PER_TURN = 32
READ_SECONDS = 0.002  # reading time of one turn: a request may have 64 KiB
BUSY_PAUSE = 0.002  # seconds between two turns while there is work: new events go first
LONGEST_PAUSE = 0.5  # seconds between two checks of a client that does not read

logger = logging.getLogger(__name__)


def configure_router(sock: zmq.Socket[bytes]) -> None:
    """Set the options of a ROUTER. Call it before the socket is bound."""
    sock.set(zmq.ROUTER_MANDATORY, 1)  # sending to a full queue raises instead of dropping silently
    sock.set(zmq.SNDHWM, CLIENT_HWM)
    sock.set(zmq.RCVHWM, REQUESTS_PER_TURN)
    sock.set(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)


class Router:
    """Serve the ROUTER socket of the bus. Call all methods on the loop."""

    def __init__(
        self, sock: zmq.Socket[bytes], ring: Ring, clock: Clock, *, bus_api: BusApi | None, commands_off: str
    ) -> None:
        """Create a router for ``sock``, which is bound. ``commands_off``: why commands are refused; "" = they are not."""
        self._socket = sock
        self._descriptor = int(sock.get(zmq.FD))
        self._ring = ring
        self._clock = clock
        self._bus_api = bus_api
        self._commands_off = commands_off
        self._replays = ReplayServer(sock, clock)
        self._commands = None if commands_off or bus_api is None else RunningCommands(bus_api)
        self._followers = FollowServer(self._send, clock, self._pump_followers_soon, secrets.token_hex(8))
        self._followers_wait = False  # for their turn
        self._unwatch: Callable[[], None] | None = None
        self._woken = asyncio.Event()
        self._pause = BUSY_PAUSE
        self._unsent = 0
        self.requests = self.replays = self.commands = 0  # since the start
        self._task: asyncio.Task[None] | None = None

    @property
    def unsent(self) -> int:
        """Return the number of answers that were dropped because the client did not read."""
        return self._unsent

    @property
    def replays_running(self) -> int:
        """Return the number of replays that are being sent."""
        return len(self._replays)

    def start(self) -> None:
        """Start to answer."""
        # The descriptor signals new requests only once, so every wake-up reads until none is left.
        asyncio.get_running_loop().add_reader(self._descriptor, self._woken.set)
        self._woken.set()
        if (feed := self._feed) is not None:
            self._unwatch = feed.watch(self._followers.note)
        self._task = asyncio.create_task(keep_running("bus router", self._run, self._clock), name="bus router")

    async def stop(self) -> None:
        """Stop answering. The caller closes the socket. Idempotent."""
        tasks = [] if self._task is None else [self._task]
        if self._task is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        if self._unwatch is not None:
            self._unwatch()
        self._task = self._unwatch = None
        self._followers.clear()
        self._replays.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._commands is not None:
            await self._commands.stop()

    # ---------------------------------------------------------------- the loop

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                more = self._read()
                progress = self._replays.pump()
                # sending may have cleared the signal
                more = more or bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)
            except zmq.ZMQError as error:  # the socket is broken, which must not affect the events
                logger.warning("The bus stops answering: %s", error)
                return
            await self._clock.sleep(BUSY_PAUSE)
            if more or progress:
                self._pause = BUSY_PAUSE
                self._woken.set()
            elif len(self._replays):  # no client reads: check again at growing intervals
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                self._clock.call_later(self._pause, self._woken.set)

    def _read(self) -> bool:
        """Read and answer a few requests; return False when there are no more."""
        began = time.perf_counter()
        for _ in range(REQUESTS_PER_TURN):
            if time.perf_counter() - began >= READ_SECONDS:
                break
            try:
                client, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            try:
                self._serve(client, parse(frames))
            except BadRequest as error:
                self._send(client, refusal(error.id, error.error, str(error)))
            except zmq.ZMQError:
                raise
            except Exception:  # a bug here fails this request, not the router
                logger.exception("A request on the bus failed and is not answered")
        return True

    def _serve(self, client: bytes, request: Request) -> None:
        self.requests += 1
        match request:
            case ReplayMessage():
                self._begin_replay(client, request)
            case CommandRequest():
                self._begin_command(client, request)
            case GuildsRequest():
                self._begin_guilds(client, request)
            case FollowRequest():
                self._begin_follow(client, request)
            case FacadeReportRequest():
                self._take_report(client, request)
            case ReadyRequest():
                self._send_ready(client, request)
            case PositionsRequest():
                self._send_positions(client, request)

    # ---------------------------------------------------------------- replay

    def _begin_replay(self, client: bytes, request: ReplayMessage) -> None:
        self._ring.trim(self._clock.monotonic())
        log = self._ring.log(request.shard)
        if log is None or not log.runs:
            self._send(
                client, refusal(request.id_frame, "no_such_shard", f"no event of shard {request.shard} came yet")
            )
            return
        asked = None if request.session is None else StreamPosition(request.session, request.after)
        types = None if request.types is None else frozenset(name.encode() for name in request.types)
        if self._replays.begin(client, Stream(request.id_frame, LogReader(log, asked, types))):
            self.replays += 1
        else:
            self._send(client, refusal(request.id_frame, "busy", "too many replays at a time", 1.0))

    # ---------------------------------------------------------------- the journal

    @property
    def _feed(self) -> Feed | None:
        return None if self._bus_api is None else self._bus_api.feed

    def _pump_followers_soon(self) -> None:
        """Serve the readers of the journal in the loop's next turn, which costs less than a turn of the router."""
        if not self._followers_wait:
            self._followers_wait = True
            asyncio.get_running_loop().call_soon(self._pump_followers)

    def _pump_followers(self) -> None:
        self._followers_wait = False
        feed = self._feed
        if feed is None or self._task is None:
            return
        try:
            self._followers.pump(feed)
        except Exception:  # the journal and the events must not be affected
            self._followers.clear()
            logger.exception("The readers of the journal are not answered")

    def _begin_follow(self, client: bytes, request: FollowRequest) -> None:
        if self._feed is None:
            self._send(client, refusal(request.id_frame, "guilds_off", NO_JOURNAL))
        elif not self._followers.begin(client, request):
            self._send(client, refusal(request.id_frame, "busy", "too many readers of the journal", 1.0))

    def _begin_guilds(self, client: bytes, request: GuildsRequest) -> None:
        feed, id_frame, wanted = self._feed, request.id_frame, request.shard
        if feed is None:
            self._send(client, refusal(id_frame, "guilds_off", NO_JOURNAL))
            return
        ids, count = feed.layout or ((), 0)
        if not count:
            self._send(client, refusal(id_frame, "not_ready", "the number of shards is not known yet", 1.0))
        elif wanted is None:
            self._send(client, answer(id_frame, {"shards": [(shard_id, count) for shard_id in ids]}))
        elif wanted not in ids:
            self._send(client, refusal(id_frame, "no_such_shard", f"shard {wanted} of {count} does not run here"))
        elif (snapshot := feed.snapshot(wanted)) is None:
            self._send(client, refusal(id_frame, "not_ready", f"the guilds of shard {wanted} are not known yet", 1.0))
        elif not self._replays.begin(client, Stream(id_frame, GuildsReader((wanted, count), snapshot))):
            self._send(client, refusal(id_frame, "busy", "too many replays at a time", 1.0))

    # ---------------------------------------------------------------- other answers

    def _send_ready(self, client: bytes, request: ReadyRequest) -> None:
        ready = None if self._bus_api is None else self._bus_api.last_ready(request.shard)
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

    def _take_report(self, client: bytes, request: FacadeReportRequest) -> None:
        if self._commands_off or self._bus_api is None:
            self._refuse_commands(client, request)
            return
        try:
            self._bus_api.take_report(request.door, request.part, request.parts, bytes(request.status))
        except ValueError as error:
            raise BadRequest(str(error), id=request.id_frame) from error
        self._send(client, answer(request.id_frame, {}))

    def _refuse_commands(self, client: bytes, request: Request) -> None:
        text = self._commands_off or "this bus is not connected to a control plane"
        self._send(client, refusal(request.id_frame, "commands_off", text))

    def _begin_command(self, client: bytes, request: CommandRequest) -> None:
        if self._commands is None:
            self._refuse_commands(client, request)
        elif self._commands.begin(client, request, partial(self._send, client)):
            self.commands += 1

    def _send(self, client: bytes, frames: Frames) -> bool:
        """Send ``frames`` if the client is still connected and has room; return whether they were sent."""
        try:
            self._socket.send_multipart((client, *frames), zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in {zmq.EAGAIN, zmq.EHOSTUNREACH}:
                raise
            self._unsent += 1
            return False
        finally:
            if int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:  # sending may have cleared the signal of a request
                self._woken.set()
        return True
