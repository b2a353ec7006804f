"""Merge the status documents of several processes into one.

Shards, history and log are put together, counters added. A process that does not answer stands there with its shards, which do
not serve as far as is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec

from discorder.group.flows import merge_flows
from discorder.group.member import Member
from discorder.group.verdict import Judged, merge_verdicts
from discorder.logs.tail import RECORDS
from discorder.sessions import SPACING, StoreState
from discorder.statemachine import State
from discorder.status.delivery import MOST_CLIENTS, MOST_TOPICS
from discorder.status.describer import HISTORY
from discorder.status.document import (
    SCHEMA,
    AgesPart,
    BudgetPart,
    BusPart,
    ColdStartPart,
    CountsPart,
    EventTypePart,
    HeartbeatPart,
    Level,
    LogRecordPart,
    MemberPart,
    Moment,
    NextAction,
    NextKind,
    NextPart,
    NotePart,
    ProcessPart,
    ProgressPart,
    PublisherPart,
    RingPart,
    SessionsPart,
    ShardPart,
    StatusDocument,
    StorePart,
    SubscriptionPart,
    TotalsPart,
)
from discorder.status.rates import COMMONEST
from discorder.tracking.shard_tracker import Host

STORE_STATES = list(StoreState)  # the best first


@dataclass
class Part:
    """What is known of one process: its document, or None and the ``problem``; ``since``: when that began.

    ``answered``: it, or a process that it replaces, has answered before, so that its shards have served.
    """

    member: Member
    since: Moment
    document: StatusDocument | None = None
    problem: str = ""
    answered: bool = False

    def update(self, document: StatusDocument, at: Moment) -> None:
        """Take a whole document."""
        label_shards(document.shards, self.member)
        label_log(document.log, self.member)
        if self.document is None:
            self.since = at
        self.document, self.problem, self.answered = document, "", True

    def lose(self, problem: str, at: Moment) -> bool:
        """Note that the process does not answer. Return whether that is news."""
        if self.document is not None:
            self.since = at
        is_news = self.document is not None or problem != self.problem
        self.document, self.problem = None, problem
        return is_news

    @property
    def shards(self) -> list[ShardPart]:
        """Return the shards of the process."""
        if self.document is not None:
            return self.document.shards
        return [_unknown_shard(shard, self) for shard in self.member.shards]


def label_shards(shards: Iterable[ShardPart], member: Member) -> None:
    """Note which process has these shards."""
    for shard in shards:
        shard.owner = member.name


def label_log(records: Iterable[LogRecordPart], member: Member) -> None:
    """Note which process has logged these records."""
    for record in records:
        record.fields["process"] = member.number


def merge(parts: Sequence[Part], process: ProcessPart, log: Sequence[LogRecordPart], at: Moment) -> StatusDocument:
    """Return the documents of ``parts`` as one. ``process``: the supervising one, ``log``: its records, the newest first."""
    known = [(part.member.number, part.document) for part in parts if part.document is not None]
    documents = [document for _, document in known]
    shards = sorted(chain.from_iterable(part.shards for part in parts), key=lambda shard: shard.id)
    transitions = sorted(
        chain.from_iterable(document.transitions for document in documents), key=lambda step: step.at, reverse=True
    )
    records = sorted(chain(log, *(document.log for document in documents)), key=lambda record: record.at, reverse=True)
    return StatusDocument(
        schema=SCHEMA,
        at=at,
        process=_process(parts, process),
        verdict=merge_verdicts([_judged(part) for part in parts], shards),
        progress=ProgressPart(
            ready=sum(document.progress.ready for document in documents),
            total=len(shards),
            eta_s=max((eta for one in documents if (eta := one.progress.eta_s) is not None), default=None),
        ),
        notes=_notes(known),
        flows=merge_flows([document.flows for document in documents], at),
        event_types=_event_types(documents),
        shards=shards,
        transitions=transitions[:HISTORY],
        publishers=[_publisher(one, number) for number, document in known for one in document.publishers],
        bus=_bus([document.bus for document in documents if document.bus is not None]),
        facade=None,
        cluster=None,
        budget=_budget([document.budget for document in documents], [shard.id for shard in shards]),
        store=_store([document.store for document in documents]),
        sessions=SessionsPart(
            held=sum(one.sessions.held for one in documents),
            stored=sum(one.sessions.stored for one in documents),
            last_saved_at=max((one.sessions.last_saved_at or "" for one in documents), default="") or None,
        ),
        totals=_sum([document.totals for document in documents]),
        log=records[:RECORDS],
    )


def _unknown_shard(shard: int, part: Part) -> ShardPart:
    return ShardPart(
        id=shard,
        state=State.DISCONNECTED,
        healthy=False,
        parked=False,
        paused=False,
        reasons=[f"{part.member.name}: {part.problem}"],
        since=part.since,
        cause=f"{part.member.name}: {part.problem}",
        attempt=0,
        generation=0,
        session=None,
        seq=None,
        guilds=None,
        events_per_s=0.0,
        owner=part.member.name,
        ages_s=AgesPart(frame=None, ack=None, dispatch=None, unanswered_beat=None),
        heartbeat=HeartbeatPart(interval_s=None, latency_s=None),
        counts=CountsPart(restarts=0, resumes=0, identifies=0),
        next=_next_start(part),
    )


def _judged(part: Part) -> Judged:
    """Return the verdict on one process: its own, or that it does not answer."""
    document, member = part.document, part.member
    if document is not None:
        verdict = document.verdict
        return Judged(member.number, verdict.level, verdict.detail, verdict.reasons, verdict.since)
    if member.stops:
        return Judged(member.number, Level.STOPPING, "it stops.", [], part.since)
    level = Level.STARTING if member.url and member.is_starting() and not part.answered else Level.DOWN
    return Judged(member.number, level, f"{part.problem}.", [part.problem], part.since)


def _next_start(part: Part) -> NextPart | None:
    """Return when the process of a shard that is not known starts, or since when it does; None if nothing brings it back."""
    member = part.member
    kind = NextKind.PLANNED if member.again_at is not None else NextKind.ESTIMATE
    if member.stops or (member.again_at is None and not (member.url and member.is_starting())):
        return None
    return NextPart(
        kind=kind,
        action=NextAction.PROCESS,
        purpose=None,
        at=member.again_at or part.since,
        host=Host.MAIN,
        attempt=None,
        backoff_s=None,
        identifies=0,
        text=f"Start of {member.name}, then RESUME",
    )


def _process(parts: Sequence[Part], process: ProcessPart) -> ProcessPart:
    """Return the supervising process with the use of all: sums, the longest delay, the open files nearest to their limit."""
    own = [part.document.process for part in parts if part.document is not None]
    every = [process, *own]
    nearest = max(every, key=lambda one: (one.open_files.used or 0) / (one.open_files.limit or 1 << 30))
    lag = msgspec.structs.replace(
        process.loop_lag_s,
        now=max(one.loop_lag_s.now for one in every),
        worst=max(one.loop_lag_s.worst for one in every),
    )
    return msgspec.structs.replace(
        process,
        compression=", ".join(sorted({one.compression for one in own})),
        loop_lag_s=lag,
        memory_bytes=sum(one.memory_bytes or 0 for one in every),
        cpu_ratio=round(sum(one.cpu_ratio or 0.0 for one in every), 4),
        open_files=nearest.open_files,
        processes=[_member(part) for part in parts],
    )


def _member(part: Part) -> MemberPart:
    document, member = part.document, part.member
    return MemberPart(
        number=member.number,
        pid=member.pid,
        shards=len(member.shards),
        healthy=document is not None and document.verdict.healthy,
        headline=part.problem if document is None else document.verdict.headline,
        started_at=None if document is None else document.process.started_at,
        memory_bytes=None if document is None else document.process.memory_bytes,
        cpu_ratio=None if document is None else document.process.cpu_ratio,
    )


def _notes(known: Sequence[tuple[int, StatusDocument]]) -> list[NotePart]:
    """Return the notes; one that all processes have stands there once, others name their process."""
    notes: dict[tuple[str, str, str], list[tuple[int, NotePart]]] = {}
    for number, document in known:
        for note in document.notes:
            notes.setdefault((note.kind, note.title, note.text), []).append((number, note))
    merged = []
    for same in notes.values():
        _, note = min(same, key=lambda one: one[1].since)
        if len(same) < len(known):
            numbers = ", ".join(str(number) for number, _ in same)
            note = msgspec.structs.replace(note, text=f"Process {numbers}: {note.text}")
        merged.append(note)
    return merged


def _event_types(documents: Sequence[StatusDocument]) -> list[EventTypePart]:
    totals, rates = Counter[str](), Counter[str]()
    for one in chain.from_iterable(document.event_types for document in documents):
        totals[one.type] += one.total
        rates[one.type] += one.per_s  # type: ignore[assignment]  # a Counter adds any number
    return [
        EventTypePart(type=name, per_s=round(float(rates[name]), 1), total=total)
        for name, total in totals.most_common(COMMONEST)
    ]


def _publisher(one: PublisherPart, number: int) -> PublisherPart:
    return msgspec.structs.replace(one, process=number)


def _bus(buses: Sequence[BusPart]) -> BusPart | None:
    if not buses:
        return None
    topics = Counter[str]()
    for one in chain.from_iterable(bus.subscriptions for bus in buses):
        topics[one.topic] += one.count
    connections = sorted(chain.from_iterable(bus.connections for bus in buses), key=lambda one: one.since, reverse=True)
    rings = [bus.ring for bus in buses]
    return BusPart(
        bind=", ".join(bus.bind for bus in buses),
        router_bind=", ".join(bus.router_bind for bus in buses if bus.router_bind),
        connections=connections[:MOST_CLIENTS],
        subscriptions=[SubscriptionPart(topic=topic, count=count) for topic, count in topics.most_common(MOST_TOPICS)],
        ring=RingPart(
            bytes=sum(ring.bytes for ring in rings),
            bytes_limit=sum(ring.bytes_limit for ring in rings),
            span_s=min(ring.span_s for ring in rings),
            span_limit_s=min(ring.span_limit_s for ring in rings),
        ),
        replays_running=sum(bus.replays_running for bus in buses),
        replays_total=sum(bus.replays_total for bus in buses),
        requests_total=sum(bus.requests_total for bus in buses),
        commands_total=sum(bus.commands_total for bus in buses),
        refused_keys_total=sum(bus.refused_keys_total for bus in buses),
    )


def _budget(budgets: Sequence[BudgetPart], shards: Sequence[int]) -> BudgetPart:
    """Return the newest budget, which the processes share through the store, with the shards of all."""
    newest = max(budgets, key=lambda one: one.looked_up_at or "", default=None)
    if newest is None:
        nothing = dict.fromkeys(field for field in BudgetPart.__struct_fields__)
        cold = ColdStartPart(identifies=len(shards), seconds=None)
        return BudgetPart(**(nothing | {"foreign": 0, "waiting": 0, "cold_start": cold}))  # type: ignore[arg-type]  # null: not known
    concurrency, seconds = newest.max_concurrency, None
    if concurrency:
        rounds = max(Counter(shard % concurrency for shard in shards).values(), default=1)
        seconds = (rounds - 1) * SPACING
    return msgspec.structs.replace(
        newest,
        foreign=max(one.foreign for one in budgets),
        waiting=sum(one.waiting for one in budgets),
        last_turn_at=max(one.last_turn_at or "" for one in budgets) or None,
        cold_start=ColdStartPart(identifies=len(shards), seconds=seconds),
    )


def _store(stores: Sequence[StorePart]) -> StorePart:
    """Return the worst state of the store that the processes share."""
    unknown = StorePart(state=StoreState.MEMORY, reason="no process answers", path=None)
    return max(stores, key=lambda store: STORE_STATES.index(store.state), default=unknown)


def _sum(totals: Sequence[TotalsPart]) -> TotalsPart:
    names = TotalsPart.__struct_fields__
    return TotalsPart(**{name: sum(getattr(one, name) for one in totals) for name in names})
