"""Show a status document in a terminal: the verdict, the shards worst first, publishers, budget and notes, in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape

from discorder.cli.bots_view import FacadeView, bots_table
from discorder.cli.tables import plain_table
from discorder.cli.wording import counted, short_span, size, span

MOST_ROWS = 24  # of shards; the rest is counted
MANY_ATTEMPTS = 3  # from which a shard counts as one that fails again and again
STYLES = {"well": "bold green", "starting": "bold blue", "stopping": "bold", "impaired": "bold red", "down": "bold red"}
WHEN = {"planned": "in", "deadline": "within", "estimate": "in about"}


class ShardTotals(msgspec.Struct):
    """How many shards there are and serve."""

    total: int
    ready: int


class VerdictView(msgspec.Struct):
    """The verdict: the document's, or the part of the event ``verdict``."""

    level: str
    healthy: bool
    headline: str
    detail: str
    since: datetime
    shards: ShardTotals


class NextView(msgspec.Struct):
    """What a shard does next."""

    kind: str
    at: datetime
    text: str


class AgesView(msgspec.Struct):
    """Seconds since what is named."""

    unanswered_beat: float | None


class ShardView(msgspec.Struct):
    """One shard."""

    id: int
    state: str
    healthy: bool
    parked: bool
    paused: bool
    reasons: list[str]
    since: datetime
    cause: str | None
    attempt: int
    events_per_s: float
    ages_s: AgesView
    next: NextView | None

    @property
    def rank(self) -> tuple[int, datetime, int]:
        """Sort worst first: gone for good, parked, failing again and again, the others by the time they have been away."""
        severity = (
            0
            if self.state == "Exited"
            else 1
            if self.parked or self.paused
            else 2
            if self.attempt >= MANY_ATTEMPTS
            else 3
        )
        return (9 if self.healthy else severity, self.since, self.id)


class PublisherView(msgspec.Struct):
    """One publisher."""

    name: str
    state: str
    required: bool
    lag_s: float
    queued_events: int
    dropped: int
    last_error: str
    process: int | None = None


class BudgetView(msgspec.Struct):
    """The identify budget; null before the look-up."""

    total: int | None
    remaining: int | None
    reserve: int | None
    spendable: int | None
    waiting: int


class NoteView(msgspec.Struct):
    """What hurts no session yet."""

    title: str
    text: str


class MemberView(msgspec.Struct):
    """One of several processes."""

    number: int
    pid: int | None
    shards: int
    headline: str
    memory_bytes: int | None
    cpu_ratio: float | None


class ProcessView(msgspec.Struct):
    """The process."""

    version: str
    host: str
    pid: int
    started_at: datetime
    memory_bytes: int | None
    cpu_ratio: float | None
    processes: list[MemberView] = []


class StatusView(msgspec.Struct):
    """What the terminal shows of a status document; other keys are ignored."""

    at: datetime
    process: ProcessView
    verdict: VerdictView
    notes: list[NoteView]
    shards: list[ShardView]
    publishers: list[PublisherView]
    budget: BudgetView
    facade: FacadeView | None = None


def render(view: StatusView, *, now: datetime | None = None, stale: str = "", rows: int = MOST_ROWS) -> RenderableType:
    """Return the view of the document at ``now`` (None: when it was made). ``stale``: why it may not be true any more."""
    now = now or view.at
    verdict = view.verdict
    headline, style = (stale, "bold red") if stale else (verdict.headline, STYLES.get(verdict.level, "bold"))
    parts: list[RenderableType] = [f"[{style}]{escape(headline)}[/]"]
    if verdict.detail:
        parts.append(escape(verdict.detail))
    totals = f" {_shards(verdict.shards)}." if verdict.shards.total > 1 else ""
    parts.append(f"{verdict.level.capitalize()} for {span(_seconds(now - verdict.since))}.{totals}")
    shown = _worst(view.shards)[:rows]
    if shown:
        parts += ["", plain_table(("shard", "state", "for", "why", "next"), (_shard(shard, now) for shard in shown))]
    if len(_worst(view.shards)) > len(shown):
        parts.append(f"and {len(_worst(view.shards)) - len(shown)} more that do not serve")
    if view.publishers:
        head = ("publisher", "state", "behind", "queued", "dropped", "last error")
        parts += ["", plain_table(head, map(_publisher, view.publishers))]
    if view.facade is not None and view.facade.bots:
        parts += ["", bots_table(view.facade.bots, now)]
    if view.process.processes:
        head = ("process", "pid", "shards", "verdict", "memory", "CPU")
        parts += ["", plain_table(head, map(_member, view.process.processes))]
    parts += ["", *(escape(line) for line in _facts(view, now))]
    return Group(*parts)


def _worst(shards: Sequence[ShardView]) -> list[ShardView]:
    """Return the shards that do not serve, worst first; a single shard always."""
    return sorted((one for one in shards if not one.healthy or len(shards) == 1), key=lambda one: one.rank)


def _shard(shard: ShardView, now: datetime) -> tuple[str, ...]:
    state = "Paused" if shard.paused else "Parked" if shard.parked else shard.state
    since = _seconds(now - shard.since)
    why = shard.cause or "; ".join(shard.reasons)
    if shard.healthy:
        return (str(shard.id), state, span(since), why, f"{shard.events_per_s:.1f} events/s")
    if shard.state == "Ready":  # a heartbeat is unanswered
        state, since = "Silent", shard.ages_s.unanswered_beat or 0.0
    paused = f"nothing until `discorder shards unpause {shard.id}`"
    then = paused if shard.paused and shard.next is None else _next(shard.next, now)
    return (str(shard.id), state, span(since), why, then)


def _next(step: NextView | None, now: datetime) -> str:
    if step is None:
        return "nothing by itself"
    left = _seconds(step.at - now)
    return f"{step.text}, {f'{WHEN.get(step.kind, step.kind)} {short_span(left)}' if left > 0 else 'now'}"


def _publisher(one: PublisherView) -> tuple[str, ...]:
    name = one.name if one.process is None else f"{one.name} of process {one.process}"
    name = f"{name} (required)" if one.required else name
    return (name, one.state, short_span(one.lag_s), f"{one.queued_events:,}", f"{one.dropped:,}", one.last_error)


def _member(one: MemberView) -> tuple[str, ...]:
    memory = "" if one.memory_bytes is None else size(one.memory_bytes)
    cpu = "" if one.cpu_ratio is None else f"{one.cpu_ratio:.1%}"
    return (str(one.number), "" if one.pid is None else str(one.pid), f"{one.shards:,}", one.headline, memory, cpu)


def _facts(view: StatusView, now: datetime) -> Iterator[str]:
    for note in view.notes:
        yield f"{note.title.rstrip('.')}: {note.text}"
    budget, process = view.budget, view.process
    if budget.remaining is not None and budget.total is not None:
        waiting = f"; {counted(budget.waiting, 'shard')} in the queue" if budget.waiting else ""
        yield (
            f"IDENTIFYs: {budget.remaining:,} of {budget.total:,} left, {budget.spendable or 0:,} may be spent, "
            f"{budget.reserve or 0:,} in reserve{waiting}"
        )
    use = [f"{size(process.memory_bytes)} memory"] if process.memory_bytes is not None else []
    use += [f"{process.cpu_ratio:.1%} CPU"] if process.cpu_ratio is not None else []
    up = span(_seconds(now - process.started_at))
    yield f"discorder {process.version}, process {process.pid} on {process.host}, up {up}{''.join(f', {one}' for one in use)}"


def _shards(totals: ShardTotals) -> str:
    return f"{totals.ready:,} of {counted(totals.total, 'shard')} {'serves' if totals.ready == 1 else 'serve'}"


def _seconds(span_of_time: timedelta) -> float:
    return max(0.0, span_of_time.total_seconds())
