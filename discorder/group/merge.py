"""Merge the status documents of several processes into one.

Shards, history and log are put together, counters added. A process that does not answer is shown with its shards, which do
not serve as far as is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import msgspec

from discorder.group.flows import merge_flows
from discorder.group.member_status import MemberStatus, judge
from discorder.group.verdict import merge_verdicts
from discorder.logs.tail import RECORDS
from discorder.sessions import SPACING, StoreState
from discorder.status.delivery import MOST_CLIENTS, MOST_TOPICS
from discorder.status.describer import HISTORY
from discorder.status.document import (
    SCHEMA,
    BotPart,
    BudgetPart,
    BusPart,
    ColdStartPart,
    EventTypePart,
    FacadePart,
    LogRecordPart,
    MemberPart,
    Moment,
    NotePart,
    ProcessPart,
    ProgressPart,
    PublisherPart,
    RingPart,
    SessionsPart,
    StatusDocument,
    StorePart,
    SubscriptionPart,
    TotalsPart,
)
from discorder.status.facade import furthest_behind, listed_libraries
from discorder.status.rates import COMMONEST

STORE_STATES = list(StoreState)  # the best first


def merge(
    parts: Sequence[MemberStatus], process: ProcessPart, log: Sequence[LogRecordPart], at: Moment
) -> StatusDocument:
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
        verdict=merge_verdicts([judge(part) for part in parts], shards),
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
        facade=merge_facades([document.facade for document in documents if document.facade is not None]),
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


def _process(parts: Sequence[MemberStatus], process: ProcessPart) -> ProcessPart:
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


def _member(part: MemberStatus) -> MemberPart:
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
    """Return the notes; one that all processes have is there once, others name their process."""
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


def merge_facades(facades: Sequence[FacadePart]) -> FacadePart | None:
    """Return the façades as one; None if there is none. ``url`` names all of them."""
    if not facades:
        return None
    by_name: dict[str, list[BotPart]] = {}
    for bot in chain.from_iterable(facade.bots for facade in facades):
        by_name.setdefault(bot.name, []).append(bot)
    return FacadePart(
        url=", ".join(facade.url for facade in facades),
        bots=[_bot(parts) for parts in by_name.values()],
        sessions=furthest_behind(chain.from_iterable(facade.sessions for facade in facades)),
    )


def _bot(parts: Sequence[BotPart]) -> BotPart:
    sessions = sum(one.sessions for one in parts)
    seen = [one.seen_at for one in parts if one.seen_at is not None]
    return BotPart(
        name=parts[0].name,
        libraries=listed_libraries(chain.from_iterable(one.libraries for one in parts)),
        sessions=sessions,
        shards=sorted(chain.from_iterable(one.shards for one in parts)),
        since=min((one.since for one in parts if one.since is not None), default=None),
        seen_at=None if sessions else max(seen, default=None),
        catch_up_s=parts[0].catch_up_s,
        lag_events=max(one.lag_events for one in parts),
        lag_s=max(one.lag_s for one in parts),
        identifies=sum(one.identifies for one in parts),
        resumes=sum(one.resumes for one in parts),
        invalid_sessions=sum(one.invalid_sessions for one in parts),
        refused=next((one.refused for one in parts if one.refused), ""),
    )


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
