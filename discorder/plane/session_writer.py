"""Write one shard's session to the store: at once when it begins, then as far as every required publisher has accepted it.

A session that Discord ended stays stored until the next one takes its place, or until the shard has ended and every required
publisher has the record of its loss (`RETENTION`). If the process is killed before, the next one finds the loss by trying to
resume.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Final

from discorder.clock import Clock
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.sessions import SessionStore, StoredSession, UnreportedLoss
from discorder.shard.receiver import Receiver
from discorder.statemachine import Session
from discorder.wire import session_label

# a write costs about a millisecond beside the loop, and Discord keeps thousands of events for a replay
WRITE_AT_EVENTS = 100


class Retention(Enum):
    """What is stored of one shard, and why."""

    IN_USE = "the shard runs on the session that is stored, or none is"
    DROPPED = "the session is over, and the shard has no other yet"
    UNREPORTED = "the session is over and the shard has ended; a required publisher lacks some of it"
    ENDED = "the shard has ended; what is stored is for the next process"


class RetentionTrigger(Enum):
    """What happened."""

    SAVED = "a new session was stored in place of the last"
    DROPPED = "the session was given up"
    ENDED = "the shard ended, and handed the loss of a session to the publishers"
    REPORTED = "no required publisher lacks anything any more"


R, T = Retention, RetentionTrigger
RETENTION: Final[dict[tuple[Retention, RetentionTrigger], Retention]] = {
    (R.IN_USE, T.SAVED): R.IN_USE,
    (R.IN_USE, T.DROPPED): R.DROPPED,
    (R.IN_USE, T.ENDED): R.ENDED,
    (R.IN_USE, T.REPORTED): R.IN_USE,
    (R.DROPPED, T.SAVED): R.IN_USE,
    (R.DROPPED, T.DROPPED): R.DROPPED,
    (R.DROPPED, T.ENDED): R.UNREPORTED,
    (R.DROPPED, T.REPORTED): R.DROPPED,  # a kill could still come before the shard has ended
    (R.UNREPORTED, T.SAVED): R.ENDED,
    (R.UNREPORTED, T.DROPPED): R.UNREPORTED,
    (R.UNREPORTED, T.ENDED): R.UNREPORTED,
    (R.UNREPORTED, T.REPORTED): R.ENDED,  # forgets
    (R.ENDED, T.SAVED): R.ENDED,
    (R.ENDED, T.DROPPED): R.UNREPORTED,
    (R.ENDED, T.ENDED): R.ENDED,
    (R.ENDED, T.REPORTED): R.ENDED,
}
FORGETS: Final = (R.UNREPORTED, T.REPORTED)  # the one cell in which the stored session is removed


class SessionWriter:
    """Follows one shard and its publishers. The driver reports each step of its session."""

    def __init__(
        self,
        store: SessionStore,
        shard: tuple[int, int],
        receiver: Receiver,
        delivery: ShardDelivery,
        *,
        session: Session | None,
        unreported: tuple[UnreportedLoss, ...],
        intents: int,
        token: str,
        clock: Clock,
    ) -> None:
        """``session`` is the stored one, ``unreported`` what is stored beside it."""
        self._store = store
        self._unreported = unreported
        self.shard = shard
        self._receiver = receiver
        self._delivery = delivery
        self._intents = intents
        self._token = token
        self._clock = clock
        self._session = session
        self._retention = Retention.IN_USE
        self._stored_seq = self._delivered()
        self._urgent = True  # the next advance is written at once
        self.saved_at: datetime | None = None  # when this process wrote the session last
        delivery.when_moved(self._moved)

    @property
    def is_stored(self) -> bool:
        """Return whether the present session is in the store."""
        return self._session is not None and self._stored_seq is not None

    def save(self, session: Session) -> None:
        """Write a new session at once."""
        self._session = session
        self._post(RetentionTrigger.SAVED)
        seq = self._delivered()
        self._write(session, self._before_ready if seq is None else seq, now=True)

    def drop(self) -> None:
        """Stop following a session that was given up. How long it stays stored: `RETENTION`."""
        if self._session is not None:
            label, seq = _label(self._session), self._delivered()
            reached = self._reached if seq is None else seq
            self._unreported = (*self._unreported, UnreportedLoss(label, self.shard, reached, self._clock.now()))
        self._session = None
        self._post(RetentionTrigger.DROPPED)

    def pause(self, since: datetime) -> None:
        """Store that an operator has paused the shard."""
        self._store.pause(*self.shard, since)

    def unpause(self) -> None:
        """Store that the shard is not paused any more."""
        self._store.unpause(*self.shard)

    def opened(self) -> None:
        """Write what is delivered at once, and once more at the next delivery: READY or RESUMED came.

        Otherwise a process that never lives for longer than a second would resume from the same sequence each time.
        """
        self._urgent = True
        self._moved()
        self._urgent = True

    def finish(self) -> None:
        """Note that the shard has ended, and has handed the loss of a dropped session to the publishers."""
        self._post(RetentionTrigger.ENDED)
        self._check_reported()

    def checkpoint(self) -> None:
        """Write the delivered sequence if it has moved."""
        self._check_reported()
        if self._delivery.handed_seq == self._stored_seq:
            return  # nothing came since: most shards, most seconds
        seq = self._delivered()
        if self._session is not None and seq is not None and seq != self._stored_seq:
            self._write(self._session, seq, now=False)

    def _moved(self) -> None:
        """Write the first advance on a connection at once, and every `WRITE_AT_EVENTS` events; `checkpoint` writes the rest."""
        handed = self._delivery.handed_seq
        if self._session is None or handed is None:
            return
        least = 1 if self._urgent else WRITE_AT_EVENTS
        if handed - self._reached < least:  # most batches end here
            return
        seq = self._delivered()
        if seq is not None and seq - self._reached >= least:
            self._urgent = False
            self._write(self._session, seq, now=True)

    def _check_reported(self) -> None:
        if self._retention is Retention.UNREPORTED and not self._delivery.behind:
            self._post(RetentionTrigger.REPORTED)

    def _post(self, trigger: RetentionTrigger) -> None:
        forgets = (self._retention, trigger) == FORGETS
        self._retention = RETENTION[self._retention, trigger]
        if forgets:
            self._store.forget(*self.shard)

    @property
    def _before_ready(self) -> int:
        """Return the sequence at which nothing of the present session is delivered."""
        return self._receiver.ready_seq - 1

    @property
    def _reached(self) -> int:
        """Return the sequence that was written last."""
        return self._before_ready if self._stored_seq is None else self._stored_seq

    def _delivered(self) -> int | None:
        """Return the delivered sequence of the present session; None without a session, or while its READY is not delivered."""
        return None if self._session is None else self._delivery.delivered(_label(self._session))

    def _write(self, session: Session, seq: int, *, now: bool) -> None:
        """Store ``session``. A ``seq`` before READY's: READY is still to be delivered, and ``unreported`` before it."""
        self._stored_seq = seq
        if seq > self._before_ready:
            self._unreported = ()
        shard_id, shard_count = self.shard
        self.saved_at = self._clock.now()
        self._store.save(
            StoredSession(
                shard_id=shard_id,
                shard_count=shard_count,
                session_id=session.session_id,
                resume_url=session.resume_url,
                seq=seq,
                last_ready=self._receiver.last_ready,
                updated_at=self.saved_at,
                intents=self._intents,
                token_key=self._token,
                unreported=self._unreported,
                ordinal=session.ordinal,
                ready_seq=self._receiver.ready_seq,
            ),
            now=now,
        )


def _label(session: Session) -> str:
    return session_label(session.session_id, session.ordinal)
