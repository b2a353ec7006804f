"""Compose the status document, and its parts, from the tracker and from what the samples have counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from discorder.clock import Clock
from discorder.logs.tail import LogLine, LogTail
from discorder.sessions import Budget
from discorder.statemachine import State
from discorder.status.budget import describe_budget, describe_sessions, describe_store, describe_totals
from discorder.status.delivery import DeliveryDescriber
from discorder.status.document import (
    SCHEMA,
    Moment,
    NotePart,
    ProcessPart,
    ProgressPart,
    ShardPart,
    StatusDocument,
    TransitionPart,
    moment,
)
from discorder.status.facade import describe_facade
from discorder.status.flows import FlowRing
from discorder.status.log_records import describe_records
from discorder.status.next_step import BEAT_SHOWN, NextSteps
from discorder.status.process import ProcessState
from discorder.status.rates import Rates
from discorder.status.shards import ShardDescriber
from discorder.status.times import WallTimes
from discorder.status.updates import (
    BudgetUpdate,
    FacadeUpdate,
    FlowUpdate,
    LogUpdate,
    PublishersUpdate,
    ShardsUpdate,
    TransitionUpdate,
    VerdictUpdate,
)
from discorder.status.verdict import Judge
from discorder.tracking.notes import Note, few_identifies, slow_loop
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.tracking.tracker import GatewayTracker

HISTORY = 96  # transitions in the document, of all shards together
NOTES_EVERY = 5  # samples
SLOW_LOOP = 0.5  # seconds of lag that are noted, long before they hurt a session


class NoteTimes:
    """The notes of one plane, and since when each is there."""

    def __init__(self, tracker: GatewayTracker, times: WallTimes) -> None:
        self._tracker = tracker
        self._times = times
        self._since: dict[str, float] = {}  # title to monotonic second

    def collect(self, now: float, budget: Budget | None) -> list[NotePart]:
        """Return the present notes. ``budget``: that of the tracker, now."""
        found = self._find(budget)
        self._since = {note.title: self._since.get(note.title, now) for note in found}
        redact = self._tracker.plane.redact
        return [
            NotePart(
                kind=note.kind,
                title=note.title,
                text=redact(note.text),
                since=self._times.at(self._since[note.title]),
            )
            for note in found
        ]

    def _find(self, budget: Budget | None) -> list[Note]:
        tracker = self._tracker
        found = list(tracker.noted)
        if budget is not None and budget.spendable < max(1, len(tracker.shards)):
            found.append(few_identifies(budget, len(tracker.shards)))
        if tracker.loop_lag.now >= SLOW_LOOP:
            found.append(slow_loop(tracker.loop_lag))
        return found


class Describer:
    """Describes the control plane of ``tracker``. ``log`` gives the newest log records."""

    def __init__(self, tracker: GatewayTracker, clock: Clock, log: LogTail) -> None:
        self.tracker = tracker
        self._clock = clock
        self._log = log
        now = clock.monotonic()
        self._times = WallTimes(clock)
        self._flows = FlowRing(now)
        self._rates = Rates()
        self._judge = Judge(tracker, self._times, now)
        self._notes = NoteTimes(tracker, self._times)
        self._shards = ShardDescriber(self._times, self._rates)
        self._delivery = DeliveryDescriber(tracker, tracker.plane.redact)
        self._process = ProcessState(clock)
        self._steps: deque[TransitionPart] = deque(maxlen=HISTORY)
        self._samples = 0
        self._sampled_at = now

    # ---------------------------------------------------------------- what the board reports

    def sample(self) -> int:
        """Sample all counters; called once a second. Return how many points of the flows have begun."""
        now = self._clock.monotonic()
        seconds = now - self._sampled_at
        if seconds <= 0:
            return 0
        self._sampled_at = now
        self._times.refresh()
        point = self._rates.sample(self.tracker.shards, seconds)
        self._delivery.sample(seconds)
        self._process.sample()
        self._judge.judge(now)
        if self._samples % NOTES_EVERY == 0:
            self._notes.collect(now, self.tracker.budget)
        self._samples += 1
        return self._flows.add(now, point)

    def transitioned(self, shard: ShardTracker, step: Transition) -> TransitionPart:
        """Add a transition to the history; return its description."""
        described = TransitionPart(
            at=moment(step.at),
            shard=shard.shard_id,
            source=step.source,
            trigger=step.trigger,
            target=step.target,
            cause=step.cause,
            spent_s=round(max(0.0, step.milliseconds / 1000), 3),
            generation=step.generation,
        )
        self._steps.appendleft(described)
        now = self._clock.monotonic()
        if step.target is State.READY:
            self._flows.serving(now, any_shard=True)
        elif step.source is State.READY:
            self._judge.left_ready(now)
            self._flows.serving(now, any_shard=any(one.state is State.READY for one in self.tracker.shards))
        return described

    # ---------------------------------------------------------------- the document

    @property
    def at(self) -> Moment:
        """Return the present moment."""
        return moment(self._clock.now())

    def status(self) -> StatusDocument:
        """Return the whole document."""
        tracker, now = self.tracker, self._clock.monotonic()
        budget = tracker.budget
        self._times.refresh()
        return StatusDocument(
            schema=SCHEMA,
            at=self.at,
            process=self.process(),
            verdict=self._judge.verdict(now),
            progress=self._progress(),
            notes=self._notes.collect(now, budget),
            flows=self._flows.as_part(self._times),
            event_types=self._rates.types(),
            shards=self.shards(tracker.shards),
            transitions=list(self._steps),
            publishers=self._delivery.publishers(),
            bus=self._delivery.bus(),
            facade=describe_facade(tracker.facade),
            cluster=None,
            budget=describe_budget(tracker, budget, self._clock),
            store=describe_store(tracker),
            sessions=describe_sessions(tracker),
            totals=describe_totals(tracker),
            log=describe_records(self._log.lines()),
        )

    def process(self) -> ProcessPart:
        """Return the process."""
        return self._process.describe(self.tracker.compression.value, self.tracker.loop_lag)

    def shards(self, shards: Sequence[ShardTracker]) -> list[ShardPart]:
        """Return the descriptions of ``shards``."""
        steps = NextSteps(self._times, self._clock.monotonic(), self.tracker.identify_queue.turns)
        return self._shards.describe(shards, steps)

    def activity(self, shard: ShardTracker) -> tuple[float, ...]:
        """Return numbers that change when ages, rate, heartbeat or next step of ``shard`` do without a transition."""
        stats, pulse = shard.stats, shard.pulse
        unanswered = None if pulse is None else pulse.unanswered_for(self._clock.monotonic())
        return (
            (unanswered or 0.0) >= BEAT_SHOWN,
            stats.published_event_count,
            stats.heartbeat_sent_count,
            stats.heartbeat_received_count,
            self._rates.per_s(shard.shard_id),
        )

    def _progress(self) -> ProgressPart:
        progress = self.tracker.progress
        eta = None if progress.eta is None else round(max(0.0, progress.eta), 1)
        return ProgressPart(ready=progress.ready, total=progress.total, eta_s=eta)

    # ---------------------------------------------------------------- the parts

    def verdict_update(self) -> VerdictUpdate:
        """Return verdict, progress and notes."""
        now = self._clock.monotonic()
        return VerdictUpdate(
            at=self.at,
            verdict=self._judge.verdict(now),
            progress=self._progress(),
            notes=self._notes.collect(now, self.tracker.budget),
        )

    def shards_update(self, shards: Sequence[ShardTracker]) -> ShardsUpdate:
        """Return the descriptions of ``shards``."""
        return ShardsUpdate(at=self.at, shards=self.shards(shards))

    def transition_update(self, step: TransitionPart) -> TransitionUpdate:
        """Return one transition."""
        return TransitionUpdate(at=self.at, transition=step)

    def flow_update(self, *, append: bool) -> FlowUpdate:
        """Return the last point of the flows, which is a new one with ``append``."""
        flows, last = self._flows, self._flows.last
        return FlowUpdate(
            at=self.at,
            append=append,
            step_s=flows.step,
            from_=flows.first_at(self._times),
            events_per_s=last.per_s,
            median=last.median,
            worst=last.worst,
            not_serving=flows.outages(self._times),
            total=self._rates.total,
            event_types=self._rates.types(),
            process=self.process(),
        )

    def publishers_update(self) -> PublishersUpdate:
        """Return publishers and bus."""
        return PublishersUpdate(at=self.at, publishers=self._delivery.publishers(), bus=self._delivery.bus())

    def facade_update(self) -> FacadeUpdate:
        """Return the façade and its bots."""
        return FacadeUpdate(at=self.at, facade=describe_facade(self.tracker.facade))

    def budget_update(self) -> BudgetUpdate:
        """Return budget, store, sessions and totals."""
        tracker = self.tracker
        return BudgetUpdate(
            at=self.at,
            budget=describe_budget(tracker, tracker.budget, self._clock),
            store=describe_store(tracker),
            sessions=describe_sessions(tracker),
            totals=describe_totals(tracker),
        )

    def log_update(self, lines: Iterable[LogLine]) -> LogUpdate:
        """Return new log records."""
        return LogUpdate(at=self.at, log=describe_records(lines))
