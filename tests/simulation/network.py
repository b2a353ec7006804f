"""The network between a control plane and the gateway, in memory: a `Transport` whose other end is a `Server`.

Frames take their time and keep their order; a link can fall silent, be reset, or be full. It knows nothing of sessions: what
passes is told to the `Watch`, which judges.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from discorder.errors import Closed, ConnectFailed
from discorder.transport.protocol import Deliver
from tests.simulation.faults import Kind, Weather
from tests.simulation.loop import Process, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.session import Session

MAIN_HOST = "gateway.sim"
RESUME_HOST = "resume.sim"


class Stage(Enum):
    """Of a link."""

    NEW = "new"
    DIALLING = "dialling"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Server(Protocol):
    """What a link reaches."""

    def accepted(self, link: Link) -> None: ...

    def received(self, link: Link, frame: bytes) -> None: ...

    def ended(self, link: Link, code: int | None) -> None:
        """The server's side sees that the client closed with ``code``, or that the connection is lost."""


class Watch(Protocol):
    """Is called for the client's side of every link, when it happens."""

    def dialling(self, link: Link, host: str) -> None: ...

    def opened(self, link: Link) -> None: ...

    def sent(self, link: Link, frame: bytes) -> None: ...

    def handed(self, link: Link, batch: list[bytes]) -> None: ...

    def closing(self, link: Link) -> None: ...

    def closed(self, link: Link, code: int | None) -> None: ...


class Network:
    """Makes links and holds what all of them share."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, weather: Weather, server: Server, watch: Watch) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = weather
        self.server = server
        self.watch = watch
        self.latency = 0.04
        self.batch = 1  # the most messages that one read brings
        self.outside = loop.outside
        self.links: dict[tuple[Process, int], Link] = {}  # the last of each

    def dial(self, process: Process, shard: int) -> Link:
        """Return a transport that is not dialled yet."""
        link = self.links[process, shard] = Link(self, process, shard)
        return link

    def delay(self, shard: int) -> float:
        """Return the seconds that the next frame takes."""
        seconds = self.latency * (1.0 + self.rng.random())
        fault = self.weather.fault(Kind.DELAY, shard, self.loop.time())
        return seconds if fault is None else seconds + self.rng.random() * (0.3, 2.0, 7.0)[fault.variant]

    def killed(self, process: Process) -> None:
        """Close the sockets of a killed process, as its kernel does."""
        for (owner, _), link in list(self.links.items()):
            if owner is process:
                link.drop("killed")
                del self.links[owner, link.shard]


class Link:
    """One connection. The upper half is the client's `Transport`, the lower half is what the server and the world do."""

    def __init__(self, network: Network, process: Process, shard: int) -> None:
        self.process = process
        self.shard = shard
        self.host = ""
        self.stage = Stage.NEW
        self.silent = False  # half-open: nothing passes
        self.full = False  # writes hang
        self.server_side_over = False
        self.session: Session | None = None  # whose events pass here
        self._network = network
        self._client: contextvars.Context | None = None  # that of the process which has connected
        self._taker: Deliver | None = None
        self._reader: asyncio.Task[None] | None = None  # waits for the end
        self._inbox: list[bytes] = []
        self._next_turn: asyncio.Handle | None = None  # hands over what is in the inbox
        self._end: Closed | ConnectFailed | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._down_free = 0.0
        self._up_free = 0.0
        self._close_answered = False

    # ---------------------------------------------------------------- the client's side: Transport

    @property
    def closed(self) -> bool:
        return self.stage in {Stage.NEW, Stage.DIALLING, Stage.CLOSED}

    async def connect(self, url: str, deliver: Deliver) -> None:
        self.host = RESUME_HOST if RESUME_HOST in url else MAIN_HOST
        self.stage = Stage.DIALLING
        self._network.watch.dialling(self, self.host)
        try:
            self._later(self._network.delay(self.shard) * 2, self._answer_dial)
            while self.stage is Stage.DIALLING:
                if self._end is not None:
                    raise self._end if isinstance(self._end, ConnectFailed) else ConnectFailed(str(self._end))
                await self._woken()
        finally:
            if self.stage is Stage.DIALLING:
                self._over(None)
        if self.stage is Stage.CLOSED:  # aborted meanwhile
            msg = "the dial was given up"
            raise ConnectFailed(msg)
        self._network.watch.opened(self)
        self._client, self._taker = contextvars.copy_context(), deliver

    async def wait_closed(self) -> None:
        self._reader = asyncio.current_task()
        self._hand_over_soon()
        while self.stage is Stage.OPEN and (self._inbox or self._end is None):
            await self._woken()
        end = self._end or Closed(None, "us", "not connected")
        self._over(end.code if isinstance(end, Closed) else None)
        raise end if isinstance(end, Closed) else Closed(None, "network")

    def _hand_over_soon(self) -> None:
        if self._taker is not None and self._reader is not None and self._next_turn is None and self._inbox:
            self._next_turn = self._network.loop.call_soon(self._hand_over, self._taker, context=self._client)

    def _hand_over(self, deliver: Deliver) -> None:
        """Deliver what one read brings. A client whose reader was cancelled takes nothing, so the watch is not told of it."""
        self._next_turn = None
        if self.stage is Stage.OPEN and self._reader is not None and not self._reader.cancelling():
            most = self._network.batch
            batch, self._inbox = self._inbox[:most], self._inbox[most:]
            self._network.watch.handed(self, batch)
            deliver(batch)
            self._hand_over_soon()
        self._wake()

    async def send(self, data: bytes) -> None:
        self._check_open()
        while self.full:
            await self._woken()
            self._check_open()
        self._network.watch.sent(self, data)
        self._up(lambda: self._network.server.received(self, data))

    async def close(self, code: int) -> None:
        if self.stage is not Stage.OPEN:
            return
        if self._end is not None:
            self._over(code)
            return
        self.stage = Stage.CLOSING
        self._network.watch.closing(self)
        self._up(lambda: self._close_arrives(code))
        self._wake()
        while not self._close_answered and self.stage is Stage.CLOSING:
            await self._woken()
        self._over(code)

    def abort(self) -> None:
        if self.stage in {Stage.OPEN, Stage.CLOSING}:
            self._up(lambda: self._server_ends(None))
        self._end = self._end or Closed(None, "us", "aborted")
        self._over(None)

    def _check_open(self) -> None:
        if self._end is not None or self.stage is not Stage.OPEN:
            raise self._end if isinstance(self._end, Closed) else Closed(None, "us", "not connected")

    def _over(self, code: int | None) -> None:
        if self.stage in {Stage.DIALLING, Stage.OPEN, Stage.CLOSING}:
            self._network.watch.closed(self, code)
        self.stage = Stage.CLOSED
        self._wake()

    async def _woken(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---------------------------------------------------------------- the server's side

    def push(self, frame: bytes) -> None:
        """Send one message to the client."""
        if not self.server_side_over:
            self._down(lambda: self._deliver(frame))

    def server_closes(self, code: int | None) -> None:
        """Send a close frame behind the queued messages; without a code end the connection without one."""
        if self.server_side_over:
            return
        self.server_side_over = True
        end = Closed(code, "network" if code is None else "peer")
        self._down(lambda: self._finish(end))

    def drop(self, why: str) -> None:
        """Drop the connection at once, for both sides, with what is under way."""
        if self.stage in {Stage.CLOSED, Stage.NEW}:
            return
        self._finish(Closed(None, "network", why))
        self._down_free = float("inf")
        self._later(self._network.latency, lambda: self._server_ends(None))

    def stop_passing(self) -> None:
        """Make it half-open: nothing arrives at either end. The server notices by its own timers."""
        self.silent = True
        self._later(60.0, lambda: self._server_ends(None))

    def unblock(self) -> None:
        """Send written bytes again."""
        self.full = False
        self._wake()

    # ---------------------------------------------------------------- in between

    def _answer_dial(self) -> None:
        weather, now = self._network.weather, self._network.loop.time()
        if self.stage is not Stage.DIALLING:
            return
        refusing = Kind.REFUSE_RESUME if self.host == RESUME_HOST else Kind.REFUSE_MAIN
        if weather.fault(refusing, self.shard, now):
            self._fail_dial(f"{self.host} answers 503")
        elif weather.fault(Kind.DIAL_HANGS, self.shard, now) is None:
            self.stage = Stage.OPEN
            self._wake()
            if weather.fault(Kind.DIAL_RESET, self.shard, now):
                self._finish(Closed(None, "network", "reset"))
                return
            self._network.server.accepted(self)

    def _fail_dial(self, why: str) -> None:
        self._end = ConnectFailed(why)
        self._wake()

    def _deliver(self, frame: bytes) -> None:
        if self._end is None and not self.silent and self.stage in {Stage.OPEN, Stage.DIALLING}:
            self._inbox.append(frame)
            self._hand_over_soon()

    def _finish(self, end: Closed) -> None:
        if self._end is None and not self.silent:
            self._end = end
            self._close_answered = True
            self._wake()

    def _close_arrives(self, code: int) -> None:
        self._server_ends(code)
        if self._network.weather.fault(Kind.CLOSE_UNANSWERED, self.shard, self._network.loop.time()) is None:
            self._down(self._answer_close)

    def _answer_close(self) -> None:
        if not self.silent:
            self._close_answered = True
            self._wake()

    def _server_ends(self, code: int | None) -> None:
        self.server_side_over = True
        self._network.server.ended(self, code)

    def _up(self, act: Callable[[], None]) -> None:
        loop = self._network.loop
        self._up_free = max(self._up_free, loop.time() + self._network.delay(self.shard))
        self._at(self._up_free, lambda: None if self.silent else act())

    def _down(self, act: Callable[[], None]) -> None:
        loop = self._network.loop
        self._down_free = max(self._down_free, loop.time() + self._network.delay(self.shard))
        if self._down_free < float("inf"):
            self._at(self._down_free, act)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self._network.loop.time() + seconds, act)

    def _at(self, moment: float, act: Callable[[], None]) -> None:
        self._network.loop.call_at(moment, act, context=self._network.outside)
