"""The simulator as its users see it: start, look at, break, heal. What it does is done by the modules beside it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

import msgspec

from discorder.clock import Clock, SystemClock
from discorder.simulator.client import Client
from discorder.simulator.compression import WireFrame
from discorder.simulator.faults import HOSTS
from discorder.simulator.gateway import Gateway
from discorder.simulator.options import SimulatorOptions
from discorder.simulator.pacer import pace
from discorder.simulator.payloads import Payload, replay_order
from discorder.simulator.records import Close, Frame, Records, RestRequest, SentDocument, Violation
from discorder.simulator.rest import Rest
from discorder.simulator.server import LOOPBACK, Server
from discorder.simulator.session import Session, encode_op
from discorder.simulator.stream import LiveStream, Snowflakes
from discorder.simulator.world import World
from discorder.wire import Op


class Simulator:
    """``async with Simulator(guilds=3, rate=50) as sim:`` - a gateway on loopback, until the block ends.

    Keywords are the fields of `SimulatorOptions`, which may be given instead, or both (the keywords win).

    Every verb may be awaited at any time; it acts on what is connected now and returns once that is under way. Its
    ``shard`` is a shard id; None means all, connections that have not identified included. Verbs reach every session,
    whatever its intents. ``refuse_upgrades``, ``refuse_resumes``, ``swallow_acks``, ``withhold_hello`` and
    ``ignore_openings`` hold, for later connections too, until `heal`; `stall` holds for the sockets that are open when it is
    called.
    """

    def __init__(
        self, options: SimulatorOptions | None = None, /, *, clock: Clock | None = None, **changes: Any
    ) -> None:
        """Raises ValueError for a value out of range, TypeError for a keyword that is no option."""
        self.options = dataclasses.replace(options or SimulatorOptions(), **changes)
        self._clock = clock or SystemClock()
        self._records = Records(self.options.history, self.options.keep_documents)
        self._world = World(self.options.guilds, self.options.members)
        self._gateway = Gateway(self.options, self._clock, self._world, self._records)
        self._stream = LiveStream(self._world, self._clock, Snowflakes(self._clock), self.options.seed)
        self._server = Server(self._gateway, Rest(self._gateway, self._stream, lambda: self._handed_out))
        self._ports: tuple[int, int] | None = None
        self._handed_out = ""
        self._pacer: asyncio.Task[None] | None = None

    # life

    async def start(self) -> None:
        """Listen, and let the guilds live. Raises OSError for a port that is taken, RuntimeError if it runs already."""
        if self._ports is not None:
            msg = "this simulator runs already"
            raise RuntimeError(msg)
        self._ports = await self._server.start(self.options.port, self.options.resume_port)
        self.advertise(self.gateway_url, self.resume_url)
        await self.set_rate(self.options.rate)

    async def stop(self) -> None:
        """Cut every connection, end every session, close the ports; no task is left. Idempotent."""
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
        """The main host's websocket URL, as ``GET /gateway/bot`` hands it out."""
        return f"ws://{LOOPBACK}:{self._bound()[0]}"

    @property
    def resume_url(self) -> str:
        """The resume host's websocket URL, as READY hands it out."""
        return f"ws://{LOOPBACK}:{self._bound()[1]}"

    @property
    def token(self) -> str:
        return self.options.token

    def advertise(self, gateway_url: str, resume_url: str) -> None:
        """Hand out these websocket URLs from now on, those of a proxy perhaps, in place of `gateway_url` and `resume_url`."""
        self._handed_out = gateway_url
        self._gateway.resume_url = resume_url

    # what was seen; each list is the live one, oldest entry first

    @property
    def connects(self) -> int:
        """Upgrades that were accepted."""
        return self._records.connects

    @property
    def refused_upgrades(self) -> int:
        return self._records.refused_upgrades

    @property
    def identifies(self) -> int:
        """IDENTIFYs received, refused ones included."""
        return self._records.identifies

    @property
    def resumes(self) -> int:
        """RESUMEs received, refused ones included; `resumed` counts those that were answered by RESUMED."""
        return self._records.resumes

    @property
    def resumed(self) -> int:
        return self._records.resumed

    @property
    def frames_received(self) -> int:
        """Client frames, heartbeats and garbage included."""
        return self._records.frames_received

    @property
    def remaining(self) -> int:
        """IDENTIFYs left in the 24 h window, as ``GET /gateway/bot`` says."""
        return self._gateway.gate.remaining(self._clock.monotonic())

    @property
    def sent(self) -> list[tuple[str, int, str]]:
        """(session id, seq, type) of every dispatch that a session was given, with a socket or without."""
        return self._records.sent

    @property
    def sent_documents(self) -> list[SentDocument]:
        """The same with the bytes of ``d``; filled under ``keep_documents`` only."""
        return self._records.sent_documents

    @property
    def received(self) -> list[Frame]:
        """Decoded client frames; the token reads ``"<token>"``."""
        return self._records.received

    @property
    def closes(self) -> list[Close]:
        """Connections that ended, and how."""
        return self._records.closes

    @property
    def violations(self) -> list[Violation]:
        """Limits that a client overstepped."""
        return self._records.violations

    @property
    def rest_requests(self) -> list[RestRequest]:
        return self._records.rest_requests

    @property
    def sessions(self) -> list[str]:
        """Ids of the sessions that live, with a socket or without."""
        return list(self._gateway.sessions)

    @property
    def open_connections(self) -> int:
        """Sockets that are open, stalled ones included."""
        return len(self._gateway.open_clients())

    @property
    def connected_shards(self) -> list[int]:
        """Ids of the shards whose session has an open socket, each once."""
        return sorted({client.shard for client in self._gateway.open_clients() if client.shard is not None})

    @property
    def guild_ids(self) -> list[int]:
        return [self._world.guild_id(index) for index in range(self._world.count)]

    async def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:
        """Return once ``predicate()``, asked after each change of the above, is true.

        Raises TimeoutError after ``timeout`` seconds of real time, whatever the clock.
        """
        async with asyncio.timeout(timeout):
            await self._records.wait_for(predicate)

    # verbs that dispatch

    async def set_rate(self, rate: float) -> None:
        """Let ``rate`` events per second happen in the guilds from now on; 0 = they fall quiet. Raises ValueError below 0."""
        if not rate >= 0:
            msg = f"rate is {rate!r}; allowed: at least 0"
            raise ValueError(msg)
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, return_exceptions=True)
            self._pacer = None
        if rate and self.options.guilds:
            self._pacer = asyncio.create_task(pace(self._clock, rate, self._happen), name="simulator pacer")

    async def dispatch(self, type: str, data: Any, *, shard: int | None = None) -> None:  # noqa: A002 - the issue's name
        """Dispatch ``data``, any JSON value, as the ``d`` of an event."""
        await self.dispatch_raw(type, msgspec.json.encode(data), shard=shard)

    async def dispatch_raw(self, type: str, data: bytes, *, shard: int | None = None) -> None:  # noqa: A002 - as above
        """Dispatch bytes that are the JSON of ``d``, untouched. Raises ValueError for an empty type."""
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
        """Send any bytes as one gateway message, compressed like every other: garbage JSON, invalid UTF-8, a bomb."""
        for client in self._clients(shard):
            client.connection.send(payload)
        await asyncio.sleep(0)

    async def send_binary(self, data: bytes, *, shard: int | None = None) -> None:
        """Send bytes as one BINARY websocket frame, past the compression: a broken stream."""
        for client in self._clients(shard):
            client.connection.send_wire(WireFrame(data, binary=True))
        await asyncio.sleep(0)

    async def reconnect(self, *, shard: int | None = None) -> None:
        """Op 7."""
        await self.send_op(Op.RECONNECT, shard=shard)

    async def invalidate(self, resumable: bool = False, *, shard: int | None = None) -> None:
        """Op 9; the session is forgotten, or kept for a RESUME."""
        for client in self._clients(shard):
            self._gateway.invalidate(client, resumable=resumable)
        await asyncio.sleep(0)

    async def forget_sessions(self, *, shard: int | None = None) -> None:
        """End sessions without a word, as Discord does after a while: a RESUME is answered by op 9 false."""
        for session in self._sessions(shard):
            self._gateway.end_session(session)

    # verbs that break and heal

    async def close(self, code: int, reason: str = "", *, shard: int | None = None) -> None:
        """Close with a code that may go on the wire; 4007 and 4009 end the session too. Raises ValueError for others."""
        if type(code) is not int or not (1000 <= code <= 4999) or code in {1004, 1005, 1006, 1015}:
            msg = f"{code!r} is no code for a close frame; allowed: 1000 to 4999 but 1004, 1005, 1006, 1015"
            raise ValueError(msg)
        for client in self._clients(shard):
            client.connection.close(code, reason)
        await asyncio.sleep(0)

    async def drop(self, *, shard: int | None = None) -> None:
        """Reset the TCP connection, without a close frame."""
        for client in self._clients(shard):
            client.connection.abort()
        await asyncio.sleep(0)

    async def stall(self, *, shard: int | None = None) -> None:
        """The open sockets stay open, but nothing is sent, read or answered on them until `heal`."""
        for client in self._clients(shard):
            client.connection.stall()

    async def swallow_acks(self, *, shard: int | None = None) -> None:
        """Heartbeats are read and not acknowledged."""
        self._gateway.faults.silent_shards.add(_check_shard(shard))

    async def refuse_upgrades(self, status: int = 503, host: str | None = None, *, shard: int | None = None) -> None:
        """Answer upgrades with an HTTP status, on ``"main"``, on ``"resume"``, or on both (None); of every shard."""
        _check_no_shard(shard)
        if type(status) is not int or not 400 <= status <= 599:
            msg = f"status is {status!r}; allowed: 400 to 599"
            raise ValueError(msg)
        if host is not None and host not in HOSTS:
            msg = f"host is {host!r}; allowed: 'main', 'resume', None for both"
            raise ValueError(msg)
        self._gateway.faults.refused |= {name: status for name in HOSTS if host in {None, name}}

    async def withhold_hello(self, *, shard: int | None = None) -> None:
        """Accept upgrades, of every shard, and stay silent; `heal` sends the HELLOs that are owed."""
        _check_no_shard(shard)
        self._gateway.faults.withhold_hello = True

    async def ignore_openings(self, *, shard: int | None = None) -> None:
        """Read IDENTIFYs and RESUMEs, of every shard, and never answer those that come until `heal`."""
        _check_no_shard(shard)
        self._gateway.faults.ignore_openings = True

    async def refuse_resumes(self, code: int = 4000, *, shard: int | None = None) -> None:
        """End the connection of every RESUME so that the client sees ``code``; 1005 and 1006 are allowed here."""
        _check_no_shard(shard)
        if type(code) is not int or not (1000 <= code <= 4999) or code in {1004, 1015}:
            msg = f"{code!r} is no code that a client may see; allowed: 1000 to 4999 but 1004, 1015"
            raise ValueError(msg)
        self._gateway.faults.resume_close = code

    async def heal(self, *, shard: int | None = None) -> None:
        """Lift every fault; of one shard, what `stall` and `swallow_acks` did to that shard."""
        if _check_shard(shard) is None:
            self._gateway.faults.clear()
        self._gateway.faults.silent_shards.discard(shard)
        for client in self._clients(shard):
            client.connection.resume()
            if not self._gateway.faults.withhold_hello:
                self._gateway.greet(client)
        await asyncio.sleep(0)

    # inside

    def _bound(self) -> tuple[int, int]:
        if self._ports is None:
            msg = "this simulator does not run: it has no address"
            raise RuntimeError(msg)
        return self._ports

    def _happen(self) -> None:
        if self._gateway.sessions:
            self._gateway.publish(self._stream.next())

    def _sessions(self, shard: int | None) -> list[Session]:
        wanted = _check_shard(shard)
        return [s for s in self._gateway.sessions.values() if wanted is None or s.shard[0] == wanted]

    def _clients(self, shard: int | None) -> list[Client]:
        return self._gateway.open_clients(_check_shard(shard))

    def _fit(self, payload: Payload, session: Session) -> bytes:
        if payload.type != "READY":
            return payload.data
        guilds = sorted(session.guilds | {0}) if payload.name == "READY" else []
        return self._gateway.ready(session, guilds, payload.name)


def _check_shard(shard: int | None) -> int | None:
    if shard is not None and (type(shard) is not int or shard < 0):
        msg = f"shard is {shard!r}; allowed: a shard id, or None for all"
        raise ValueError(msg)
    return shard


def _check_no_shard(shard: int | None) -> None:
    if shard is not None:
        msg = f"shard is {shard!r}; allowed: None, for nobody knows the shard of a connection before IDENTIFY"
        raise ValueError(msg)
