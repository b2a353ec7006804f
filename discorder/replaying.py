"""A recorded session played through a whole control plane: the plane is real, its clock and its gateway are the recording's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from discorder.clock import FakeClock
from discorder.config import Compress, Config, ShardSet
from discorder.control_plane import serve_config, shutdown
from discorder.errors import DiscorderError
from discorder.plane import Surroundings
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import MemorySessionStore, StoredSession
from discorder.tracker import GatewayTracker
from discorder.tracker_ref import TrackerRef
from discorder.transport import GATEWAY_URL, MockGateway, Recording
from discorder.transport.recorded import Connection, Kind
from discorder.wire import Op

TOKEN = "replay"  # noqa: S105  # the recording has a placeholder in its place, and the comparison leaves it out
BUDGET = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=0, max_concurrency=1)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay: the tracker as it was left, and what ended the plane (None: it was shut down at the end)."""

    tracker: GatewayTracker
    error: DiscorderError | None


async def replay(recording: Recording, config: Config, *, speed: float | None = None) -> Replayed:
    """Play ``recording`` with the publishers of ``config``; intents, shards and stored sessions are the recording's.

    ``speed`` paces it in real time (1 = as recorded), None does not wait. Raises `RecordingError` at the first difference
    between what the plane did and what was recorded, and `ConfigError` for publishers that cannot be opened.
    """
    clock = FakeClock(datetime.fromisoformat(recording.created).astimezone(UTC))
    gateway = MockGateway(recording, clock)
    ref = TrackerRef()
    around = Surroundings(
        clock=clock, dial=gateway.dial, look_up=lambda: _look_up(recording), store=_store(recording, clock)
    )
    adapted = _adapted(config, recording)
    serving = serve_config(lambda: adapted, client=BotClient(TOKEN), tracker_ref=ref, surroundings=around)
    plane = asyncio.create_task(serving, name="replayed-plane")
    try:
        tracker = await _tracker_or_error(ref, plane)
        await gateway.play(speed)
        ending = asyncio.create_task(shutdown(tracker))
        while not (ending.done() and plane.done()):
            await clock.advance(0.1)  # the end has deadlines too
        await ending
        gateway.check()
        error = plane.exception()
        if error is not None and not isinstance(error, DiscorderError):
            raise error
        return Replayed(tracker, error)
    finally:
        plane.cancel()
        await asyncio.gather(plane, return_exceptions=True)


async def _tracker_or_error(ref: TrackerRef, plane: asyncio.Task[None]) -> GatewayTracker:
    filled = asyncio.create_task(asyncio.to_thread(ref.wait))
    await asyncio.wait([filled, plane], return_when=asyncio.FIRST_COMPLETED)
    if plane.done() and (error := plane.exception()) is not None:
        await asyncio.gather(filled, return_exceptions=True)
        raise error
    return await filled


async def _look_up(recording: Recording) -> GatewayInfo:
    return GatewayInfo(url=GATEWAY_URL, shards=max(1, recording.shards), session_start_limit=BUDGET)


def _adapted(config: Config, recording: Recording) -> Config:
    """``config`` with the layout and the intents that were recorded; a failure is to be recovered from, as it was."""
    ids = sorted({connection.shard[0] for connection in recording.connections})
    count = max((connection.shard[1] for connection in recording.connections), default=1)
    intents = next((d["intents"] for _, d in _sent(recording, Op.IDENTIFY)), config.gateway.intents_value)
    layout = ShardSet(ids=tuple(ids or [0]), of=count)
    gateway = msgspec.structs.replace(
        config.gateway,
        shards=layout,
        intents=intents,
        compress=Compress.NONE,  # recorded texts are inflated already
        fail_on_error=False,
    )
    return msgspec.structs.replace(config, gateway=gateway)


def _store(recording: Recording, clock: FakeClock) -> MemorySessionStore:
    """The sessions that the recorded process had brought along: those it resumed before it had seen a READY."""
    store = MemorySessionStore()
    begun: set[tuple[int, int]] = set()
    intents = next((d["intents"] for _, d in _sent(recording, Op.IDENTIFY)), None)
    for connection, d in _sent(recording, Op.RESUME, Op.IDENTIFY):
        if connection.shard not in begun and "session_id" in d:
            store.save(
                StoredSession(
                    shard_id=connection.shard[0],
                    shard_count=connection.shard[1],
                    session_id=d["session_id"],
                    resume_url=connection.entries[0].url.partition("?")[0],
                    seq=d["seq"],
                    last_ready=None,
                    updated_at=clock.now(),
                    intents=intents or 0,
                )
            )
        begun.add(connection.shard)
    return store


def _sent(recording: Recording, *ops: Op) -> Iterator[tuple[Connection, dict[str, Any]]]:
    """The ``d`` of each sent frame with one of ``ops``, in order."""
    for connection in recording.connections:
        for entry in connection.entries:
            if entry.kind is Kind.OUT and entry.op in ops:
                yield connection, json.loads(entry.text)["d"]
