"""The gateway in memory: Hello, heartbeats, IDENTIFY and RESUME, sessions with a replay buffer, and the identify budget.

It shares no code with the client but the names of opcodes and the label of a session (`discorder.wire`). It keeps its own record
of what it gave to whom; the `Referee` judges the client's reactions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from discorder.wire import Op
from tests.simulation.faults import CLOSE_CODES, FATAL_CODES, Kind, Weather
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Link
from tests.simulation.plan import DAY, Measures
from tests.simulation.session import Session, new_session

SPACING = 5.0  # seconds between two IDENTIFYs of a bucket (docs/protocol.md#session-start-limit)
PATIENCE = 2.5  # heartbeat intervals without a beat, then the gateway closes
ACK = b'{"op":11,"d":null}'
RESUMED = "RESUMED"
SESSION_ENDING = frozenset({4007, 4009})


class Referee(Protocol):
    """Is called for each action of a client, before the gateway reacts."""

    def identified(self, link: Link, bucket: int, previous: float) -> None: ...

    def resuming(self, link: Link, session: Session | None, seq: int) -> None: ...

    def beat(self, link: Link, seq: int | None) -> None: ...

    def spent(self, link: Link, remaining: int) -> None: ...

    def session_opened(self, session: Session, link: Link) -> None: ...

    def session_ended(self, session: Session) -> None: ...


@dataclass
class Caller:
    """A connection as the gateway sees it."""

    link: Link
    owner: str
    greeted: bool = False
    session: Session | None = None
    last_beat: float = 0.0
    acks: bool = True


class Gateway:
    """One bot's gateway. `publish` gives events to its sessions."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, weather: Weather, measures: Measures) -> None:
        self.loop = loop
        self.measures = measures
        self.sessions: list[Session] = []
        self.by_label: dict[str, Session] = {}
        self.callers: dict[Link, Caller] = {}
        self.remaining = measures.start_total - measures.spent
        self.reset_at = measures.reset_after
        self.refilled_at = float("-inf")
        self.identifies = 0
        self.given = 0  # events
        self.referee: Referee
        self._rng = rng
        self._weather = weather
        self._last_identify: dict[tuple[str, int], float] = {}
        self._alive: list[Session] = []
        self._by_id: dict[str, Session] = {}
        self._outside = loop.outside

    # ---------------------------------------------------------------- the look-up

    def start_limit(self) -> dict[str, int]:
        """``session_start_limit`` of ``GET /gateway/bot``."""
        self._reset_if_due()
        return {
            "total": self.measures.start_total,
            "remaining": max(0, self.remaining),
            "reset_after_ms": int((self.reset_at - self.loop.time()) * 1000),
            "max_concurrency": self.measures.max_concurrency,
        }

    def _reset_if_due(self) -> None:
        while self.loop.time() >= self.reset_at:
            self.remaining, self.refilled_at = self.measures.start_total, self.loop.time()
            self.reset_at += DAY

    # ---------------------------------------------------------------- connections: network.Server

    def accepted(self, link: Link) -> None:
        now, shard = self.loop.time(), link.shard
        caller = self.callers[link] = Caller(link, link.process.name.partition("#")[0], last_beat=now)
        if self._weather.fault(Kind.RECONNECT_FIRST, shard, now):
            link.push(b'{"op":7,"d":null}')
            link.server_closes(4000)
        elif self._weather.fault(Kind.INVALID_FIRST, shard, now):
            link.push(b'{"op":9,"d":false}')
        elif self._weather.fault(Kind.NO_HELLO, shard, now) is None:
            caller.greeted = True
            link.push(b'{"op":10,"d":{"heartbeat_interval":%d}}' % int(self.measures.interval * 1000))
            self._look_after(caller)

    def ended(self, link: Link, code: int | None) -> None:
        caller = self.callers.pop(link, None)
        if caller is not None:
            self._detach(caller)
            if code in {1000, 1001} and caller.session is not None:
                self.end_session(caller.session, f"the client closed with {code}")

    def close(self, link: Link, code: int | None) -> None:
        """Close with ``code``."""
        caller = self.callers.pop(link, None)
        if caller is None:  # not accepted yet, or over
            return
        self._detach(caller)
        if code in SESSION_ENDING:
            self._end_sessions_of(caller, f"closed with {code}")
        link.server_closes(code)

    def _end_sessions_of(self, caller: Caller, why: str) -> None:
        """End the session of a caller, or the one whose RESUME is under way."""
        for session in self.living(caller.link.shard, caller.owner):
            self.end_session(session, why)

    def _look_after(self, caller: Caller) -> None:
        patience = self.measures.interval * PATIENCE
        left = caller.last_beat + patience - self.loop.time()
        if caller.link not in self.callers:
            return
        if left <= 0:
            self.close(caller.link, 4000)
        else:
            self.loop.call_later(left, lambda: self._look_after(caller), context=self._outside)

    def received(self, link: Link, frame: bytes) -> None:
        caller = self.callers.get(link)
        if caller is None:
            return
        message: dict[str, Any] = msgspec.json.decode(frame)
        op, d = message["op"], message["d"]
        if op == Op.HEARTBEAT:
            caller.last_beat = self.loop.time()
            self.referee.beat(link, d)
            if caller.acks:
                link.push(ACK)
        elif op == Op.IDENTIFY:
            self._identify(caller, d)
        elif op == Op.RESUME:
            self._resume(caller, d)

    # ---------------------------------------------------------------- IDENTIFY and RESUME

    def _identify(self, caller: Caller, d: dict[str, Any]) -> None:
        now, link = self.loop.time(), caller.link
        self._reset_if_due()
        shard = (d["shard"][0], d["shard"][1])
        bucket = shard[0] % self.measures.max_concurrency
        self.remaining -= 1
        self.identifies += 1
        self.referee.identified(link, bucket, self._last_identify.get((caller.owner, bucket), float("-inf")))
        self.referee.spent(link, self.remaining)
        self._last_identify[caller.owner, bucket] = now
        refused = self._weather.fault(Kind.IDENTIFY_INVALID, link.shard, now)
        if refused is not None:
            link.push(b'{"op":9,"d":%b}' % (b"true" if refused.variant else b"false"))
        elif self._weather.fault(Kind.READY_NEVER, link.shard, now) is None:
            slow = self._weather.fault(Kind.READY_SLOW, link.shard, now)
            wait = 0.0 if slow is None else self._rng.uniform(10.0, 50.0)
            self.loop.call_later(wait, lambda: self._open(caller, shard), context=self._outside)

    def _open(self, caller: Caller, shard: tuple[int, int]) -> None:
        if caller.link not in self.callers:
            return
        session = new_session(self._rng, caller.owner, shard, self.loop.time())
        self.sessions.append(session)
        self._alive.append(session)
        self._by_id[session.id] = self.by_label[session.label] = session
        self._attach(caller, session)
        self.referee.session_opened(session, caller.link)
        self._give(session, "READY")
        for _ in range(self._rng.randrange(4)):
            self._give(session, "GUILD_CREATE")
        self._flap(caller)

    def _resume(self, caller: Caller, d: dict[str, Any]) -> None:
        now, link, seq = self.loop.time(), caller.link, int(d["seq"])
        session = self._by_id.get(d["session_id"])
        self.referee.resuming(link, session, seq)
        if (fault := self._weather.fault(Kind.RESUME_CLOSED, link.shard, now)) is not None:
            self.close(link, (None, 4000, 1011)[fault.variant])
        elif self._weather.fault(Kind.RESUME_AGAIN, link.shard, now):
            link.push(b'{"op":9,"d":true}')
        elif self._weather.fault(Kind.RESUME_SILENT, link.shard, now):
            pass
        else:
            if session is not None and self._weather.fault(Kind.RESUME_INVALID, link.shard, now):
                self.end_session(session, "op 9 false as the answer to RESUME")
            missed = None if session is None or not session.alive else session.missed_since(seq)
            if session is None or missed is None:
                if session is not None and session.alive:
                    self.end_session(session, f"RESUME asked for {seq + 1}, kept from {session.kept_from}")
                link.push(b'{"op":9,"d":false}')
                return
            self._attach(caller, session)
            for frame in missed:
                link.push(frame)
            self._give(session, RESUMED)
            self._flap(caller)

    def _flap(self, caller: Caller) -> None:
        if self._weather.fault(Kind.FLAPPING, caller.link.shard, self.loop.time()):
            self.loop.call_later(0.2, lambda: self.close(caller.link, 4000), context=self._outside)

    # ---------------------------------------------------------------- sessions

    def _attach(self, caller: Caller, session: Session) -> None:
        if session.link is not None:
            self.close(session.link, 4000)
        if session.expiry is not None:
            session.expiry.cancel()
        caller.session, session.link = session, caller.link
        caller.link.session = session

    def _detach(self, caller: Caller) -> None:
        session = caller.session
        if session is not None and session.link is caller.link:
            session.link = None
            session.expiry = self.loop.call_later(
                self.measures.ttl, lambda: self.end_session(session, "expired"), context=self._outside
            )

    def end_session(self, session: Session, why: str) -> None:
        """End a session; its connection, if there is one, stays open."""
        if session.alive:
            session.end(self.loop.time(), why)
            self.referee.session_ended(session)
            if session.link is not None and (caller := self.callers.get(session.link)) is not None:
                caller.session = session.link = None

    def _give(self, session: Session, kind: str, padding: int = 0) -> None:
        self.given += 1
        frame = session.give(kind, self.loop.time(), self.measures.replay_buffer, padding)
        if session.link is not None:
            session.link.push(frame)

    def publish(self, shard: int, kind: str, padding: int = 0) -> None:
        """Send an event to every live session of ``shard``, with ``padding`` additional bytes."""
        for session in self.living(shard):
            self._give(session, kind, padding)

    def living(self, shard: int, owner: str | None = None) -> list[Session]:
        """Return the sessions of ``shard`` that can still be resumed."""
        self._alive = [session for session in self._alive if session.alive]
        return [s for s in self._alive if s.shard[0] == shard and owner in {None, s.owner}]

    # ---------------------------------------------------------------- faults that strike a connection

    def strike(self, link: Link, kind: Kind, variant: int) -> bool:
        """Send op 7, op 9, a close or the like on the connection of ``link``; False where it is not accepted, or over."""
        caller = self.callers.get(link)
        if caller is None:
            return False
        if kind is Kind.RECONNECT:
            link.push(b'{"op":7,"d":null}')
        elif kind is Kind.INVALID_RESUMABLE:
            link.push(b'{"op":9,"d":true}')
            self._detach(caller)
        elif kind is Kind.INVALID:
            self._end_sessions_of(caller, "op 9 false")
            link.push(b'{"op":9,"d":false}')
        elif kind is Kind.NO_ACK:
            caller.acks = False
        elif kind is Kind.ASK_BEAT:
            link.push(b'{"op":1,"d":null}')
        elif kind is Kind.SECOND_READY:
            if caller.session is None:
                return False
            self._give(caller.session, "READY")
        elif kind is Kind.CLOSE_FATAL:
            self.close(link, FATAL_CODES[variant])
        elif kind is Kind.CLOSE:
            self.close(link, CLOSE_CODES[variant])
        return True
