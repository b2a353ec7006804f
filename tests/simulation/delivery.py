"""Judges what reaches the publishers and the store: each event as it was given, in order, once per process, none left out.

It compares with the gateway's own record (`Session.given`); what the control plane believes does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from discorder.sessions import StoredSession
from discorder.wire import Event, session_label
from tests.simulation.faults import Kind
from tests.simulation.gateway import Gateway
from tests.simulation.life import Host, Life
from tests.simulation.loop import Process
from tests.simulation.session import Session
from tests.simulation.sinks import FILTER, Book, Page, Sink

Place = tuple[str, int]  # label of a session, seq

GAP = "DISCORDER_GAP"
LONG_AFTER = 400.0  # seconds; no fault of a sink lasts longer
SETTLED_FOR = 10.0  # seconds without an event after which everything must have been delivered and stored


class Delivery:
    """``repeating``: the sinks that are made to take a batch twice in this run."""

    def __init__(
        self, gateway: Gateway, lives: dict[Process, Life], violate: Callable[[str], None], repeating: Iterable[int]
    ) -> None:
        self._gateway = gateway
        self._lives = lives
        self._violate = violate
        self._repeating = frozenset(repeating)
        self._saved: set[str] = set()

    # ---------------------------------------------------------------- a publisher accepts

    def judge(self, process: Process, book: Book, event: Event) -> None:
        """Check an event that is accepted now."""
        life = self._lives[process]
        if event.seq is None:
            book.records.append(event)
            return
        session = self._gateway.by_label.get(event.session or "")
        if session is None or not 1 <= event.seq <= session.seq:
            self._violate(f"{book.sink.name}: an event that was never given out: {event}")
            return
        place = (session.label, event.seq)
        self._as_given(book, session, event, event.seq)
        if book.sink is Sink.LIVE:
            self._at_once(life, event.shard[0], place)
        self._once_and_in_order(life, book, place)
        if book.sink.required:
            self._without_hole(book, session, event.seq)

    def _as_given(self, book: Book, session: Session, event: Event, seq: int) -> None:
        given = session.given[seq - 1]
        if event.type != given.kind or event.data != session.data(seq) or event.shard != session.shard:
            self._violate(f"{book.sink.name}: {session.label} {seq} is not what was sent: {event}")
        if event.prev is not None and event.prev != given.prev:
            self._violate(f"{book.sink.name}: prev of {session.label} {seq} is {event.prev}, not {given.prev}")

    def _at_once(self, life: Life, shard: int, place: Place) -> None:
        fresh = life.fresh.get(shard)
        if fresh and fresh[0] == place:
            fresh.popleft()
        elif not _from_the_store(life, place):
            self._violate(f"LIVE: {place} was published, {fresh[0] if fresh else 'nothing'} was due")

    def _once_and_in_order(self, life: Life, book: Book, place: Place) -> None:
        label, seq = place
        last = life.handed.get((book.sink, label), 0)
        if seq <= last and book.sink.value not in self._repeating:
            self._violate(f"{book.sink.name}: {label} {seq} came after {last}, in one process")
        life.handed[book.sink, label] = max(last, seq)

    def _without_hole(self, book: Book, session: Session, seq: int) -> None:
        page = book.page(session.label)
        due = next_wanted(book.sink, session, page)
        if seq == due:
            page.top = seq
        elif seq > due:
            self._violate(f"{book.sink.name}: lost {session.label} {due}: {seq} came after {page.top}")

    # ---------------------------------------------------------------- the store

    def saved(self, process: Process, stored: StoredSession, now: bool) -> None:
        """A new session is stored at once. A checkpoint must not run ahead of a required sink: what lies below it is never
        asked for again.
        """
        life = self._lives[process]
        session = self._gateway.by_label[session_label(stored.session_id)]
        if session.label not in self._saved and not now:
            self._violate(f"session {session.label} is new, and is not stored at once")
        self._saved.add(session.label)
        for book in required(life.host):
            due = next_wanted(book.sink, session, book.page(session.label))
            if stored.seq >= due:
                self._violate(
                    f"checkpoint {stored.seq} of {session.label} runs ahead of {book.sink.name}, which lacks {due}"
                )

    def stored_in_time(self, host: Host) -> None:
        """Nothing was given out for a while and nothing is wrong: the store must have the last seq of each living session."""
        for session in self._gateway.sessions[-8:]:
            if (
                not session.alive
                or session.owner != host.name
                or session.given[-1].at > host.disk.loop.time() - SETTLED_FOR
            ):
                continue
            kept = host.disk.sessions.get(session.shard)
            if kept is None or session_label(kept.session_id) != session.label or kept.seq != session.seq:
                has = "nothing" if kept is None else f"{session_label(kept.session_id)} {kept.seq}"
                self._violate(
                    f"the store has {has} although {session.label} has been at {session.seq} for {SETTLED_FOR:g} s"
                )

    # ---------------------------------------------------------------- a quiet moment, and the end

    def settled(self, life: Life) -> None:
        """Check that what came in was published in the same turn to the live sink."""
        for shard, fresh in life.fresh.items():
            if fresh:
                label, seq = fresh[0]
                self._violate(f"LIVE: shard {shard} received {label} {seq} and did not publish it")

    def finished(self, host: Host) -> None:
        """At the end of a run: every event that the gateway would still have given is accepted by every required sink."""
        for book in required(host):
            for session in self._gateway.sessions:
                if session.owner != host.name:
                    continue
                due = next_wanted(book.sink, session, book.page(session.label))
                if due > session.seq:
                    continue
                if session.alive:
                    self._violate(
                        f"{book.sink.name}: lost {session.label} {due} … {session.seq}, which can still be had"
                    )
                elif due <= self._surely_received(session):
                    self._violate(
                        f"{book.sink.name}: lost {session.label} {due}, which was received and could have been kept"
                    )

    def announced(self, host: Host) -> None:
        """At the end of a run: what was lost with a session was told to every required sink, before the next READY."""
        for session, following in self._successions(host):
            opener = next((life for life in self._lives.values() if following.label in life.opened), None)
            if opener is None or session.label not in opener.known:
                continue  # who opened the next session knew nothing of this one
            for book in required(host):
                due = next_wanted(book.sink, session, book.page(session.label))
                told = any(record.session == session.label and record.type == GAP for record in book.records)
                if due <= session.seq and not told:
                    self._violate(
                        f"{book.sink.name}: lost {session.label} {due} … {session.seq}, and no gap record says so"
                    )

    def _successions(self, host: Host) -> Iterable[tuple[Session, Session]]:
        last: dict[int, Session] = {}
        for session in self._gateway.sessions:
            if session.owner == host.name:
                before = last.get(session.shard[0])
                if before is not None:
                    yield before, session
                last[session.shard[0]] = session

    def _surely_received(self, session: Session) -> int:
        """The last seq that came to a process which ended gracefully, long after, and was never congested in this session."""
        return max(
            (life.seen[session.label] for life in self._lives.values() if _had_time_for(life, session)), default=0
        )


def _from_the_store(life: Life, place: Place) -> bool:
    """Return whether it is a stored READY that an earlier process could not deliver."""
    label, seq = place
    return seq == 1 and label not in life.opened and label in life.known


def _had_time_for(life: Life, session: Session) -> bool:
    if session.label not in life.seen or session.label in life.congested or life.killed or life.stop_at is None:
        return False
    return life.stop_at - session.ended_at > LONG_AFTER


def required(host: Host) -> list[Book]:
    return [book for sink, book in host.books.items() if sink.required]


def next_wanted(sink: Sink, session: Session, page: Page) -> int:
    """Return the first seq after its top that the sink wants; past the end when there is none."""
    seq = page.top + 1
    if sink is Sink.FILTERED:
        while seq <= session.seq and not fnmatchcase(session.given[seq - 1].kind, FILTER):
            page.top, seq = seq, seq + 1
    return seq


def repeating(kinds: Iterable[tuple[Kind, int]]) -> set[int]:
    """The sinks that a plan makes repeat."""
    return {variant for kind, variant in kinds if kind is Kind.SINK_REPEATS}
