"""Play one recorded connection: deliver the gateway's frames, and compare the client's frames with the recording.

Frames arrive at their recorded intervals, after the client has sent the frames recorded before them. Heartbeats follow the
timing of the client (its jitter is random), so each recorded ACK answers the same heartbeat as in the recording.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from discorder.clock import FakeClock, settle_loop, within
from discorder.errors import Closed, ConnectFailed, GatewayFailure, ProtocolBreach
from discorder.transport.recorded import (
    LONGEST_PAUSE,
    EntryKind,
    RecordedConnection,
    Recording,
    RecordingEntry,
    Shard,
    decoded,
)
from discorder.transport.redact import RESUME_HOST, Redaction
from discorder.wire import Op

LONGEST_SHOWN = 200  # characters of a frame in a report
# seconds of fake time that a client may take, beyond the recording, for a frame, a close or the next dial
EXTRA_TIME = 900.0
_ACK_IN_FLIGHT = 0.25  # of an interval: well below the half after which an unanswered heartbeat makes a zombie
_ACK = b'{"op":11}'
# opcodes that a control plane sends without a command
_SENT_BY_CLIENT = frozenset({Op.HEARTBEAT, Op.IDENTIFY, Op.RESUME})
LATE_FRAMES = 1000  # ms; a frame recorded this shortly before our own close may have crossed it


class ScriptedTransport(Protocol):
    """Define the transport whose connection a script plays."""

    @property
    def closed(self) -> bool: ...

    def opened(self) -> None: ...

    def deliver(self, message: bytes) -> None: ...

    def finish(self, end: GatewayFailure) -> None: ...


class ReplayState(Protocol):
    """Define the replay to which a script belongs."""

    @property
    def clock(self) -> FakeClock: ...

    @property
    def recording(self) -> Recording: ...

    @property
    def finished(self) -> bool: ...

    def report_difference(self, what: str, line: int) -> None: ...

    async def command(self, shard: Shard, op: int, d: Any) -> None: ...

    def connection_ended(self, shard: Shard) -> None: ...


class Script:
    """Play one recorded connection."""

    def __init__(self, gateway: ReplayState, connection: RecordedConnection) -> None:
        self.connection = connection
        self.is_last = False
        self._gateway = gateway
        self._clock = gateway.clock
        self._transport: ScriptedTransport | None = None
        self._entries, self._acks = _split(connection.entries)
        self._redaction = Redaction(filler=gateway.recording.filler)
        self._expected = [entry for entry in self._entries if entry.kind is EntryKind.OUT]
        self._sent = 0
        self._beats = 0
        self._progress = asyncio.Event()
        self._position = 0
        self._is_waiting = False  # for a frame or a close of the client; heartbeats continue meanwhile
        self._finished = False

    def where(self) -> str:
        """Return the position in the recording, for messages."""
        entry = self._current_entry
        return f"connection {self.connection.number} of shard {list(self.connection.shard)}, line {entry.line} ({entry.kind})"

    @property
    def line(self) -> int:
        """Return the line of the recording that is being played."""
        return self._current_entry.line

    @property
    def _current_entry(self) -> RecordingEntry:
        return self._entries[min(self._position, len(self._entries) - 1)]

    def _report(self, what: str) -> None:
        self._gateway.report_difference(f"{self.where()}: {what}", self.line)

    def start(self, transport: ScriptedTransport, url: str) -> None:
        """Start the connection, and compare whether the client dialled a resume host; the name of the host may differ."""
        self._transport = transport
        recorded, dialled = _resume_host(self._entries[0].url), _resume_host(url)
        if recorded != dialled:
            self._report(f"expected a dial of {recorded or 'the gateway'}, got {dialled or 'the gateway'}")

    async def run(self) -> None:
        """Play the entries at their recorded intervals, each after the client's frames before it."""
        transport = self._transport
        if transport is None:
            return
        due = self._clock.monotonic()
        before = self._entries[0].t
        for position, entry in enumerate(self._entries):
            self._position = position
            due += (entry.t - before) / 1000
            before = entry.t
            if entry.kind is EntryKind.OUT:
                await self._replay_command(entry, due)
                if not await self._client_has_sent(self._expected.index(entry) + 1):
                    return
                due = max(due, self._clock.monotonic())
            elif self._is_ours(entry) and not self.is_last:
                self._is_waiting = True
                await self._clock.sleep(due - self._clock.monotonic() + EXTRA_TIME)
                self._report("expected the client to end the connection, it did not")
                return
            else:
                if (pause := due - self._clock.monotonic()) > 0:
                    await self._clock.sleep(pause)
                self._play_entry(entry, transport)
        ended = self._gateway.recording.ended
        if self.is_last and ended is not None and self._entries[-1].kind not in (EntryKind.CLOSE, EntryKind.FAIL):
            await self._clock.sleep(due - self._clock.monotonic() + (ended.t - before) / 1000)
        self._finished = True

    async def _replay_command(self, entry: RecordingEntry, due: float) -> None:
        """Send a recorded command of the bot again at its time, unless the client has sent it already (a presence)."""
        if entry.op in _SENT_BY_CLIENT:
            return
        if (pause := due - self._clock.monotonic()) > 0:
            await self._clock.sleep(pause)
        await settle_loop()
        frame = decoded(entry.text)
        if self._sent <= self._expected.index(entry) and isinstance(frame, dict):
            await self._gateway.command(self.connection.shard, frame["op"], frame.get("d"))

    def sent(self, data: bytes) -> None:
        """Compare a frame that the client sent with the next recorded one."""
        text = data.decode("utf-8", "surrogateescape")
        frame = decoded(text)
        if isinstance(frame, dict) and frame.get("op") == Op.HEARTBEAT:
            self._beat()
            return
        position, self._sent = self._sent, self._sent + 1
        if position < len(self._expected):
            entry = self._expected[position]
            if _comparable(frame) != _comparable(decoded(entry.text)):
                frame = decoded(self._redaction.message(text)) if self._gateway.recording.filler else frame
                if _comparable(frame) != _comparable(decoded(entry.text)):
                    self._report_frame(entry, entry.text, _without_token(frame))
        elif not self._gateway.finished:
            self._report(f"expected no further frame, got {_without_token(frame)}")
        self._progress.set()

    def closed_by_client(self, code: int | None) -> None:
        """Compare the position and the code of the client's close with the recording."""
        self._gateway.connection_ended(self.connection.shard)
        recorded = self._entries[-1]
        rest = self._entries[self._position :]
        if not self._is_ours(recorded):
            if not self._gateway.finished:
                self._report(f"expected the connection to go on, the client ended it with {code}")
            return
        if recorded.kind is EntryKind.CLOSE and recorded.code != code:
            self._report(f"expected close code {recorded.code} (line {recorded.line}), got {code}")
        missed = [entry for entry in rest if entry.kind is EntryKind.IN and recorded.t - entry.t > LATE_FRAMES]
        if missed:
            self._report(f"the client closed before line {missed[0].line}, {_short(missed[0].text)}")
        self._compare_counts()

    def _play_entry(self, entry: RecordingEntry, transport: ScriptedTransport) -> None:
        match entry.kind:
            case EntryKind.OPEN:
                transport.opened()
            case EntryKind.IN:
                transport.deliver(entry.message)
            case EntryKind.CLOSE if entry.by != "us":
                self._compare_counts()
                transport.finish(Closed(entry.code, entry.by))
                self._gateway.connection_ended(self.connection.shard)
            case EntryKind.FAIL if entry.by != "us":
                opened = any(earlier.kind is EntryKind.OPEN for earlier in self._entries)
                transport.finish(ProtocolBreach(entry.error) if opened else ConnectFailed(entry.error, entry.status))
                self._gateway.connection_ended(self.connection.shard)

    async def _client_has_sent(self, count: int) -> bool:
        self._is_waiting = True
        try:
            await within(self._clock, EXTRA_TIME, self._frames(count))
        except TimeoutError:
            self._report(f"expected {_short(self._expected[count - 1].text)}, got nothing")
            return False
        finally:
            self._is_waiting = False
        return True

    async def _frames(self, count: int) -> None:
        while self._sent < count:
            self._progress.clear()
            await self._progress.wait()

    def _beat(self) -> None:
        """Answer a heartbeat as recorded; answer later ones like the last recorded one, and at once if none was recorded."""
        answers = self._acks[min(self._beats, len(self._acks) - 1)] if self._acks else [(0.0, _ACK)]
        self._beats += 1
        if self._beats > len(self._acks) + 1 and not (self._is_waiting or self._finished or self._gateway.finished):
            self._compare_counts()  # at once: in a damaged file the next entry may be days away
        for latency, message in answers:
            self._clock.call_later(latency, partial(self._answer, message))

    def _answer(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.closed:
            self._transport.deliver(message)

    def _compare_counts(self) -> None:
        """Compare the number of heartbeats, give or take one: the first delay is random (docs/protocol.md#heartbeats)."""
        if abs(self._beats - len(self._acks)) > 1:
            self._report(f"expected {len(self._acks)} heartbeats, got {self._beats}")
        if self._sent < len(self._expected):
            entry = self._expected[self._sent]
            self._report_frame(entry, entry.text, "nothing")

    def _report_frame(self, entry: RecordingEntry, expected: str, got: str) -> None:
        self._gateway.report_difference(
            f"connection {self.connection.number} of shard {list(self.connection.shard)}, line {entry.line}:"
            f" expected {_short(expected)}, got {_short(got)}",
            entry.line,
        )

    def _is_ours(self, entry: RecordingEntry) -> bool:
        return entry.kind in (EntryKind.CLOSE, EntryKind.FAIL) and entry.by == "us"


Answers = list[tuple[float, bytes]]


def _split(entries: tuple[RecordingEntry, ...]) -> tuple[list[RecordingEntry], list[Answers]]:
    """Return the entries without heartbeats and ACKs, and for each heartbeat its ACKs as (seconds after it, message)."""
    kept: list[RecordingEntry] = []
    beats: list[tuple[RecordingEntry, Answers]] = []
    for entry in entries:
        if entry.kind is EntryKind.OUT and entry.op == Op.HEARTBEAT:
            beats.append((entry, []))
        elif entry.kind is EntryKind.IN and entry.op == Op.HEARTBEAT_ACK and beats:
            beat, answers = beats[-1]
            answers.append(((entry.t - beat.t) / 1000, entry.message))
        else:
            kept.append(entry)
    if beats and not beats[-1][1] and entries[-1].t - beats[-1][0].t < _ACK_IN_FLIGHT * _interval_ms(entries):
        beats[-1][1].append((0.0, _ACK))  # the connection ended before the answer could arrive
    return kept, [answers for _, answers in beats]


def _interval_ms(entries: tuple[RecordingEntry, ...]) -> float:
    """Return the heartbeat interval of the connection's Hello in ms, 0 without one."""
    hello = next(
        (decoded(entry.text) for entry in entries if entry.kind is EntryKind.IN and entry.op == Op.HELLO), None
    )
    interval = hello["d"].get("heartbeat_interval") if hello is not None and isinstance(hello.get("d"), dict) else 0
    return float(interval) if isinstance(interval, int | float) and 0 < interval <= LONGEST_PAUSE else 0.0


def _comparable(frame: Any) -> Any:
    """Remove the values that may differ between runs: token, operating system, compression, nonces."""
    if not isinstance(frame, dict) or not isinstance(data := frame.get("d"), dict):
        return frame
    data = {key: value for key, value in data.items() if key not in ("token", "compress", "nonce")}
    if isinstance(properties := data.get("properties"), dict):
        data["properties"] = {key: value for key, value in properties.items() if key != "os"}
    return frame | {"d": data}


def _without_token(frame: Any) -> str:
    """Return a sent frame as text, without its token."""
    if isinstance(frame, dict) and isinstance(data := frame.get("d"), dict) and "token" in data:
        frame = frame | {"d": data | {"token": "<token>"}}
    return frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def _resume_host(url: str) -> str:
    """Return the placeholder of the resume host, "" for any other host."""
    host = urlsplit(url).hostname or ""
    return host if RESUME_HOST.match(host) else ""
