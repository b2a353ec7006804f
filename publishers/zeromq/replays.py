"""Send replays and guilds to the clients that requested them: bounded in number, in fair shares, at each client's pace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import zmq

from discorder.clock import Clock
from discorder.guilds.feed import Snapshot
from discorder.publishers.zeromq.protocol import answer, refusal
from discorder.publishers.zeromq.shard_log import LogEntry

STREAMS_PER_CLIENT = 8
STREAMS = 256
LOOKS_PER_TURN = 256  # documents checked for one client in one turn
BYTES_PER_TURN = 262_144  # sent to one client in one turn, or one larger document
TURN_SECONDS = 0.005  # for all clients together: new events go first
STALLED_SECONDS = 10.0  # without room for one more document; then a client's replays are dropped
YIELDS_AFTER = 1.0  # seconds without room; then a client's replays may be dropped for those of others
ASK_AGAIN = 1.0  # seconds that a client whose replay was dropped should wait


class ReplaySource(Protocol):
    """Yield the documents of one long answer."""

    def look(self) -> LogEntry | None:
        """Return the next document, `wanted` or not; the same one until `step`. None at the end."""
        ...

    def wanted(self, entry: LogEntry) -> bool:
        """Return whether the client requested this document."""
        ...

    def step(self) -> None:
        """Move past the document that `look` returned."""
        ...

    def end(self) -> Mapping[str, object]:
        """Return the fields of the last part."""
        ...


@dataclass(slots=True)
class Stream:
    """Hold one long answer, usually a replay, that is being sent."""

    id_frame: bytes
    source: ReplaySource


@dataclass(slots=True)
class _Client:
    moved_at: float  # monotonic seconds of the last time with room for a document
    streams: deque[Stream] = field(default_factory=deque)


class GuildsReader:
    """Give the guilds of a snapshot, as a `ReplaySource`. The snapshot does not change, and shares what it can with the state."""

    def __init__(self, shard: tuple[int, int], snapshot: Snapshot) -> None:
        self._shard = shard
        self._place, self._guilds = snapshot
        self._left = list(snapshot.guilds.states)[::-1]
        self._entry: LogEntry | None = None

    def look(self) -> LogEntry | None:
        """Return the next guild; the same one until `step`. None at the end."""
        if self._entry is None and self._left:
            guild_id = self._left[-1]
            self._entry = LogEntry(self._place.seq, b"%d" % guild_id, self._guilds.packed(guild_id))
        return self._entry

    def wanted(self, entry: LogEntry) -> bool:  # noqa: ARG002  # see `ReplaySource`
        """Return True: every guild is sent."""
        return True

    def step(self) -> None:
        """Move past the guild that `look` returned."""
        self._left.pop()
        self._entry = None

    def end(self) -> Mapping[str, object]:
        """Return the fields of the last part: where the guilds are in the stream, and what READY said, with later changes."""
        return {
            "shard": self._shard,
            "session": self._place.session,
            "seq": self._place.seq,
            "guilds": [str(guild_id) for guild_id in self._guilds.guild_ids],
            "ready": msgspec.Raw(self._guilds.ready),
        }


class ReplayServer:
    """Manage all replays of one ROUTER. Call all methods on the loop."""

    def __init__(self, sock: zmq.Socket[bytes], clock: Clock) -> None:
        self._socket = sock
        self._clock = clock
        self._clients: dict[bytes, _Client] = {}  # in the order in which they are served next

    def __len__(self) -> int:
        """Return the number of replays."""
        return sum(len(client.streams) for client in self._clients.values())

    def begin(self, identity: bytes, stream: Stream) -> bool:
        """Start to send ``stream``; return False if there are too many."""
        now = self._clock.monotonic()
        client = self._clients.get(identity)
        held = 0 if client is None else len(client.streams)
        if held >= STREAMS_PER_CLIENT or (len(self) >= STREAMS and not self._make_room(held, now)):
            return False
        self._clients.setdefault(identity, _Client(now)).streams.append(stream)
        return True

    def pump(self) -> bool:
        """Send every client a few documents; return False if none had room."""
        now, turn_began = self._clock.monotonic(), time.perf_counter()
        progress = False
        for identity in list(self._clients):
            client = self._clients.pop(identity)
            with _gone(client):
                if self._advance(identity, client.streams):
                    client.moved_at, progress = now, True
                elif now - client.moved_at >= STALLED_SECONDS:
                    self._drop(identity, client, len(client.streams))
            if client.streams:
                self._clients[identity] = client
            if time.perf_counter() - turn_began >= TURN_SECONDS:
                return True
        return progress

    def clear(self) -> None:
        """Remove all replays."""
        self._clients.clear()

    def _advance(self, identity: bytes, streams: deque[Stream]) -> bool:
        """Send a few documents of the client's first replay; return False if there is no room for one."""
        stream, sent = streams[0], 0
        source = stream.source
        try:
            for _ in range(LOOKS_PER_TURN):
                entry = source.look()
                if entry is None:
                    self._socket.send_multipart((identity, *answer(stream.id_frame, source.end())), zmq.DONTWAIT)
                    streams.popleft()
                    return True
                if source.wanted(entry):
                    frames = (identity, stream.id_frame, entry.topic, entry.document)
                    self._socket.send_multipart(frames, zmq.DONTWAIT)
                    sent += len(entry.document)
                source.step()
                if sent >= BYTES_PER_TURN:
                    break
        except zmq.Again:
            return sent > 0
        return True

    def _make_room(self, held: int, now: float) -> bool:
        """Drop one replay to make room for a client that has ``held``: of one that does not read, or of the one with most."""

        def claim(identity: bytes) -> tuple[bool, int]:
            client = self._clients[identity]
            return now - client.moved_at >= YIELDS_AFTER, len(client.streams)

        identity = max(self._clients, key=claim)
        stalled, has = claim(identity)
        if not stalled and has <= held + 1:
            return False
        client = self._clients[identity]
        with _gone(client):
            self._drop(identity, client, 1)
        if not client.streams:
            del self._clients[identity]
        return True

    def _drop(self, identity: bytes, client: _Client, count: int) -> None:
        """Drop the newest ``count`` replays. Send a refusal for each if there is room; otherwise the client times out."""
        dropped = [client.streams.pop() for _ in range(count)]
        for stream in dropped:
            text = "the replay was dropped since its parts were not fetched in time; ask again from where it stopped"
            try:
                self._socket.send_multipart(
                    (identity, *refusal(stream.id_frame, "busy", text, ASK_AGAIN)), zmq.DONTWAIT
                )
            except zmq.Again:
                return


@contextmanager
def _gone(client: _Client) -> Iterator[None]:
    """Remove the replays of a client that has left."""
    try:
        yield
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        client.streams.clear()
