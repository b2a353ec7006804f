"""Run one session of a bot on its connection: READY and the guilds, or a replay; then the events as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from discorder.facade import frames
from discorder.facade.clients import Client
from discorder.facade.commands import SessionCommands
from discorder.facade.handshake import Identify, Resume, begin_session, check_held, check_layout, cut_off_at
from discorder.facade.live import FacadeServices
from discorder.facade.places import Place
from discorder.facade.session_id import FacadeSession
from discorder.facade.stream import SessionStream
from discorder.guilds.feed import Snapshot
from discorder.logs import logger
from discorder.tracking.facade_status import FacadeSessionStatus
from discorder.wire import StreamPosition

LOOK_SECONDS = 0.5  # between two looks whether a shard is known

Send = Callable[[bytes], Awaitable[None]]


class BotSession:
    """One session that has a connection. ``woken`` is set when there may be more to send."""

    def __init__(
        self,
        services: FacadeServices,
        woken: asyncio.Event,
        *,
        client_name: str,
        session: FacadeSession,
        stream: SessionStream,
        from_heartbeat: bool,
    ) -> None:
        self._services = services
        self._woken = woken
        self.client_name = client_name
        self.session = session
        self.stream = stream
        self._since = services.clock.now()
        self._counts = services.counts.of(client_name, session.shard[0])
        self._chunks: deque[tuple[int, str | None]] = deque()  # of members that came before: sequence, nonce
        self.commands = SessionCommands(services.commands, client_name, session, self._send_again)
        self._from_heartbeat = from_heartbeat
        self._acknowledged = stream.seq
        self._in_burst = False
        self.sample_lag(self._since.timestamp())
        services.live.add(self)

    @property
    def shard_id(self) -> int:
        """The id of the shard."""
        return self.session.shard[0]

    def status(self, now: float, url: str) -> FacadeSessionStatus:
        """Return what is shown of it. ``now``: seconds since the epoch; ``url``: of the façade. Thread-safe."""
        stream, counts, lag = self.stream, self._counts, self.stream.lag()
        return FacadeSessionStatus(
            client=self.client_name,
            shard=self.session.shard[0],
            library=counts.library,
            position=stream.position,
            lag=lag,
            lag_s=stream.lag_seconds(now) if lag else 0.0,
            since=self._since,
            identifies=counts.identifies,
            resumes=counts.resumes,
            invalid_sessions=counts.invalid_sessions,
            url=url,
        )

    def sample_lag(self, now: float) -> None:
        """Look up the age of the oldest event that the bot has yet to get. Called once a second."""
        self.stream.sample_lag(now)

    def wake(self) -> None:
        """Look for new events soon."""
        self._woken.set()

    def heartbeat(self, seq: object) -> None:
        """Take the sequence number that the bot acknowledges."""
        if type(seq) is int and self.session.burst_end <= seq <= self.stream.seq + self.session.shift:
            self._acknowledged = max(self._acknowledged, seq - self.session.shift)

    def note_place(self) -> None:
        """Put the place of the bot into the places, unless a later session of the same bot does."""
        if self._in_burst or not self._services.live.is_newest(self):
            return
        seq = self._acknowledged if self._from_heartbeat else self.stream.seq
        self._services.places.put(self.client_name, self.shard_id, StreamPosition(self.session.label, seq))

    def end(self, why: str) -> None:
        """End it, because its connection has ended, and log ``why``."""
        lasted = (self._services.clock.now() - self._since).total_seconds()
        logger.info(
            "A session of a bot ended",
            client=self.client_name,
            shard=self.shard_id,
            why=why,
            connected_s=round(lasted, 1),
            behind=self.stream.lag(),
        )
        self.close()

    def close(self) -> None:
        """End it, because the bot has to begin another session."""
        self.note_place()
        self._services.live.remove(self)
        self.commands.close(self._services.clock)

    async def send_burst(self, snapshot: Snapshot, url: str, send: Send) -> None:
        """Send READY and the guilds as they are now."""
        self._in_burst = True
        guilds, session = snapshot.guilds, self.session
        session_id = session.encode(self._services.key, self.client_name)
        document = frames.ready(
            guilds.ready, session_id=session_id, url=url, shard=session.shard, guild_ids=guilds.guild_ids
        )
        await send(frames.dispatch(1, "READY", document))
        if session.burst_end > 1:
            for seq, guild_id in enumerate(guilds.states, 2):
                await send(frames.dispatch(seq, "GUILD_CREATE", guilds.document(guild_id)))
                await asyncio.sleep(0)  # a document takes up to a millisecond; heartbeats are answered in between
        self._in_burst = False

    async def send_events(self, send: Send) -> None:
        """Send the events that there are. Raises `SessionLost`."""
        for frame in self.stream.frames(self._services.now()):
            await send(frame)
        while self._chunks:
            chunk = self.stream.chunk_again(*self._chunks.popleft())
            if chunk is not None:
                await send(chunk)

    def _send_again(self, seqs: Sequence[int], nonce: str | None) -> None:
        """Send these chunks of members, which came before the bot asked."""
        self._chunks += [(seq, nonce) for seq in seqs]
        self.wake()

    async def send_replay(self, send: Send) -> None:
        """Send the events that the bot missed, and RESUMED. Raises `SessionLost`."""
        await self.send_events(send)
        await send(frames.dispatch(self.stream.seq + self.session.shift, "RESUMED", frames.RESUMED))


async def shard_known(services: FacadeServices, shard: int) -> None:
    """Return once the shards of the control plane are known, and ``shard``, if it is one of them, has had a READY."""
    feed = services.feed
    while (layout := feed.layout) is None or (shard in layout[0] and feed.end(shard) is None):
        await services.clock.sleep(LOOK_SECONDS)


def identified(services: FacadeServices, identify: Identify, woken: asyncio.Event) -> tuple[BotSession, Snapshot]:
    """Begin a session of a shard that is known. Raises `Refused`."""
    check_layout(identify, services.feed)
    client, shard = identify.client, identify.shard[0]
    snapshot = services.feed.snapshot(shard)
    assert snapshot is not None  # noqa: S101  # its READY has been waited for
    live = services.live
    place, together = services.places.get(client.name, shard), live.has_bot(client.name, shard)
    if together or (place is not None and _is_too_old(services, client, shard, place, snapshot.place)):
        place = None
    session = begin_session(identify, services.feed, snapshot, place)
    if client.voice == "leave" and not together:
        services.commands.leave_voice(
            client.name, shard, list(snapshot.guilds.voice_guilds()), alone=not live.of_shard(shard)
        )
    if identify.presence is not None:
        services.commands.show_presence(client.name, shard, identify.presence)
    logger.info(
        "A bot began a session of the façade",
        client=client.name,
        shard=shard,
        library=identify.library,
        guilds=len(snapshot.guilds.states),
        caught_up=session.folded - session.start,
    )
    stream = SessionStream(
        services.feed,
        session,
        session.start,
        user_id=snapshot.guilds.user_id,
        fresh_from=services.now(),
        nonces=services.commands.nonces,
    )
    services.counts.identified(client.name, shard, identify.library)
    return _session(services, woken, client.name, session, stream, client.catch_up_from), snapshot


def _is_too_old(services: FacadeServices, client: Client, shard: int, place: Place, end: StreamPosition) -> bool:
    """Return whether a bot that comes back is not to catch up; log how many events it does not get for that."""
    away_s = services.now() - place.seen_at
    if client.catch_up and away_s <= client.catch_up:
        return False
    not_sent = end.seq - cut_off_at(place, end)
    if client.catch_up and not_sent:
        logger.warning(
            "A bot was away for longer than its catch_up, so it does not get what it missed; raise catch_up of its client",
            client=client.name,
            shard=shard,
            away_s=round(away_s, 1),
            catch_up=client.catch_up,
            not_sent=not_sent,
        )
    return True


def resumed(services: FacadeServices, resume: Resume, woken: asyncio.Event) -> BotSession:
    """Go on with a session of a shard that is known. Raises `Unresumable`."""
    check_held(resume, services.feed)
    shard = resume.session.shard[0]
    snapshot = services.feed.snapshot(shard)
    assert snapshot is not None  # noqa: S101  # the session is held
    client, session = resume.client, resume.session
    logger.info("A bot resumed its session of the façade", client=client.name, shard=shard)
    stream = SessionStream(
        services.feed,
        session,
        resume.seq,
        user_id=snapshot.guilds.user_id,
        fresh_from=0.0,
        nonces=services.commands.nonces,
    )
    services.counts.of(client.name, shard).resumes += 1
    return _session(services, woken, client.name, session, stream, client.catch_up_from)


def _session(
    services: FacadeServices,
    woken: asyncio.Event,
    client_name: str,
    session: FacadeSession,
    stream: SessionStream,
    catch_up_from: str,
) -> BotSession:
    begun = BotSession(
        services,
        woken,
        client_name=client_name,
        session=session,
        stream=stream,
        from_heartbeat=catch_up_from == "heartbeat",
    )
    begun.note_place()
    return begun
