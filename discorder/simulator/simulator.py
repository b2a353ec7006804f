"""Start a simulator, send events and other frames: its public API. Faults are in `Breakable`, records in `Observed`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

import msgspec

from discorder.clock import Clock, SystemClock
from discorder.simulator.breakable import Breakable, check_shard
from discorder.simulator.compression import WireFrame
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.options import SimulatorOptions
from discorder.simulator.payloads import Payload, replay_order
from discorder.simulator.records import Records
from discorder.simulator.rest import Rest
from discorder.simulator.server import LOOPBACK, Server
from discorder.simulator.session import SimulatedSession, encode_op
from discorder.simulator.stream import LiveStream, Snowflakes, pace
from discorder.simulator.world import World
from discorder.wire import Op


class Simulator(Breakable):
    """``async with Simulator(guilds=3, rate=50) as sim:`` - a gateway on loopback, until the block ends.

    Keywords are the fields of `SimulatorOptions`, which may be given instead, or both (the keywords win).

    Every verb may be awaited at any time; it acts on what is connected now and returns once that is under way. Its
    ``shard`` is a shard id; None means all, connections that have not identified included. Verbs reach every session,
    whatever its intents. ``block_address``, ``refuse_upgrades``, ``refuse_resumes``, ``swallow_acks``, ``withhold_hello`` and
    ``ignore_openings`` hold, for later connections too, until `heal`; `stall` holds for the sockets that are open when it is
    called.
    """

    def __init__(
        self, options: SimulatorOptions | None = None, /, *, clock: Clock | None = None, **changes: Any
    ) -> None:
        """Raise ValueError for a value out of range, TypeError for a keyword that is no option."""
        self.options = dataclasses.replace(options or SimulatorOptions(), **changes)
        clock = clock or SystemClock()
        world = World(self.options.guilds, self.options.members, self.options.approved_intents)
        records = Records(self.options.history, self.options.keep_documents)
        super().__init__(SimulatedGateway(self.options, clock, world, records), records, world, clock)
        self._stream = LiveStream(self._world, self._clock, Snowflakes(self._clock), self.options.seed)
        self._server = Server(self._gateway, Rest(self._gateway, self._stream, lambda: self._handed_out))
        self._ports: tuple[int, int] | None = None
        self._handed_out = ""
        self._pacer: asyncio.Task[None] | None = None

    # life

    async def start(self) -> None:
        """Listen, and start the guilds' events. Raises OSError for a port in use, RuntimeError if it runs already."""
        if self._ports is not None:
            msg = "this simulator runs already"
            raise RuntimeError(msg)
        self._ports = await self._server.start(self.options.port, self.options.resume_port)
        self.advertise(self.gateway_url, self.resume_url)
        await self.set_rate(self.options.rate)

    async def stop(self) -> None:
        """Cut every connection, end every session and task, close the ports. Idempotent."""
        await self.set_rate(0.0)
        await self._server.stop()
        for session in list(self._gateway.sessions.values()):
            self._gateway.end_session(session)
        self._ports = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        where = "stopped" if self._ports is None else self.gateway_url
        return f"<Simulator {where} sessions={len(self._gateway.sessions)} connects={self.connects}>"

    # addresses

    @property
    def api_url(self) -> str:
        """Base URL of REST, ending in ``/api/v10``."""
        return f"http://{LOOPBACK}:{self._bound()[0]}/api/v10"

    @property
    def gateway_url(self) -> str:
        """The main host's websocket URL, as in ``GET /gateway/bot``."""
        return f"ws://{LOOPBACK}:{self._bound()[0]}"

    @property
    def resume_url(self) -> str:
        """The resume host's websocket URL, as in READY."""
        return f"ws://{LOOPBACK}:{self._bound()[1]}"

    @property
    def token(self) -> str:
        return self.options.token

    def advertise(self, gateway_url: str, resume_url: str) -> None:
        """Return these websocket URLs from now on, such as those of a proxy, instead of `gateway_url` and `resume_url`."""
        self._handed_out = gateway_url
        self._gateway.resume_url = resume_url

    # verbs that dispatch

    async def set_rate(self, rate: float) -> None:
        """Generate ``rate`` events per second in the guilds from now on; 0 = none. Raises ValueError below 0."""
        if not rate >= 0:
            msg = f"rate is {rate!r}; allowed: at least 0"
            raise ValueError(msg)
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, return_exceptions=True)
            self._pacer = None
        if rate and self.options.guilds:
            self._pacer = asyncio.create_task(pace(self._clock, rate, self._happen), name="simulator pacer")

    async def dispatch(self, type: str, data: Any, *, shard: int | None = None) -> None:  # noqa: A002  # the name in the public API
        """Dispatch ``data``, any JSON value, as the ``d`` of an event."""
        await self.dispatch_raw(type, msgspec.json.encode(data), shard=shard)

    async def dispatch_raw(self, type: str, data: bytes, *, shard: int | None = None) -> None:  # noqa: A002  # as above
        """Dispatch bytes as the JSON of ``d``, unchanged. Raises ValueError for an empty type."""
        if not type or not isinstance(type, str):
            msg = f"an event type is a non-empty string, not {type!r}"
            raise ValueError(msg)
        for session in self._sessions(shard):
            self._gateway.deliver(session, type, data)
        await asyncio.sleep(0)

    async def play_all_payloads(self, *, shard: int | None = None, without: Collection[str] = ()) -> None:
        """Dispatch the 135 sample frames in `replay_order`, but for the types in ``without``.

        READYs are fitted to the session; the rest is the files' bytes without their white space.
        """
        for payload in replay_order():
            if payload.type not in without:
                for session in self._sessions(shard):
                    self._gateway.deliver(session, payload.type, self._fit(payload, session))
        await asyncio.sleep(0)

    # verbs that send other frames

    async def send_op(self, op: int, d: Any = None, *, shard: int | None = None) -> None:
        """Send a frame that is not a dispatch. Raises ValueError for op 0, which has a seq: use `dispatch`."""
        if type(op) is not int and not isinstance(op, Op):
            msg = f"an opcode is an integer, not {op!r}"
            raise ValueError(msg)
        if op == Op.DISPATCH:
            msg = "op 0 needs a seq: use dispatch(type, data)"
            raise ValueError(msg)
        await self.send_payload(encode_op(op, msgspec.json.encode(d)), shard=shard)

    async def send_payload(self, payload: bytes, *, shard: int | None = None) -> None:
        """Send any bytes as one gateway message, compressed like the others: garbage JSON, invalid UTF-8, a bomb."""
        for client in self._clients(shard):
            client.connection.send(payload)
        await asyncio.sleep(0)

    async def send_binary(self, data: bytes, *, shard: int | None = None) -> None:
        """Send bytes as one BINARY websocket frame without compression, which breaks a stream."""
        for client in self._clients(shard):
            client.connection.send_wire(WireFrame(data, binary=True))
        await asyncio.sleep(0)

    async def reconnect(self, *, shard: int | None = None) -> None:
        """Send op 7."""
        await self.send_op(Op.RECONNECT, shard=shard)

    async def invalidate(self, resumable: bool = False, *, shard: int | None = None) -> None:
        """Send op 9, and drop the session or keep it for a RESUME."""
        for client in self._clients(shard):
            self._gateway.invalidate(client, resumable=resumable)
        await asyncio.sleep(0)

    async def forget_sessions(self, *, shard: int | None = None) -> None:
        """End sessions without a message, as Discord does after a while: a RESUME then gets op 9 false."""
        for session in self._sessions(shard):
            self._gateway.end_session(session)

    # inside

    def _bound(self) -> tuple[int, int]:
        if self._ports is None:
            msg = "this simulator does not run: it has no address"
            raise RuntimeError(msg)
        return self._ports

    def _happen(self) -> None:
        if self._gateway.sessions:
            self._gateway.publish(self._stream.next())

    def _sessions(self, shard: int | None) -> list[SimulatedSession]:
        wanted = check_shard(shard)
        return [s for s in self._gateway.sessions.values() if wanted is None or s.shard[0] == wanted]

    def _fit(self, payload: Payload, session: SimulatedSession) -> bytes:
        if payload.type != "READY":
            return payload.data
        guilds = sorted(session.guilds | {0}) if payload.name == "READY" else []
        return self._gateway.ready(session, guilds, payload.name)
