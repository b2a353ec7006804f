"""What outlives a connection and a process: the plane's side of the session store and of the identify gate.

It translates between the two worlds (a `Session` and a sequence here, a `StoredSession` there) and owns their life.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from discorder.clock import Clock
from discorder.publishers.delivery import LostSession, ShardDelivery
from discorder.rest import GatewayInfo
from discorder.sessions import (
    Budget,
    Health,
    IdentifyGate,
    OtherUse,
    Refusal,
    SessionStore,
    StartLimit,
    StoredSession,
    Ticket,
    Untold,
    fitting,
    overlap,
)
from discorder.shard.reception import Reception
from discorder.statemachine import Session
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import session_label

Layout = tuple[Sequence[int], int]  # shard ids, shard count
LookUp = Callable[[], Awaitable[GatewayInfo]]
WHOLE_LAYOUT = [(0, 1)]  # overlaps with every shard: for a plane that does not know its layout yet


@dataclass(frozen=True, slots=True)
class Claim:
    """What to do about shards that another process holds: ask it to hand them over, wait so many seconds for it to leave.

    Without either the start is refused at once. Whoever asks waits for at least as long as a hand-over may take.
    """

    take_over: bool = False
    patience: float = 0.0


NO_CLAIM = Claim()


class Keeper:
    """One shard's way to the store."""

    def __init__(
        self,
        store: SessionStore,
        shard: tuple[int, int],
        reception: Reception,
        delivery: ShardDelivery,
        *,
        session: Session | None,
        untold: tuple[Untold, ...],
        intents: int,
        token: str,
        clock: Clock,
    ) -> None:
        """``untold``: what is stored beside ``session``."""
        self._store = store
        self._untold = untold
        self.shard = shard
        self._reception = reception
        self._delivery = delivery
        self._intents = intents
        self._token = token
        self._clock = clock
        self._session = session
        self._dropped = False
        self._finished = False
        self._stored_seq = self._delivered()

    def save(self, session: Session) -> None:
        """A new session: written at once."""
        self._session = session
        self._dropped = False
        self._write(session, self._delivered() or 0, now=True)

    def drop(self) -> None:
        """The session is gone. It stays stored until the next one takes its place or `finish`: a process that is killed meanwhile
        could not tell anybody what is missing, and the next one finds out by trying to resume.
        """
        if self._session is not None:
            label, seq = session_label(self._session.session_id), self._delivered()
            reached = (self._stored_seq or 0) if seq is None else seq
            self._untold = (*self._untold, Untold(label, self.shard, reached, self._clock.now()))
        self._session = None
        self._dropped = True

    def finish(self) -> None:
        """The shard has ended, and has told of a session that it dropped."""
        self._finished = True
        self._forget_if_told()

    def checkpoint(self) -> None:
        """Write the delivered sequence if it has moved; the store does it in its own time."""
        self._forget_if_told()
        seq = self._delivered()
        if self._session is not None and seq is not None and seq != self._stored_seq:
            self._write(self._session, seq, now=False)

    def _forget_if_told(self) -> None:
        """While a publisher that must not lose lacks some of it, it stays stored: the next process finds out, and tells."""
        if self._dropped and self._finished and not self._delivery.behind:
            self._dropped = False
            self._store.forget(*self.shard)

    def _delivered(self) -> int | None:
        """In the present session; None while its READY is not delivered, or when it is not ours yet or any more."""
        return None if self._session is None else self._delivery.delivered(session_label(self._session.session_id))

    def _write(self, session: Session, seq: int, *, now: bool) -> None:
        """``seq`` 0: what is stored with the session, READY, is still to be delivered, and with it what stands before it."""
        self._stored_seq = seq
        if seq:
            self._untold = ()
        shard_id, shard_count = self.shard
        self._store.save(
            StoredSession(
                shard_id=shard_id,
                shard_count=shard_count,
                session_id=session.session_id,
                resume_url=session.resume_url,
                seq=seq,
                last_ready=self._reception.last_ready,
                updated_at=self._clock.now(),
                intents=self._intents,
                token_key=self._token,
                untold=self._untold,
            ),
            now=now,
        )


class Sessions:
    """Store and gate of one control plane. ``store`` is open; `close` closes it. ``token`` is the token's `token_key`."""

    def __init__(self, store: SessionStore, *, look_up: LookUp, intents: int, token: str, clock: Clock) -> None:
        self._store = store
        self._look_up = look_up
        self._intents = intents
        self._token = token
        self._clock = clock
        self._gate = IdentifyGate(clock, store, look_up=self._fresh_limit)
        self._keepers: list[Keeper] = []
        self._misfits: list[StoredSession] = []

    async def hold(self, layout: Layout | None, claim: Claim) -> None:
        """Hold the shards of ``layout`` until `close`, all of them while it is not known. Raises `StoreLocked`."""
        shards = WHOLE_LAYOUT if layout is None else [(shard, layout[1]) for shard in layout[0]]
        await self._store.hold(shards, take_over=claim.take_over, patience=claim.patience)

    @property
    def health(self) -> Health:
        """How the store does."""
        return self._store.health

    @property
    def budget(self) -> Budget | None:
        """What the ledger says now; None before the look-up."""
        return self._gate.budget

    async def load(self, layout: Layout | None) -> Mapping[int, StoredSession]:
        """The sessions that can be resumed, by shard id; none while the layout is not known."""
        if layout is None:
            return {}
        stored = await self._store.load_all()
        fit = fitting(stored, layout[1], self._intents, self._token)
        self._misfits = [session for session in stored if fit.get(session.shard_id) is not session]
        return {shard: session for shard, session in fit.items() if shard in layout[0]}

    def lost_to(self, shard: tuple[int, int]) -> list[LostSession]:
        """The stored sessions of another layout, intents or token that end when ``shard`` (id, count) opens one of its own.

        Each is told of once: what overlaps with several shards goes to the first that asks.
        """
        ending = [session for session in self._misfits if overlap(shard, session.shard)]
        self._misfits = [session for session in self._misfits if session not in ending]
        lost: list[LostSession] = []
        for session in ending:
            lost += untold_before(session, still_stored=True)
            lost.append(
                LostSession(
                    shard=session.shard,
                    session=session_label(session.session_id),
                    delivered=session.seq,
                    cause=self._why_unfit(session, shard),
                    since=session.updated_at,
                    still_stored=True,
                )
            )
        return lost

    def _why_unfit(self, session: StoredSession, shard: tuple[int, int]) -> str:
        if session.shard != shard:
            return "the shard layout changed"
        return "the token changed" if session.intents == self._intents else "the intents changed"

    def keeper(
        self, shard: ShardTracker, reception: Reception, delivery: ShardDelivery, stored: StoredSession | None
    ) -> Keeper:
        """For the driver of one shard, which begins with the session that is ``stored``, or without one."""
        identity = (shard.shard_id, shard.shard_count)
        keeper = Keeper(
            self._store,
            identity,
            reception,
            delivery,
            session=None if stored is None else Session(stored.session_id, stored.resume_url),
            untold=() if stored is None else stored.untold,
            intents=self._intents,
            token=self._token,
            clock=self._clock,
        )
        self._keepers.append(keeper)
        return keeper

    async def forget_what_never_began(self, layout: Layout | None) -> None:
        """A goodbye came before the shards of ``layout`` had drivers: what is stored of them is not to be resumed either.

        There is no socket to say it on; Discord lets such a session expire.
        """
        begun = {keeper.shard for keeper in self._keepers}
        for session in await self._store.load_all():
            ours = layout is None or (session.shard_count == layout[1] and session.shard_id in layout[0])
            if ours and session.shard not in begun:
                self._store.forget(*session.shard)

    def set_limits(self, info: GatewayInfo, shard_count: int) -> None:
        """A look-up has answered: IDENTIFYs can be paid for."""
        self._gate.set_limits(start_limit(info), shard_count)

    async def admit(self, shard_id: int) -> Ticket | Refusal:
        """See `IdentifyGate.admit`."""
        return await self._gate.admit(shard_id)

    @property
    def other_use(self) -> OtherUse | None:
        """See `IdentifyGate.other_use`."""
        return self._gate.other_use

    def seconds_to_identify(self, shard_ids: Sequence[int]) -> float | None:
        """See `IdentifyGate.seconds_to_identify`."""
        return self._gate.seconds_to_identify(shard_ids)

    def checkpoint(self) -> None:
        """Write what has moved since the last call."""
        for keeper in self._keepers:
            keeper.checkpoint()

    async def close(self) -> None:
        """Write what is left and let go of everything."""
        await self._gate.close()
        await self._store.close()

    async def _fresh_limit(self) -> StartLimit:
        return start_limit(await self._look_up())


def untold_before(stored: StoredSession, *, still_stored: bool = False) -> list[LostSession]:
    """The sessions before ``stored`` of which its process could not tell every publisher that must not lose."""
    return [
        LostSession(
            shard=untold.shard,
            session=untold.session,
            delivered=untold.seq,
            cause="the session ended, and the process too, before its last events were delivered",
            since=untold.since,
            still_stored=still_stored,
        )
        for untold in stored.untold
    ]


def start_limit(info: GatewayInfo) -> StartLimit:
    """The identify budget of a look-up, in the ledger's words."""
    limit = info.session_start_limit
    return StartLimit(
        total=limit.total,
        remaining=limit.remaining,
        reset_after_ms=limit.reset_after_ms,
        max_concurrency=limit.max_concurrency,
    )
