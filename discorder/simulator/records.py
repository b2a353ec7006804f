"""Record what a simulator receives and sends, within bounds, for tests.

No record holds the token: in a `Frame` it reads ``"<token>"``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")


class ViolationKind(StrEnum):
    """The limit of Discord's that a client exceeded."""

    SEND_LIMIT = "send_limit"  # docs/protocol.md#send-limit: 120 frames per 60 s
    PAYLOAD_SIZE = "payload_size"  # docs/protocol.md#frames: 4096 bytes
    PRESENCE_LIMIT = "presence_limit"  # docs/protocol.md#send-limit: 5 presence updates per 20 s
    IDENTIFY_SPACING = "identify_spacing"  # docs/protocol.md#session-start-limit: one per bucket per 5 s
    IDENTIFY_BUDGET = "identify_budget"  # docs/protocol.md#identify: 1000 in 24 h
    MEMBER_REQUESTS = "member_requests"  # docs/protocol.md#request-guild-members: all members of a guild once per 30 s
    MISSED_HEARTBEAT = "missed_heartbeat"  # docs/protocol.md#heartbeats
    REST_LIMIT = "rest_limit"  # docs/protocol.md#rest


@dataclass(frozen=True, slots=True)
class Violation:
    """One exceeded limit. ``shard`` is None where no session is involved."""

    kind: ViolationKind
    shard: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Close:
    """The end of one connection.

    ``code`` is what the side that ended it sent, None without a close frame; ``answer`` what the client answered to the
    server's close. ``session_id`` and ``shard`` are None for a connection that never had a session.
    """

    session_id: str | None
    shard: int | None
    code: int | None
    by: Literal["client", "server", "network"]
    answer: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from a client. ``shard`` is None before IDENTIFY or RESUME."""

    shard: int | None
    op: int
    d: Any


@dataclass(frozen=True, slots=True)
class SentFile:
    """One file of a multipart form: the field's name, the file's name and content type, its bytes."""

    field: str
    filename: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One REST request: the path below ``/api/v10``, its query apart, the JSON of its body, the status of the answer, files."""

    method: str
    path: str
    query: str
    body: bytes
    status: int
    files: tuple[SentFile, ...] = ()


class SentDocument(NamedTuple):
    """One dispatch with the bytes of its ``d`` as they went on the wire."""

    session_id: str
    seq: int
    type: str
    data: bytes


@dataclass(slots=True)
class Records:
    """Counters and lists; each list keeps its newest ``history`` entries (at least half of them)."""

    history: int
    keep_documents: bool
    connects: int = 0
    refused_upgrades: int = 0
    identifies: int = 0
    resumes: int = 0
    resumed: int = 0
    frames_received: int = 0
    sent: list[tuple[str, int, str]] = field(default_factory=list)
    sent_documents: list[SentDocument] = field(default_factory=list)
    received: list[Frame] = field(default_factory=list)
    closes: list[Close] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    rest_requests: list[RestRequest] = field(default_factory=list)
    _waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def add(self, entries: list[T], entry: T) -> None:
        """Append, and drop the older half of a full list."""
        if len(entries) >= self.history:
            del entries[: (self.history + 1) // 2]
        entries.append(entry)
        self.changed()

    def dispatched(self, session_id: str, seq: int, event_type: str, data: bytes) -> None:
        if self.keep_documents:
            self.add(self.sent_documents, SentDocument(session_id, seq, event_type, data))
        self.add(self.sent, (session_id, seq, event_type))

    def breach(self, kind: ViolationKind, shard: int | None, detail: str) -> None:
        self.add(self.violations, Violation(kind, shard, detail))

    def changed(self) -> None:
        """Wake every caller of `wait_for`."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait_for(self, predicate: Callable[[], object]) -> None:
        """Return once ``predicate()`` is true; called again after each change."""
        while not predicate():
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
