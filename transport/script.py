"""One recorded connection, played: what the gateway does and when, and whether the client does what it did then.

Frames come at their recorded distances, after the client has sent what it had sent before them. Heartbeats keep the client's
own time (its jitter is random), so the recorded ACKs are attached to the beats that they answered. Nothing here knows the
transport or the other connections but through `Stage` and `Theatre`.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from discorder.clock import FakeClock, within
from discorder.errors import Closed, ConnectFailed, GatewayFailure, ProtocolBreach
from discorder.transport.recorded import Connection, Entry, Kind, Recording, Shard
from discorder.transport.redact import RESUME_HOST, Redaction
from discorder.wire import Op

PATIENCE = 900.0  # seconds of fake time a client may take beyond the recording, for a frame, a close, the next dial
_ACK_IN_FLIGHT = 0.25  # of an interval: well below the half after which an unanswered beat makes a zombie
_ACK = b'{"op":11}'
LATE_FRAMES = 1000  # ms; what was recorded this shortly before our own close may have crossed it on the wire


class Stage(Protocol):
    """The transport that a script plays on."""

    @property
    def closed(self) -> bool: ...

    def opened(self) -> None: ...

    def deliver(self, message: bytes) -> None: ...

    def finish(self, end: GatewayFailure) -> None: ...


class Theatre(Protocol):
    """The replay that a script is part of."""

    @property
    def clock(self) -> FakeClock: ...

    @property
    def recording(self) -> Recording: ...

    @property
    def finished(self) -> bool: ...

    def differ(self, what: str) -> None: ...

    def rest(self, shard: Shard) -> None: ...


class Script:
    """What one recorded connection does, and how far it is."""

    def __init__(self, gateway: Theatre, connection: Connection) -> None:
        self.connection = connection
        self.is_last = False
        self._gateway = gateway
        self._clock = gateway.clock
        self._transport: Stage | None = None
        self._entries, self._acks = _split(connection.entries)
        self._redaction = Redaction(filler=gateway.recording.filler)
        self._expected = [entry for entry in self._entries if entry.kind is Kind.OUT]
        self._sent = 0
        self._beats = 0
        self._progress = asyncio.Event()
        self._position = 0

    def where(self) -> str:
        """The place in the recording, for messages."""
        entry = self._entries[min(self._position, len(self._entries) - 1)]
        return f"connection {self.connection.number} of shard {list(self.connection.shard)}, line {entry.line} ({entry.kind})"

    def start(self, transport: Stage, url: str) -> None:
        """The client has dialled. Whether it took the resume host or the main one must agree; names and ports need not."""
        self._transport = transport
        recorded, dialled = _resume_host(self._entries[0].url), _resume_host(url)
        if recorded != dialled:
            self._gateway.differ(
                f"{self.where()}: expected a dial of {recorded or 'the gateway'}, got {dialled or 'the gateway'}"
            )

    async def run(self) -> None:
        """Play the entries, each at its distance from the one before, none before what the client had to do first."""
        transport = self._transport
        if transport is None:
            return
        due = self._clock.monotonic()
        before = self._entries[0].t
        for position, entry in enumerate(self._entries):
            self._position = position
            due += (entry.t - before) / 1000
            before = entry.t
            if entry.kind is Kind.OUT:
                if not await self._client_has_sent(self._expected.index(entry) + 1):
                    return
                due = max(due, self._clock.monotonic())
            elif self._is_ours(entry) and not self.is_last:
                await self._clock.sleep(due - self._clock.monotonic() + PATIENCE)
                self._gateway.differ(f"{self.where()}: expected the client to end the connection, it did not")
                return
            else:
                if (pause := due - self._clock.monotonic()) > 0:
                    await self._clock.sleep(pause)
                self._happen(entry, transport)
        ended = self._gateway.recording.ended
        if self.is_last and ended is not None and self._entries[-1].kind not in (Kind.CLOSE, Kind.FAIL):
            await self._clock.sleep(due - self._clock.monotonic() + (ended.t - before) / 1000)

    def sent(self, data: bytes) -> None:
        """The client sent a frame: compare it with the next recorded one."""
        text = data.decode("utf-8", "surrogateescape")
        frame = _frame(text)
        if isinstance(frame, dict) and frame.get("op") == Op.HEARTBEAT:
            self._beat()
            return
        position, self._sent = self._sent, self._sent + 1
        if position < len(self._expected):
            entry = self._expected[position]
            if _comparable(frame) != _comparable(_frame(entry.text)):
                frame = _frame(self._redaction.message(text)) if self._gateway.recording.filler else frame
                if _comparable(frame) != _comparable(_frame(entry.text)):
                    self._differ_at(entry, entry.text, _without_token(frame))
        elif not self._gateway.finished:
            self._gateway.differ(f"{self.where()}: expected no further frame, got {_without_token(frame)}")
        self._progress.set()

    def closed_by_client(self, code: int | None) -> None:
        """The client ended the connection: may it, here, and with this code?"""
        self._gateway.rest(self.connection.shard)
        recorded = self._entries[-1]
        rest = self._entries[self._position :]
        if not self._is_ours(recorded):
            if not self._gateway.finished:
                self._gateway.differ(
                    f"{self.where()}: expected the connection to go on, the client ended it with {code}"
                )
            return
        if recorded.kind is Kind.CLOSE and recorded.code != code:
            self._gateway.differ(
                f"{self.where()}: expected close code {recorded.code} (line {recorded.line}), got {code}"
            )
        missed = [entry for entry in rest if entry.kind is Kind.IN and recorded.t - entry.t > LATE_FRAMES]
        if missed:
            self._gateway.differ(
                f"{self.where()}: the client closed before line {missed[0].line}, {_short(missed[0].text)}"
            )
        self._compare_counts()

    def _happen(self, entry: Entry, transport: Stage) -> None:
        match entry.kind:
            case Kind.OPEN:
                transport.opened()
            case Kind.IN:
                transport.deliver(entry.message)
            case Kind.CLOSE if entry.by != "us":
                self._compare_counts()
                transport.finish(Closed(entry.code, entry.by))
                self._gateway.rest(self.connection.shard)
            case Kind.FAIL if entry.by != "us":
                opened = any(earlier.kind is Kind.OPEN for earlier in self._entries)
                transport.finish(ProtocolBreach(entry.error) if opened else ConnectFailed(entry.error, entry.status))
                self._gateway.rest(self.connection.shard)

    async def _client_has_sent(self, count: int) -> bool:
        try:
            await within(self._clock, PATIENCE, self._frames(count))
        except TimeoutError:
            self._gateway.differ(f"{self.where()}: expected {_short(self._expected[count - 1].text)}, got nothing")
            return False
        return True

    async def _frames(self, count: int) -> None:
        while self._sent < count:
            self._progress.clear()
            await self._progress.wait()

    def _beat(self) -> None:
        """Answer as the same beat was answered in the recording; further beats as the last one was, the only ones at once."""
        answers = self._acks[min(self._beats, len(self._acks) - 1)] if self._acks else [(0.0, _ACK)]
        self._beats += 1
        for latency, message in answers:
            self._clock.call_later(latency, partial(self._answer, message))

    def _answer(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.closed:
            self._transport.deliver(message)

    def _compare_counts(self) -> None:
        """Beats agree in number, give or take the one that the random first delay may add or take away (§5)."""
        if abs(self._beats - len(self._acks)) > 1:
            self._gateway.differ(f"{self.where()}: expected {len(self._acks)} heartbeats, got {self._beats}")
        if self._sent < len(self._expected):
            entry = self._expected[self._sent]
            self._differ_at(entry, entry.text, "nothing")

    def _differ_at(self, entry: Entry, expected: str, got: str) -> None:
        self._gateway.differ(
            f"connection {self.connection.number} of shard {list(self.connection.shard)}, line {entry.line}:"
            f" expected {_short(expected)}, got {_short(got)}"
        )

    def _is_ours(self, entry: Entry) -> bool:
        return entry.kind in (Kind.CLOSE, Kind.FAIL) and entry.by == "us"


Answers = list[tuple[float, bytes]]


def _split(entries: tuple[Entry, ...]) -> tuple[list[Entry], list[Answers]]:
    """The entries without heartbeats and ACKs, and for each beat its ACKs as (seconds after the beat, message)."""
    kept: list[Entry] = []
    beats: list[tuple[Entry, Answers]] = []
    for entry in entries:
        if entry.kind is Kind.OUT and entry.op == Op.HEARTBEAT:
            beats.append((entry, []))
        elif entry.kind is Kind.IN and entry.op == Op.HEARTBEAT_ACK and beats:
            beat, answers = beats[-1]
            answers.append(((entry.t - beat.t) / 1000, entry.message))
        else:
            kept.append(entry)
    if beats and not beats[-1][1] and entries[-1].t - beats[-1][0].t < _ACK_IN_FLIGHT * _interval_ms(entries):
        beats[-1][1].append((0.0, _ACK))  # the connection ended before the answer could come: that is no dead peer
    return kept, [answers for _, answers in beats]


def _interval_ms(entries: tuple[Entry, ...]) -> float:
    """The heartbeat interval that the connection's Hello asked for, 0 without one."""
    hello = next((_frame(entry.text) for entry in entries if entry.kind is Kind.IN and entry.op == Op.HELLO), None)
    interval = hello["d"].get("heartbeat_interval") if hello is not None and isinstance(hello.get("d"), dict) else 0
    return float(interval) if isinstance(interval, int | float) else 0.0


def _frame(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _comparable(frame: Any) -> Any:
    """A sent frame without what legitimately differs from run to run: token, operating system, compression, nonces."""
    if not isinstance(frame, dict) or not isinstance(data := frame.get("d"), dict):
        return frame
    data = {key: value for key, value in data.items() if key not in ("token", "compress", "nonce")}
    if isinstance(properties := data.get("properties"), dict):
        data["properties"] = {key: value for key, value in properties.items() if key != "os"}
    return frame | {"d": data}


def _without_token(frame: Any) -> str:
    """A sent frame as text for a message."""
    if isinstance(frame, dict) and isinstance(data := frame.get("d"), dict) and "token" in data:
        frame = frame | {"d": data | {"token": "<token>"}}
    return frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _resume_host(url: str) -> str:
    """The placeholder of the resume host, "" for any other host: the main gateway may have any name."""
    host = urlsplit(url).hostname or ""
    return host if RESUME_HOST.match(host) else ""
