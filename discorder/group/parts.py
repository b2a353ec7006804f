"""Apply an event of a process to its status document."""

from __future__ import annotations

import msgspec

from discorder.logs.tail import RECORDS
from discorder.status.describer import HISTORY
from discorder.status.document import StatusDocument
from discorder.status.updates import (
    BeatUpdate,
    BudgetUpdate,
    FacadeUpdate,
    FlowUpdate,
    LogUpdate,
    PublishersUpdate,
    ShardsUpdate,
    TransitionUpdate,
    Update,
    VerdictUpdate,
)

_KINDS: dict[str, type[Update]] = {
    kind.event: kind
    for kind in (
        VerdictUpdate,
        ShardsUpdate,
        TransitionUpdate,
        FlowUpdate,
        PublishersUpdate,
        FacadeUpdate,
        BudgetUpdate,
        LogUpdate,
        BeatUpdate,
    )
}


def apply_part(document: StatusDocument, name: str, data: bytes) -> Update:
    """Apply the event ``name`` to ``document`` and return it. Raises `msgspec.MsgspecError` for another form."""
    kind = _KINDS.get(name)
    if kind is None:
        msg = f"no event is named {name!r}"
        raise msgspec.ValidationError(msg)
    update = msgspec.json.decode(data, type=kind)
    document.at = update.at
    match update:
        case VerdictUpdate():
            document.verdict, document.progress, document.notes = update.verdict, update.progress, update.notes
        case ShardsUpdate():
            changed = {shard.id: shard for shard in update.shards}
            document.shards = [changed.get(shard.id, shard) for shard in document.shards]
        case TransitionUpdate():
            document.transitions = [update.transition, *document.transitions[: HISTORY - 1]]
        case FlowUpdate():
            _apply_flow(document, update)
        case PublishersUpdate():
            document.publishers, document.bus = update.publishers, update.bus
        case FacadeUpdate():
            document.facade = update.facade
        case BudgetUpdate():
            document.budget, document.store = update.budget, update.store
            document.sessions, document.totals = update.sessions, update.totals
        case LogUpdate():
            document.log = [*update.log, *document.log][:RECORDS]
    return update


def _apply_flow(document: StatusDocument, update: FlowUpdate) -> None:
    flows = document.flows
    lists = (
        (flows.events_per_s, update.events_per_s),
        (flows.latency_s.median, update.median),
        (flows.latency_s.worst, update.worst),
    )
    for points, last in lists:
        if update.append:
            points.append(last)
            del points[0]
        else:
            points[-1] = last
    flows.from_, flows.step_s, flows.not_serving = update.from_, update.step_s, update.not_serving
    document.event_types, document.process = update.event_types, update.process
