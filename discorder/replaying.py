"""A recorded session played through a whole control plane: the plane is real, its clock and its gateway are the recording's."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from discorder.clock import FakeClock
from discorder.config import Compress, Config, ShardSet
from discorder.control_plane import serve_config, shutdown
from discorder.errors import DiscorderError, RecordingError
from discorder.plane import Surroundings
from discorder.publishers.health import PublisherHealth, PublisherState
from discorder.publishers.protocol import Publisher
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import MemorySessionStore, StoredSession
from discorder.statemachine.close_codes import GOODBYE_CLOSE
from discorder.tracking.tracker import GatewayTracker
from discorder.tracking.tracker_ref import TrackerRef
from discorder.transport import GATEWAY_URL, MockGateway, Recording
from discorder.transport.recorded import Connection, Kind
from discorder.wire import Op

TOKEN = "replay"  # noqa: S105  # the recording has a placeholder in its place, and the comparison leaves it out
REAL_STEP = 0.002  # seconds
CATCH_UP_STEPS = 500  # one second; a publisher that takes longer is its queue's affair, as in a live run
BUDGET = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=0, max_concurrency=1)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay: the tracker as it was left, and what ended the plane (None: it was shut down at the end)."""

    tracker: GatewayTracker
    error: DiscorderError | None


async def replay(
    recording: Recording,
    config: Config,
    *,
    speed: float | None = None,
    publishers: Sequence[Publisher] = (),
) -> Replayed:
    """Play ``recording`` with the publishers of ``config``; intents, shards and stored sessions are the recording's.

    ``speed`` paces it in real time (1 = as recorded), None does not wait. ``publishers`` get every event too, besides those
    of ``config``. A replay of the same file is the same each time. Raises `RecordingError` at the first difference between
    what the plane did and what was recorded, and `ConfigError` for publishers that cannot be opened.
    """
    clock = FakeClock(_began(recording))
    ref = _Ref(publishers)
    gateway = MockGateway(recording, clock, settle=ref.publishers_caught_up)
    adapted = _adapted(config, recording)
    around = Surroundings(
        clock=clock,
        rng=random.Random(0),
        dial=gateway.dial,
        look_up=lambda: _look_up(recording),
        store=_store(recording, clock, adapted.gateway.intents_value),
        watchdog=False,
    )
    serving = serve_config(lambda: adapted, client=BotClient(TOKEN), tracker_ref=ref, surroundings=around)
    plane = asyncio.create_task(serving, name="replayed-plane")
    try:
        tracker = await _tracker_or_error(ref, plane)
        await gateway.play(speed)
        ending = asyncio.create_task(shutdown(tracker, goodbye=_said_goodbye(recording)))
        while not (ending.done() and plane.done()):
            await clock.advance(REAL_STEP)  # the end has deadlines too
            await asyncio.sleep(REAL_STEP)  # and publishers that close in threads have no fake clock
        await ending
        gateway.check()
        error = plane.exception()
        if error is not None and not isinstance(error, DiscorderError):
            raise error
        return Replayed(tracker, error)
    finally:
        plane.cancel()
        await asyncio.gather(plane, return_exceptions=True)


class _Ref(TrackerRef):
    """Adds the caller's publishers before the first dial, and tells when all publishers have what they were given."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        super().__init__()
        self._publishers = publishers

    def fill(self, tracker: GatewayTracker) -> None:
        for publisher in self._publishers:
            tracker.add_publisher(publisher)
        super().fill(tracker)

    async def publishers_caught_up(self) -> None:
        """Wait in real time, or the clock of the recording would run ahead of a publisher that works in a thread."""
        for _ in range(CATCH_UP_STEPS):
            if not any(health.queued_events + health.in_flight for health in self._working()):
                return
            await asyncio.sleep(REAL_STEP)

    def _working(self) -> list[PublisherHealth]:
        return [health for health in self.value.publisher_health if health.state is PublisherState.HEALTHY]


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


def _began(recording: Recording) -> datetime:
    """When the recording was made, UTC; some fixed moment if it does not say. Raises `RecordingError` for what is no time."""
    try:
        return datetime.fromisoformat(recording.created or "2026-01-01T00:00:00+00:00").astimezone(UTC)
    except ValueError:
        msg = f'{recording.path}:1: "created" is {recording.created!r}, expected a time such as "2026-01-01T00:00:00+00:00"'
        raise RecordingError(msg) from None


def _said_goodbye(recording: Recording) -> bool:
    """Whether the recorded process ended its sessions when it stopped, rather than keeping them for the next start."""
    ends = [connection.entries[-1] for connection in recording.connections]
    return any(end.kind is Kind.CLOSE and end.by == "us" and end.code == GOODBYE_CLOSE for end in ends)


def _store(recording: Recording, clock: FakeClock, intents: int) -> MemorySessionStore:
    """The sessions that the recorded process had brought along: those it resumed before it had seen a READY."""
    store = MemorySessionStore()
    begun: set[tuple[int, int]] = set()
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
                    intents=intents,
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
