"""Keep the clients and sessions, and distribute events to sessions.

It parses no client frame (`discorder.simulator.dispatcher`) and opens no socket (`discorder.simulator.server`).
"""

from __future__ import annotations

import secrets
from collections import deque

import msgspec

from discorder import event_intents as intent
from discorder.clock import Clock
from discorder.simulator.client import PRESENCE_LIMIT, PRESENCE_WINDOW, HeartbeatWatch, SimulatedClient
from discorder.simulator.connection import Ending, SimulatedConnection
from discorder.simulator.faults import Faults
from discorder.simulator.limits import IdentifyLimit, SlidingLog, Spacing
from discorder.simulator.options import SimulatorOptions
from discorder.simulator.records import Close, Records, ViolationKind
from discorder.simulator.session import SimulatedSession, encode_op
from discorder.simulator.stream import WorldEvent
from discorder.simulator.world import World
from discorder.wire import Op

SESSION_ENDING_CODES = frozenset({1000, 1001})  # from a client (docs/protocol.md#closing-a-connection)
SESSION_ENDING_SERVER_CODES = frozenset({4007, 4009})  # RESUME gets op 9 false (docs/protocol.md#close-codes)
TRACE = ["gateway-sim-0001"]


class SimulatedGateway:
    """One bot's sessions and connections. ``resume_url`` is set once the second port is known."""

    def __init__(self, options: SimulatorOptions, clock: Clock, world: World, records: Records) -> None:
        self.options = options
        self.clock = clock
        self.world = world
        self.records = records
        self.faults = Faults()
        self.resume_url = ""
        self.token_valid = True
        self.sessions: dict[str, SimulatedSession] = {}
        self.clients: dict[SimulatedConnection, SimulatedClient] = {}
        self.gate = IdentifyLimit(
            total=options.session_start_total,
            remaining=options.session_start_remaining,
            max_concurrency=options.max_concurrency,
            spacing=options.identify_spacing,
            count_rejected=options.count_rejected_identifies,
        )
        self.member_requests = Spacing(options.member_request_spacing)
        self._attached: dict[SimulatedSession, SimulatedClient] = {}

    # connections

    def connected(self, connection: SimulatedConnection, *, version: int, may_compress: bool) -> SimulatedClient:
        """Register a new connection and send HELLO, unless HELLO is withheld."""
        patience = self.options.missed_heartbeats * self.options.heartbeat_interval_ms / 1000
        client = SimulatedClient(
            connection,
            version,
            may_compress,
            watch=HeartbeatWatch(self.clock, patience, lambda: self._heartbeat_missed(client)),
            frames=SlidingLog(self.options.send_limit, self.options.send_window),
            presences=SlidingLog(PRESENCE_LIMIT, PRESENCE_WINDOW),
        )
        self.clients[connection] = client
        self.records.connects += 1
        self.records.changed()
        if not self.faults.withhold_hello:
            self.greet(client)
        return client

    def greet(self, client: SimulatedClient) -> None:
        """Send HELLO, once; from now on heartbeats are expected (docs/protocol.md#heartbeats)."""
        if client.greeted:
            return
        client.greeted = True
        hello = {"heartbeat_interval": self.options.heartbeat_interval_ms, "_trace": TRACE}
        client.connection.send(encode_op(Op.HELLO, msgspec.json.encode(hello)))
        client.watch.start()

    def closing(self, connection: SimulatedConnection, ending: Ending) -> None:
        """End or detach the session of a connection that is closing (docs/protocol.md#closing-a-connection)."""
        client = self.clients[connection]
        client.watch.stop()
        session = client.session
        if session is None:
            return
        self.detach(client)
        ended_by_client = ending.by == "client" and ending.code in SESSION_ENDING_CODES
        if ended_by_client or (ending.by == "server" and ending.code in SESSION_ENDING_SERVER_CODES):
            self.end_session(session)

    def closed(self, client: SimulatedClient) -> None:
        """Forget a connection whose socket is closed."""
        del self.clients[client.connection]
        session, ending = client.last_session, client.connection.ending
        if ending is not None:
            session_id = None if session is None else session.id
            self.records.add(
                self.records.closes, Close(session_id, client.shard, ending.code, ending.by, ending.answer)
            )

    def open_clients(self, shard: int | None = None) -> list[SimulatedClient]:
        """Return the clients whose connection is open: of one shard, or all."""
        return [
            client
            for client in self.clients.values()
            if client.connection.ending is None and (shard is None or client.shard == shard)
        ]

    # sessions

    def start_session(
        self, client: SimulatedClient, *, shard: tuple[int, int], sharded: bool, intents: int, large_threshold: int
    ) -> SimulatedSession:
        """Start a session on this connection: send READY, then a GUILD_CREATE per guild (docs/protocol.md#ready)."""
        session = SimulatedSession(
            id=secrets.token_hex(16),
            shard=shard,
            sharded=sharded,
            intents=intents,
            large_threshold=large_threshold,
            version=client.version,
            replay=deque(maxlen=self.options.replay_buffer),
            guilds=frozenset(self.world.guilds_of(*shard)),
        )
        self.sessions[session.id] = session
        self.attach(client, session)
        self.deliver(session, "READY", self.ready(session, sorted(session.guilds)))
        if intents & intent.GUILDS:
            for guild in sorted(session.guilds):
                data = self.world.guild_create(guild, intents=intents, large_threshold=large_threshold)
                self.deliver(session, "GUILD_CREATE", data)
        return session

    def ready(self, session: SimulatedSession, guilds: list[int], sample: str = "READY") -> bytes:
        """Return ``d`` of a READY for this session."""
        return self.world.ready(
            session_id=session.id,
            shard=session.shard if session.sharded else None,
            guilds=guilds,
            version=session.version,
            resume_url=self.resume_url,
            sample=sample,
        )

    def attach(self, client: SimulatedClient, session: SimulatedSession) -> None:
        """Bind a session to a connection, and take it from the one that has it."""
        previous = self._attached.get(session)
        if previous is not None:
            self.detach(previous)
            if not previous.connection.stalled:
                previous.connection.close(4000, "session resumed on another connection")
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None
        client.session = client.last_session = session
        self._attached[session] = client

    def detach(self, client: SimulatedClient) -> None:
        """Separate a session from its connection: it is kept for ``session_ttl`` seconds and goes on collecting events."""
        session = client.session
        if session is not None:
            client.session = None
            del self._attached[session]
            session.expiry = self.clock.call_later(self.options.session_ttl, lambda: self.end_session(session))

    def end_session(self, session: SimulatedSession) -> None:
        """Forget a session; a connection that has it stays open without one."""
        client = self._attached.get(session)
        if client is not None:
            self.detach(client)
        if session.expiry is not None:
            session.expiry.cancel()
        self.sessions.pop(session.id, None)
        self.records.changed()

    def invalidate(self, client: SimulatedClient, *, resumable: bool) -> None:
        """Send op 9 (docs/protocol.md#invalid-session); the connection stays usable for RESUME or IDENTIFY."""
        session = client.session
        if session is not None:
            self.detach(client)
            if not resumable:
                self.end_session(session)
        client.connection.send(encode_op(Op.INVALID_SESSION, b"true" if resumable else b"false"))

    def reset_token(self) -> None:
        """End every session and the token, as Discord does after one IDENTIFY too many (docs/protocol.md#identify)."""
        self.token_valid = False
        for session in list(self.sessions.values()):
            self.end_session(session)
        for client in self.open_clients():
            client.connection.close(4004, "the token was reset: too many IDENTIFYs")

    def authenticates(self, token: object) -> bool:
        """Return whether a token, with or without its ``Bot `` prefix, is the bot's."""
        return self.token_valid and isinstance(token, str) and token.removeprefix("Bot ") == self.options.token

    # events

    def publish(self, event: WorldEvent) -> None:
        """Deliver an event of the world to every session that may see it, with a socket or without."""
        for session in self.sessions.values():
            if session.sees(event.type, event.guild):
                self.deliver(session, event.type, event.visible_data(session.intents))

    def deliver(self, session: SimulatedSession, event_type: str, data: bytes) -> None:
        """Send one dispatch to a session, whatever its intents, with ``data`` unchanged."""
        frame = session.append(event_type, data)
        client = self._attached.get(session)
        if client is not None:
            client.connection.send(frame)
        self.records.dispatched(session.id, session.seq, event_type, data)

    def _heartbeat_missed(self, client: SimulatedClient) -> None:
        if client.connection.stalled:
            client.watch.start()
            return
        self.records.breach(ViolationKind.MISSED_HEARTBEAT, client.shard, "no heartbeat")
        client.connection.close(4009, "missed heartbeats")
