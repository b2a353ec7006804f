"""Define the status document, schema ``discorder.status/1``.

Every key is always present; null means not known or not applicable. A unit is part of the key: seconds end in ``_s``, rates in
``per_s``, sizes in ``bytes``, shares of 1 in ``ratio``. Times are ISO 8601 in UTC with milliseconds. Readers ignore unknown
keys, and a key never changes its meaning.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from discorder.publishers.delivery.health import PublisherState
from discorder.publishers.options import Overflow
from discorder.sessions import StoreState
from discorder.statemachine import State
from discorder.statemachine.table import Name
from discorder.tracking.notes import NoteKind
from discorder.tracking.shard_tracker import Host

SCHEMA: Literal["discorder.status/1"] = "discorder.status/1"

Moment = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$", description="time in UTC, ISO 8601 with milliseconds"
    ),
]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0)]


def moment(at: datetime) -> Moment:
    """Return an aware time as the document writes it."""
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


class Level(StrEnum):
    """The verdict in one word: impaired means that some shards serve, down that none does."""

    WELL = "well"
    STARTING = "starting"
    IMPAIRED = "impaired"
    DOWN = "down"
    STOPPING = "stopping"


class NextKind(StrEnum):
    """What the time of a next step means: it comes then, it comes by then or is given up, or it is expected about then."""

    PLANNED = "planned"
    DEADLINE = "deadline"
    ESTIMATE = "estimate"


class NextAction(StrEnum):
    """What a shard waits for: the name of the step that comes next."""

    LOOK_UP = "look_up"
    DIAL = "dial"
    HELLO = "hello"
    IDENTIFY = "identify"
    READY = "ready"
    RESUMED = "resumed"
    BEAT = "beat"
    VERDICT = "verdict"
    STOP = "stop"
    PROCESS = "process"


class Purpose(StrEnum):
    """How the shard gets a session on its next connection."""

    RESUME = "resume"
    IDENTIFY = "identify"


class DocumentPart(Struct, gc=False):
    """The base of all parts of the document."""


class LoopLagPart(DocumentPart):
    """Delays of the event loop: now, and the longest since the start."""

    now: Seconds
    worst: Seconds


class OpenFilesPart(DocumentPart):
    """Open files of the process, and its limit (null: without a limit)."""

    used: Count | None
    limit: Count | None


class MemberPart(DocumentPart):
    """One of several processes: how many shards it has, and its own verdict, or why it does not answer (``headline``)."""

    number: Count
    pid: Count | None
    shards: Count
    healthy: bool
    headline: str
    started_at: Moment | None
    memory_bytes: Count | None
    cpu_ratio: Rate | None


class ProcessPart(DocumentPart):
    """The process of the control plane. ``cpu_ratio`` is that of the last seconds; 1 is one CPU.

    ``processes``: those of `discorder serve --processes N`, which this one supervises; memory and CPU are then the sums of all,
    and ``open_files`` those of the process that is nearest to its limit. Empty for a process that runs its shards itself.
    """

    version: str
    host: str
    pid: Count
    started_at: Moment
    python: str
    compression: str
    loop_lag_s: LoopLagPart
    memory_bytes: Count | None
    cpu_ratio: Rate | None
    open_files: OpenFilesPart
    processes: list[MemberPart]


class ShardCountsPart(DocumentPart):
    """How many shards there are, how many of them serve (``ready``), and how many are in each state."""

    total: Count
    ready: Count
    by_state: dict[State, Count]


class VerdictPart(DocumentPart):
    """Whether the gateway is well, in sentences. ``since``: when it became well, ceased to be, began to start or to stop.

    ``reasons``: one per shard that does not serve, at most 24.
    """

    level: Level
    healthy: bool
    headline: str
    detail: str
    since: Moment
    reasons: list[str]
    shards: ShardCountsPart


class ProgressPart(DocumentPart):
    """How many shards have been Ready since the start, and the estimate for the last one; null before the look-up."""

    ready: Count
    total: Count
    eta_s: Seconds | None


class NotePart(DocumentPart):
    """A problem that affects no session now."""

    kind: NoteKind
    title: str
    text: str
    since: Moment


class LatencyPart(DocumentPart):
    """Seconds until a heartbeat was answered, over all shards: median and longest, for each point of the flows."""

    median: list[Seconds | None]
    worst: list[Seconds | None]


class OutagePart(DocumentPart, rename={"from_": "from"}):
    """A time in which no shard was Ready; ``to`` is null while it lasts."""

    from_: Moment
    to: Moment | None


class FlowsPart(DocumentPart, rename={"from_": "from"}):
    """180 points of ``step_s`` seconds; ``from`` is the begin of the first. The last one still grows. null = no value."""

    step_s: Count
    from_: Moment
    events_per_s: list[Rate | None]
    latency_s: LatencyPart
    not_serving: list[OutagePart]


class EventTypePart(DocumentPart):
    """Events of one type: those of the last seconds, and all since the start."""

    type: str
    per_s: Rate
    total: Count


class AgesPart(DocumentPart):
    """Seconds since the last frame, ACK and dispatch of this connection, and of the oldest heartbeat without an ACK."""

    frame: Seconds | None
    ack: Seconds | None
    dispatch: Seconds | None
    unanswered_beat: Seconds | None


class HeartbeatPart(DocumentPart):
    """The interval that Discord asks for, and the time until the last heartbeat was answered."""

    interval_s: Seconds | None
    latency_s: Seconds | None


class CountsPart(DocumentPart):
    """Counts of a shard since the start."""

    restarts: Count
    resumes: Count
    identifies: Count


class NextPart(DocumentPart):
    """What the shard does next by itself, at the latest or about ``at``. ``text`` names it without the time.

    ``backoff_s``: the pause that was drawn. ``attempt``: the failures in a row so far. ``identifies``: the IDENTIFYs it costs.
    """

    kind: NextKind
    action: NextAction
    purpose: Purpose | None
    at: Moment
    host: Host
    attempt: Count | None
    backoff_s: Seconds | None
    identifies: Count
    text: str


class ShardPart(DocumentPart):
    """One shard. ``cause``: why it ceased to serve, until it is Ready again. ``session`` is a label, not the session id.

    ``owner``: its process, if there are several. ``healthy``: it serves; else ``reasons`` say why not. ``parked``: the identify
    gate holds it back. ``paused``: an operator has paused it. ``guilds``: of the last READY. ``attempt``: failures in a row.
    """

    id: Count
    state: State
    healthy: bool
    parked: bool
    paused: bool
    reasons: list[str]
    since: Moment
    cause: str | None
    attempt: Count
    generation: Count
    session: str | None
    seq: Count | None
    guilds: Count | None
    events_per_s: Rate
    owner: str | None
    ages_s: AgesPart
    heartbeat: HeartbeatPart
    counts: CountsPart
    next: NextPart | None


class TransitionPart(DocumentPart):
    """One transition, with the seconds spent in ``source``."""

    at: Moment
    shard: Count
    source: State
    trigger: Name
    target: State
    cause: str | None
    spent_s: Seconds
    generation: Count


class PublisherPart(DocumentPart):
    """One publisher. ``lag_s``: the age of the oldest event that it has not accepted. ``gaps``: runs of dropped events.

    ``process``: the number of its process, if there are several.
    """

    name: str
    kind: str
    state: PublisherState
    required: bool
    overflow: Overflow
    lag_s: Seconds
    queued_events: Count
    queued_bytes: Count
    in_flight: Count
    accepted: Count
    per_s: Rate
    dropped: Count
    gaps: Count
    failures: Count
    last_error: str
    process: Count | None


class BusClientPart(DocumentPart):
    """A client that is connected to the bus."""

    peer: str
    since: Moment


class SubscriptionPart(DocumentPart):
    """A topic, cut at 64 characters, and how many clients subscribe to it. "" is everything."""

    topic: str
    count: Count


class RingPart(DocumentPart):
    """What the bus keeps for replays, and its limits."""

    bytes: Count
    bytes_limit: Count
    span_s: Seconds
    span_limit_s: Seconds


class BusPart(DocumentPart):
    """The ZeroMQ bus. ZeroMQ does not say which connection made which subscription."""

    bind: str
    router_bind: str
    connections: list[BusClientPart]
    subscriptions: list[SubscriptionPart]
    ring: RingPart
    replays_running: Count
    replays_total: Count
    requests_total: Count
    commands_total: Count
    refused_keys_total: Count


class BotPart(DocumentPart):
    """A bot that may connect to the façade, over all its sessions. ``shards``: those on which it has one; none: it is away.

    ``since``: the begin of its oldest session, or of the last RESUME of that; ``seen_at``: when a bot that is away had its last
    session, null if that is not known. ``catch_up_s``: how long after that it gets what it missed. ``lag_events`` and ``lag_s``
    (the age of the oldest event that it has yet to get): of the sessions that are furthest behind. The counts are those since
    the façade was opened; ``invalid_sessions``: op 9s. ``refused``: code and reason of its last IDENTIFY if that was refused; ""
    if it was not, or if the bot has had a session since.
    """

    name: str
    libraries: list[str]
    sessions: Count
    shards: list[Count]
    since: Moment | None
    seen_at: Moment | None
    catch_up_s: Seconds
    lag_events: Count
    lag_s: Seconds
    identifies: Count
    resumes: Count
    invalid_sessions: Count
    refused: str


class BotSessionPart(DocumentPart):
    """A session of a bot on a shard. It has every event up to ``seq`` of Discord's ``session``, which is a label.

    The counts are those of the bot on this shard since the façade was opened.
    """

    bot: str
    shard: Count
    library: str
    since: Moment
    session: str
    seq: Count
    lag_events: Count
    lag_s: Seconds
    identifies: Count
    resumes: Count
    invalid_sessions: Count


class FacadePart(DocumentPart):
    """The façade. ``sessions``: at most 64, those that are furthest behind; ``bots`` counts all of them."""

    url: str
    bots: list[BotPart]
    sessions: list[BotSessionPart]


class ColdStartPart(DocumentPart):
    """What it would cost to identify every shard: IDENTIFYs, and seconds until the last of them."""

    identifies: Count
    seconds: Seconds | None


class BudgetPart(DocumentPart):
    """The identify budget; null before the look-up. ``foreign``: spent by processes that do not share the store.

    ``waiting``: shards that wait for their turn; ``last_turn_at``: the estimate for the last of them.
    """

    total: Count | None
    remaining: Count | None
    reserve: Count | None
    spendable: Count | None
    spent_here: Count | None
    foreign: Count
    reset_at: Moment | None
    looked_up_at: Moment | None
    max_concurrency: Count | None
    waiting: Count
    last_turn_at: Moment | None
    cold_start: ColdStartPart


class StorePart(DocumentPart):
    """The session store. ``reason``: "" if all is well; ``path``: null if sessions are kept in memory."""

    state: StoreState
    reason: str
    path: str | None


class SessionsPart(DocumentPart):
    """Sessions that shards hold now, and how many of them are stored."""

    held: Count
    stored: Count
    last_saved_at: Moment | None


class TotalsPart(DocumentPart):
    """Sums over all shards since the start."""

    events: Count
    restarts: Count
    resumes: Count
    identifies: Count
    gaps: Count
    dropped: Count
    stale: Count
    unexpected: Count
    commands_sent: Count
    commands_refused: Count


class LogRecordPart(DocumentPart):
    """A record of the log, without tokens and never an event. ``fields``: JSON values."""

    at: Moment
    level: str
    message: str
    fields: dict[str, Any]


class StatusDocument(DocumentPart):
    """The whole document at the moment ``at``. ``facade`` is null while it is off, ``cluster`` in this version."""

    schema: Literal["discorder.status/1"]
    at: Moment
    process: ProcessPart
    verdict: VerdictPart
    progress: ProgressPart
    notes: list[NotePart]
    flows: FlowsPart
    event_types: list[EventTypePart]
    shards: list[ShardPart]
    transitions: list[TransitionPart]
    publishers: list[PublisherPart]
    bus: BusPart | None
    facade: FacadePart | None
    cluster: None
    budget: BudgetPart
    store: StorePart
    sessions: SessionsPart
    totals: TotalsPart
    log: list[LogRecordPart]
