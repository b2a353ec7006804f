"""Judges what the control plane does on the wire: sockets, heartbeats, IDENTIFYs, sessions that are given up, redials.

The rules are those of docs/protocol.md and of this project, written down here a second
time, in terms of what can be seen from outside. It never touches what it watches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from discorder.sessions import StoredSession
from discorder.wire import Op, session_label
from tests.simulation.faults import BREACHES, FATAL_CODES
from tests.simulation.gateway import ACK, Gateway
from tests.simulation.life import SLACK, End, Life, Wire
from tests.simulation.loop import Process
from tests.simulation.network import Link, Stage
from tests.simulation.session import Session

LEAST_PAUSE = 0.25
RESUME_FIRST_RUNG, IDENTIFY_FIRST_RUNG = 1.0, 5.0
NEW_SESSION_CODES = {4007, 4009}
SLOT_SPACING = 5.25
REFUSALS, REFUSED_FOR = 3, 180.0
HOLD_OFF = 45.0
KEPT = 100_000.0  # seconds for which an IDENTIFY is remembered here
PAID_FOR = 86_000.0  # seconds for which a debit is surely still in the ledger
ASKED_JUST_NOW = 15.0  # seconds after a look-up in which there is no other
A_BREACH = "a breach"
ENDS_NOTHING = frozenset({"", A_BREACH})  # not every breach ends a connection
NO_HELLO = frozenset({"", f"op {Op.RECONNECT:d}"})  # what may be told where Hello is due, by a host that is no good
COMMITTED_WITHIN = 0.1  # seconds until a READY that came must be on a sound disk


class Referee:
    """``violate`` takes a sentence; the first one ends the run."""

    def __init__(
        self,
        gateway: Gateway,
        lives: dict[Process, Life],
        violate: Callable[[str], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._gateway = gateway
        self._lives = lives
        self._violate = violate
        self._note = note
        self.foreign = False  # somebody else spends IDENTIFYs of this bot
        gateway.referee = self

    # ---------------------------------------------------------------- seen at the client's end: network.Watch

    def dialling(self, link: Link, host: str) -> None:
        life, shard, now = self._lives[link.process], link.shard, link.process
        moment = life.monotonic()
        self._note(now.name, f"shard {shard} dials {host}")
        before = life.wires.get(shard)
        if before is not None and before.link.stage is not Stage.CLOSED:
            self._violate(f"shard {shard}: two sockets: dialled while the last one is {before.link.stage.value}")
        if life.stop_at is not None and life.loop.time() > life.stop_at + SLACK:
            self._violate(f"shard {shard}: dialled after a stop")
        if life.fatal:
            self._violate(f"shard {shard}: dialled after a close that no redial can mend")
        if shard in life.paused:
            self._violate(f"shard {shard}: dialled while an operator has paused it")
        self._check_pause(life, shard, moment)
        self._check_hold_off(life, shard)
        self._check_host(life, shard, host)
        life.wires[shard] = Wire(link, moment)

    def _check_pause(self, life: Life, shard: int, moment: float) -> None:
        end = life.ended.get(shard)
        if end is not None and moment - end.at < end.pause - SLACK:
            self._violate(
                f"shard {shard}: redialled after {moment - end.at:.3f} s, not before {end.pause:g} s is allowed"
            )

    def _check_host(self, life: Life, shard: int, host: str) -> None:
        """Two hosts can resume a session: where a dial brought no Hello the next one does not go."""
        failed = life.failed_hosts.pop(shard, "")
        resumable = any(
            session.label in life.known and self._may_be_given_up(life, session) is None
            for session in self._gateway.living(shard, life.host.name)
        )
        if host == failed and resumable:
            self._violate(f"shard {shard}: dials {host} again, where it has just failed, and not the other host")

    def _check_hold_off(self, life: Life, shard: int) -> None:
        """After congestion the shard waits for room in the queue, or for `HOLD_OFF` seconds."""
        held = life.held_off.pop(shard, None)
        if held is not None:
            at, book, accepted = held
            waited = life.monotonic() - at
            if waited < HOLD_OFF - SLACK and book.accepted == accepted:
                self._violate(f"shard {shard}: redialled {waited:.1f} s after {book.sink.name} was full, and still is")

    def opened(self, link: Link) -> None:
        self._note(link.process.name, f"shard {link.shard} is connected")

    def sent(self, link: Link, frame: bytes) -> None:
        life = self._lives[link.process]
        wire = life.wires[link.shard]
        message: dict[str, Any] = msgspec.json.decode(frame)
        op, d = message["op"], message["d"]
        if op == Op.HEARTBEAT:
            self._beat_sent(life, wire, d)
            return
        moment = life.monotonic()
        after = f" after {d['seq']}" if op == Op.RESUME else ""
        self._note(link.process.name, f"shard {link.shard} sends {Op(op).name}{after}")
        wire.asked_at = wire.progress_at = moment
        if op == Op.RESUME:
            life.beats[link.shard] = d["seq"]
            wire.resumed = session_label(d["session_id"])
        elif op == Op.IDENTIFY:
            life.beats[link.shard] = None
            self._check_spacing(life, link)
            self._check_paid(life, link)

    def _beat_sent(self, life: Life, wire: Wire, seq: int | None) -> None:
        now, shard = life.monotonic(), wire.link.shard
        expected = life.beats.get(shard)
        if seq != expected and (seq is not None or wire.asked_at is not None):  # None: the session was given up
            self._violate(f"shard {shard}: a heartbeat says {seq}, the last seq received is {expected}")
        self._beat_in_time(life, wire)
        wire.last_beat_at, wire.beat_wanted_at = now, None
        wire.unanswered_since = now if wire.unanswered_since is None else wire.unanswered_since
        wire.silent_since = now if wire.silent_since is None else wire.silent_since

    def _beat_in_time(self, life: Life, wire: Wire) -> None:
        since = wire.last_beat_at or wire.hello_at
        if since is not None and not wire.link.full and life.awake:
            late = life.monotonic() - since - self._gateway.measures.interval
            if late > 0.5:
                self._violate(f"shard {wire.link.shard}: a heartbeat is {late:.1f} s late")

    def _check_paid(self, life: Life, link: Link) -> None:
        """Check that the debit of an IDENTIFY is on the disk before it is sent."""
        host, now = life.host, life.loop.time()
        host.identified_at = [*(at for at in host.identified_at if at > now - KEPT), now]
        sent = [at for at in host.identified_at if at > now - PAID_FOR]
        paid = len(host.disk.ledger.debits)
        if max(host.disk.troubled_at, host.wall_jumped_at) < sent[0] - PAID_FOR and paid < len(sent):
            self._violate(f"shard {link.shard}: {len(sent)} IDENTIFYs in a day, {paid} are in the ledger")

    def _check_spacing(self, life: Life, link: Link) -> None:
        bucket, now = link.shard % self._gateway.measures.max_concurrency, life.loop.time()
        before = life.host.identify_sent.get(bucket, float("-inf"))
        life.host.identify_sent[bucket] = now
        known = life.host.wall_jumped_at < before and life.host.disk.troubled_at < before - 1.0
        if now - before < SLOT_SPACING - SLACK and (known or before > life.started_at):
            self._violate(f"shard {link.shard}: IDENTIFYs of bucket {bucket} are {now - before:.3f} s apart")

    def handed(self, link: Link, batch: list[bytes]) -> None:
        life = self._lives[link.process]
        wire, moment = life.wires[link.shard], life.monotonic()
        wire.last_frame_at, wire.silent_since = moment, None
        for frame in batch:
            if frame == ACK:
                wire.unanswered_since = None
            elif frame in BREACHES:
                wire.told = wire.told or A_BREACH
                return
            elif not frame.startswith(b"{"):
                return
            else:
                self._frame_handed(life, wire, frame)

    def _frame_handed(self, life: Life, wire: Wire, frame: bytes) -> None:
        try:
            message: dict[str, Any] = msgspec.json.decode(frame)
        except ValueError:
            return
        op = message["op"]
        if op == Op.DISPATCH:
            self._dispatched(life, wire, message["t"], message["s"])
        elif op == Op.HELLO:
            wire.hello_at = life.monotonic()
        elif op == Op.HEARTBEAT_ACK:
            wire.unanswered_since = None
        elif op == Op.HEARTBEAT and wire.hello_at is not None:
            wire.beat_wanted_at = wire.beat_wanted_at or life.monotonic()
        elif op in {Op.RECONNECT, Op.INVALID_SESSION} and wire.told in ENDS_NOTHING:
            wire.told = "op 9 false" if op == Op.INVALID_SESSION and message["d"] is False else f"op {op}"
            self._note(life.process.name, f"shard {wire.link.shard} is told {wire.told}")

    def _dispatched(self, life: Life, wire: Wire, kind: str, seq: int) -> None:
        shard = wire.link.shard
        session = self._session_on(wire)
        if session is None:
            return
        wire.progress_at = life.monotonic()
        wire.up = wire.up or kind in {"READY", "RESUMED"}
        life.beats[shard] = seq
        life.known.add(session.label)
        if kind == "READY":
            life.opened.setdefault(session.label, life.loop.time())
        if seq > life.seen.get(session.label, 0):
            life.seen[session.label] = seq
            life.fresh.setdefault(shard, deque()).append((session.label, seq))

    def _session_on(self, wire: Wire) -> Session | None:
        return wire.link.session

    def closing(self, link: Link) -> None:
        life = self._lives[link.process]
        life.wires[link.shard].closing_at = life.monotonic()

    def closed(self, link: Link, code: int | None) -> None:
        life = self._lives[link.process]
        wire, moment = life.wires[link.shard], life.monotonic()
        self._note(link.process.name, f"shard {link.shard}: its connection is over ({code})")
        pause, first_rung = LEAST_PAUSE, RESUME_FIRST_RUNG
        if wire.told == "op 9 false" and wire.hello_at is not None:
            pause, first_rung = 1.0, IDENTIFY_FIRST_RUNG
        elif code == 4008 and not wire.told:
            pause, first_rung = 5.0, 6.0
        elif code in NEW_SESSION_CODES and not wire.told:
            first_rung = IDENTIFY_FIRST_RUNG
        life.ended[link.shard] = End(moment, pause, first_rung)
        main_is_known = life.looked_up_at >= 0.0  # before it is, the next dial may not get as far as the network
        if main_is_known and wire.hello_at is None and not wire.disturbed and wire.told in NO_HELLO:
            life.failed_hosts[link.shard] = link.host
        life.fatal = life.fatal or (code in FATAL_CODES and not wire.told and life.stop_at is None)
        if wire.resumed and not wire.up and wire.progress_at == wire.asked_at:
            refused_at = moment if wire.closing_at is None else wire.closing_at  # the client draws its conclusion first
            life.refusals.setdefault(wire.resumed, []).append(refused_at)
        elif wire.resumed:
            life.refusals.pop(wire.resumed, None)

    # ---------------------------------------------------------------- seen at the gateway's end: gateway.Referee

    def identified(self, link: Link, bucket: int, previous: float) -> None:
        life = self._lives[link.process]
        self._note("gateway", f"IDENTIFY of {link.process.name} for shard {link.shard}, bucket {bucket}")
        for session in self._gateway.living(link.shard, life.host.name):
            reason = self._may_be_given_up(life, session)
            if reason is None:
                self._violate(
                    f"shard {link.shard}: IDENTIFY although session {session.label} can be resumed and nothing allows to drop it"
                )
            else:
                self._note("gateway", f"session {session.label} was given up: {reason}")

    def _may_be_given_up(self, life: Life, session: Session) -> str | None:
        refusals = life.refusals.get(session.label, [])
        if len(refusals) >= REFUSALS and refusals[-1] - refusals[0] >= REFUSED_FOR - SLACK:
            return f"{len(refusals)} refusals"
        if session.label not in life.known:
            return "it was never stored"
        return None

    def resuming(self, link: Link, session: Session | None, seq: int) -> None:
        if session is None:
            self._violate(f"shard {link.shard}: RESUME of a session that never was")
        elif session.shard[0] != link.shard:
            self._violate(f"shard {link.shard}: RESUME of a session of shard {session.shard[0]}")
        elif seq > session.seq:
            self._violate(f"shard {link.shard}: RESUME with {seq}, which is ahead of the session ({session.seq})")

    def beat(self, link: Link, seq: int | None) -> None:
        """Check the content of a heartbeat when it is sent."""

    def spent(self, link: Link, remaining: int) -> None:
        total = self._gateway.measures.start_total
        life = self._lives[link.process]
        # by a clock that shows the reset as passed
        misled = life.host.wall_jumped_at > life.looked_up_at - ASKED_JUST_NOW
        floor = 0 if self.foreign or misled else self._gateway.measures.reserve
        if remaining < floor:
            self._violate(f"IDENTIFYs are overspent: {remaining} of {total} left, {floor} are not to be touched")

    def session_opened(self, session: Session, link: Link) -> None:
        self._note("gateway", f"session {session.label} for shard {session.shard[0]} of {session.owner}")

    def session_ended(self, session: Session) -> None:
        self._note("gateway", f"session {session.label} at {session.seq} is over: {session.ended_by}")
        if session.ended_by.startswith("the client") and not any(
            life.goodbye and life.host.name == session.owner for life in self._lives.values()
        ):
            self._violate(f"shard {session.shard[0]}: the session was ended by our close, and nobody said goodbye")

    # ---------------------------------------------------------------- sessions over processes

    def found(self, life: Life, stored: list[StoredSession]) -> None:
        """Check what a process finds on the disk of its host: a READY that came in time must be there."""
        labels = {session_label(one.session_id) for one in stored}
        life.known |= labels
        earlier = [one for one in self._lives.values() if one.host is life.host and one is not life]
        if earlier:
            self._check_committed(earlier[-1], labels)
        for one in stored:
            if session_label(one.session_id) not in self._gateway.by_label:
                self._violate("a session is stored that never was")

    def _check_committed(self, before: Life, labels: set[str]) -> None:
        for label, at in before.opened.items():
            session = self._gateway.by_label[label]
            excused = before.goodbye or label in before.refusals or before.host.disk.troubled_at >= at - 2.0
            if session.alive and label not in labels and before.ended_at - at > COMMITTED_WITHIN and not excused:
                self._violate(
                    f"session {label} was opened {before.ended_at - at:.3f} s before the end, and is not in the store"
                )
