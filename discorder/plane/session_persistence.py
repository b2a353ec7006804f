"""Open, load and close what outlives a process: the session store and the identify gate of one control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from discorder.clock import Clock
from discorder.config import Config
from discorder.errors import ConfigError, StoreLocked
from discorder.logs import logger
from discorder.plane.session_writer import SessionWriter
from discorder.publishers.delivery.shard_progress import LostSession, ShardDelivery
from discorder.rest import GatewayInfo, Token
from discorder.sessions import (
    Budget,
    Health,
    IdentifyGate,
    IdentifyQueue,
    OtherUse,
    Refusal,
    SavedSessions,
    Seal,
    SessionStore,
    SqliteSessionStore,
    StartLimit,
    StoredSession,
    StoreState,
    Ticket,
    bot_key,
    fitting,
    open_store,
    overlap,
    token_key,
)
from discorder.shard.receiver import Receiver
from discorder.statemachine import Session
from discorder.tracking.shard_tracker import ShardTracker

Layout = tuple[Sequence[int], int]  # shard ids, shard count
GatewayLookUp = Callable[[], Awaitable[GatewayInfo]]
WHOLE_LAYOUT = [(0, 1)]  # overlaps with every shard: held while the layout is not known
GIVE_BACK_EVERY = 1.0  # seconds between two tries to write a shard that is to be given back


@dataclass(frozen=True, slots=True)
class Claim:
    """What to do about shards that another process holds: ask it to hand them over, or wait ``patience`` seconds for it to leave.

    Without either the start is refused at once. ``take_over`` waits for at least as long as a hand-over may take.
    """

    take_over: bool = False
    patience: float = 0.0


NO_CLAIM = Claim()


class Sessions:
    """Store and gate of one control plane. ``store`` is open; `close` closes it. ``token`` is the token's `token_key`."""

    def __init__(self, store: SessionStore, *, look_up: GatewayLookUp, intents: int, token: str, clock: Clock) -> None:
        self._store = store
        self._look_up = look_up
        self._intents = intents
        self._token = token
        self._clock = clock
        self._gate = IdentifyGate(clock, store, look_up=self._fresh_limit)
        self._writers: list[SessionWriter] = []
        self._misfits: list[StoredSession] = []
        self._told: set[tuple[tuple[int, int], str]] = (
            set()
        )  # shard and label of the misfits that `lost_to` has returned
        self._holds_all = False  # `WHOLE_LAYOUT`
        self._pauses: Mapping[tuple[int, int], datetime] = {}  # as they were stored at the start

    async def hold(self, layout: Layout | None, claim: Claim) -> None:
        """Hold the shards of ``layout`` until `close`, all of them while it is not known. Raises `StoreLocked`."""
        shards = WHOLE_LAYOUT if layout is None else [(shard, layout[1]) for shard in layout[0]]
        await self._store.hold(shards, take_over=claim.take_over, patience=claim.patience)
        self._holds_all = layout is None
        if isinstance(self._store, SqliteSessionStore):
            logger.info("Opened the session store", path=str(self._store.path), health=str(self._store.health))
        self._pauses = await self._store.load_pauses()

    async def acquire(self, shard: tuple[int, int]) -> None:
        """Hold one more shard (id, count). Raises `StoreLocked`, which names the holder, and `UnusableFile`."""
        try:
            await self._store.hold([shard])
        except StoreLocked as error:
            remedy = f"Release it there first (discorder shards release {shard[0]}), or stop that process"
            raise StoreLocked(error.held, error.pid, remedy) from error
        self._pauses = await self._store.load_pauses()

    def leave(self, shard: tuple[int, int]) -> None:
        """Write what is delivered of a shard that has ended, and write no more of it."""
        for writer in [writer for writer in self._writers if writer.shard == shard]:
            writer.checkpoint()
            self._writers.remove(writer)

    async def give_back(self, shard: tuple[int, int], kept: Sequence[tuple[int, int]]) -> None:
        """Let another process hold a shard, once all of it is on the disk. ``kept``: the shards that this process goes on with.

        While the store fails it is tried again: the next owner must not begin with an older sequence.
        """
        await self._store.flush()
        if self._store.health.state is StoreState.FAILING:
            logger.warning(
                "The shard stays held until the session store can be written",
                shard=shard[0],
                reason=self._store.health.reason,
            )
        while self._store.health.state is StoreState.FAILING:
            await self._clock.sleep(GIVE_BACK_EVERY)
            await self._store.flush()
        if self._holds_all:
            await self._store.hold(kept)
            self._store.release(WHOLE_LAYOUT)
            self._holds_all = False
        self._store.release([shard])

    def apply_pauses(self, shards: Sequence[ShardTracker]) -> None:
        """Mark those of ``shards`` that an operator has paused. A pause of another layout that overlaps with them ends."""
        ours = {(shard.shard_id, shard.shard_count): shard for shard in shards}
        for paused, since in self._pauses.items():
            if paused in ours:
                ours[paused].paused_since = since
                self._store.pause(*paused, since)  # known to this process too, if the store has to be begun anew
            elif any(paused[1] != shard[1] and overlap(paused, shard) for shard in ours):
                self._store.unpause(*paused)
                logger.warning(
                    "A pause ends because the shard layout has changed",
                    shard=paused[0],
                    of=paused[1],
                    since=since.isoformat(timespec="seconds"),
                )

    def pause(self, shard: tuple[int, int], since: datetime) -> None:
        """Store that an operator has paused a shard that has no driver yet."""
        self._store.pause(*shard, since)

    def unpause(self, shard: tuple[int, int]) -> None:
        """Store that a shard without a driver is not paused any more."""
        self._store.unpause(*shard)

    @property
    def health(self) -> Health:
        """Return the health of the store."""
        return self._store.health

    @property
    def budget(self) -> Budget | None:
        """Return the budget by the ledger; None before the look-up."""
        return self._gate.budget

    async def load(self, layout: Layout | None) -> Mapping[int, StoredSession]:
        """Return the sessions that can be resumed, by shard id; none while the layout is not known."""
        if layout is None:
            return {}
        stored = await self._store.load_all()
        fit = fitting(stored, layout[1], self._intents, self._token)
        self._misfits = [
            session
            for session in stored
            if fit.get(session.shard_id) is not session and (session.shard, session.label) not in self._told
        ]
        return {shard: session for shard, session in fit.items() if shard in layout[0]}

    def lost_to(self, shard: tuple[int, int]) -> list[LostSession]:
        """Return the stored sessions of another layout, intents or token that end when ``shard`` (id, count) opens its own.

        Each is returned once: one that overlaps with several shards goes to the first of them.
        """
        ending = [session for session in self._misfits if overlap(shard, session.shard)]
        self._misfits = [session for session in self._misfits if session not in ending]
        self._told.update((session.shard, session.label) for session in ending)
        lost: list[LostSession] = []
        for session in ending:
            lost += unreported_before(session, still_stored=True)
            lost.append(
                LostSession(
                    shard=session.shard,
                    session=session.label,
                    delivered=session.seq,
                    cause=why_unfit(session, shard, self._intents, self._token),
                    since=session.updated_at,
                    still_stored=True,
                )
            )
        return lost

    def writer(
        self, shard: ShardTracker, receiver: Receiver, delivery: ShardDelivery, stored: StoredSession | None
    ) -> SessionWriter:
        """Return the writer for one shard, which begins with the session that is ``stored``, or without one."""
        identity = (shard.shard_id, shard.shard_count)
        writer = SessionWriter(
            self._store,
            identity,
            receiver,
            delivery,
            session=None if stored is None else Session(stored.session_id, stored.resume_url, stored.ordinal),
            unreported=() if stored is None else stored.unreported,
            intents=self._intents,
            token=self._token,
            clock=self._clock,
        )
        self._writers.append(writer)
        return writer

    def ordinal(self, session_id: str) -> int:
        """See `SessionStore.ordinal`."""
        return self._store.ordinal(session_id)

    async def forget_what_never_began(self, layout: Layout | None) -> None:
        """Remove the stored sessions of the shards of ``layout`` that a goodbye stopped before they had drivers.

        There is no socket to close with 1000; Discord lets such a session expire.
        """
        begun = {writer.shard for writer in self._writers}
        for session in await self._store.load_all():
            ours = layout is None or (session.shard_count == layout[1] and session.shard_id in layout[0])
            if ours and session.shard not in begun:
                self._store.forget(*session.shard)

    def set_limits(self, info: GatewayInfo, shard_count: int) -> None:
        """Pass the limits of a look-up to the gate: IDENTIFYs can be paid for."""
        self._gate.set_limits(start_limit(info), shard_count)

    async def admit(self, shard_id: int) -> Ticket | Refusal:
        """See `IdentifyGate.admit`."""
        return await self._gate.admit(shard_id)

    @property
    def identify_queue(self) -> IdentifyQueue:
        """See `IdentifyGate.identify_queue`."""
        return self._gate.identify_queue

    @property
    def saved(self) -> SavedSessions:
        """Return how many sessions are stored, and when the last one was written."""
        times = [writer.saved_at for writer in self._writers if writer.saved_at is not None]
        path = self._store.path if isinstance(self._store, SqliteSessionStore) else None
        stored = sum(writer.is_stored for writer in self._writers) if self._store.health.durable else 0
        return SavedSessions(stored, max(times, default=None), path)

    @property
    def other_use(self) -> OtherUse | None:
        """See `IdentifyGate.other_use`."""
        return self._gate.other_use

    def seconds_to_identify(self, shard_ids: Sequence[int]) -> float | None:
        """See `IdentifyGate.seconds_to_identify`."""
        return self._gate.seconds_to_identify(shard_ids)

    def checkpoint(self) -> None:
        """Write what has moved since the last call."""
        for writer in self._writers:
            writer.checkpoint()

    async def flush(self) -> None:
        """See `SessionStore.flush`."""
        await self._store.flush()

    async def close(self) -> None:
        """Write what is left, and close the gate and the store."""
        await self._gate.close()
        await self._store.close()

    async def _fresh_limit(self) -> StartLimit:
        return start_limit(await self._look_up())


async def open_sessions(
    config: Config, token: Token, clock: Clock, *, store: SessionStore | None, look_up: GatewayLookUp, claim: Claim
) -> Sessions:
    """Open the session store of ``config``, unless ``store`` is given. Raises `ConfigError` for a ``claim`` without a store."""
    if claim != NO_CLAIM and not config.session.store:
        msg = (
            "taking over and waiting need a session store: the processes that share one know of each other by it; "
            'set [session] store (it is ""), or start without --take-over and --wait'
        )
        raise ConfigError(msg)
    bot = bot_key(token.reveal())  # the token is in no variable of a frame: error reporters show them
    return Sessions(
        store or await open_store(config.session.store, bot=bot, clock=clock, seal=Seal.of(token.reveal())),
        look_up=look_up,
        intents=config.gateway.intents_value,
        token=token_key(token.reveal()),
        clock=clock,
    )


def why_unfit(session: StoredSession, shard: tuple[int, int], intents: int, token: str) -> str:
    """Return why ``shard`` (id, count), with these intents and `token_key`, cannot resume a session that is not `fitting`."""
    if session.shard != shard:
        return "the shard layout changed"
    if not session.trusted and session.token_key in {"", token}:
        return "the stored session is not signed with this token"
    return "the token changed" if session.intents == intents else "the intents changed"


def unreported_before(stored: StoredSession, *, still_stored: bool = False) -> list[LostSession]:
    """Return the sessions before ``stored`` whose loss did not reach every required publisher before their process ended."""
    return [
        LostSession(
            shard=unreported.shard,
            session=unreported.session,
            delivered=unreported.seq,
            cause="the session ended, and the process too, before its last events were delivered",
            since=unreported.since,
            still_stored=still_stored,
        )
        for unreported in stored.unreported
    ]


def start_limit(info: GatewayInfo) -> StartLimit:
    """Convert the identify budget of a look-up to the ledger's type."""
    limit = info.session_start_limit
    return StartLimit(
        total=limit.total,
        remaining=limit.remaining,
        reset_after_ms=limit.reset_after_ms,
        max_concurrency=limit.max_concurrency,
    )
