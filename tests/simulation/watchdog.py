"""Judges what must happen in time: deadlines of a connection, the zombie rule, stops, recovery, bounded queues.

It looks every few seconds of virtual time. Bounds are those of the product and a second or two for the look itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from discorder.statemachine import RUNS, State
from discorder.statemachine.table import ROWS, Name
from discorder.tracking.shard_tracker import ShardTracker, Transition
from tests.simulation.faults import Kind, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.life import SLACK, Host, Life, Wire
from tests.simulation.network import Stage
from tests.simulation.plan import DAY
from tests.simulation.sinks import Sink

EVERY = 5.0
LATE = 1.5  # seconds granted on top of every bound
CLOCK_WAS_SET = 10_000.0  # the same, when the ages of debits are wrong by up to two hours
SETTLING = 700.0  # seconds after a debit has expired until the shard that waited for it is up
STABLE = 125.0  # seconds in Ready after which back-off has begun anew
READY_WITHIN_BY_RESUME = 120.0
READY_WITHIN_BY_IDENTIFY = 800.0
HELD = 2_000 + 256  # events beside a queue: the hold buffer and the batch in hand
POSSIBLE = {(source, row.trigger, row.target or source) for row in ROWS for source in row.sources}


class Watchdog:
    """`look` is called every `EVERY` seconds, `settled` whenever nothing is left to run."""

    def __init__(
        self,
        gateway: Gateway,
        weather: Weather,
        violate: Callable[[str], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._gateway = gateway
        self._weather = weather
        self._violate = violate
        self._note = note
        self._looked_at = 0
        self.trouble_until = 0.0  # of the last fault
        self.moved: Callable[[Life, ShardTracker, Transition], None] = lambda _, __, ___: None

    # ---------------------------------------------------------------- whenever nothing is left to run

    def settled(self, life: Life) -> None:
        """Check that new transitions are possible, and that the tasks of the state run."""
        tracker = life.tracker
        if tracker is None:
            return
        for shard in tracker.shards:
            steps = shard.transitions
            if steps and steps[-1] is not life.steps.get(shard.shard_id):
                self._new_steps(life, shard)

    def _new_steps(self, life: Life, shard: ShardTracker) -> None:
        last, new = life.steps.get(shard.shard_id), []
        for step in reversed(shard.transitions):
            if step is last:
                break
            new.append(step)
        for step in reversed(new):
            text = f"{step.source} → {step.target} on {step.trigger}"
            self._note(life.process.name, f"shard {shard.shard_id}: {text}{f' ({step.cause})' if step.cause else ''}")
            if (step.source, step.trigger, step.target) not in POSSIBLE:
                self._violate(f"shard {shard.shard_id}: {text} is not in the table")
            self._back_off_begins_anew(life, shard.shard_id, step)
            self.moved(life, shard, step)
        life.steps[shard.shard_id] = shard.transitions[-1]
        running = {name for name, task in shard.tasks.items() if not task.done()}
        if running != RUNS[shard.state] and life.running:
            self._violate(
                f"shard {shard.shard_id}: in {shard.state} run {sorted(running)}, not {sorted(RUNS[shard.state])}"
            )

    def _back_off_begins_anew(self, life: Life, shard: int, step: Transition) -> None:
        """Check the back-off after a stable connection; a shard that stays in Restarting waits for something else."""
        if step.trigger is Name.PAUSE:
            life.stable.discard(shard)
        elif step.source is State.READY and step.target is not State.READY:
            if life.monotonic() - life.ready_since.get(shard, life.monotonic()) > STABLE:
                life.stable.add(shard)
        elif step.source is State.RESTARTING and shard in life.stable:
            life.stable.discard(shard)
            end = life.ended.get(shard)
            if end is None or step.target is not State.CONNECTING:
                return
            waited = life.monotonic() - end.at
            if waited > end.first_rung + SLACK:
                self._violate(
                    f"shard {shard}: restarts {waited:.3f} s after a stable connection, {end.first_rung:g} s are allowed"
                )

    # ---------------------------------------------------------------- every few seconds

    def look(self, lives: Iterable[Life]) -> None:
        """Check everything that lasts for some time."""
        for life in lives:
            if life.awake and life.tracker is not None:
                for wire in life.wires.values():
                    if wire.link.stage not in {Stage.NEW, Stage.CLOSED}:
                        self._look_at(life, wire)
                self._recovered(life)
                self._bounded(life)

    def _look_at(self, life: Life, wire: Wire) -> None:
        now, shard = life.monotonic(), wire.link.shard
        interval = self._gateway.measures.interval
        for since, bound, what in (
            (wire.dialled_at if wire.link.stage is Stage.DIALLING else None, 10.0, "dials"),
            (wire.dialled_at if wire.hello_at is None else None, 15.0, "waits for Hello"),
            (wire.hello_at if wire.asked_at is None else None, 65.0, "sends neither IDENTIFY nor RESUME"),
            (wire.asked_at if not wire.resumed and not wire.up else None, 60.0, "waits for READY"),
            (wire.progress_at if wire.resumed and not wire.up else None, 30.0, "waits for RESUMED"),
            (wire.unanswered_since, 1.5 * interval, "has an unanswered heartbeat"),
            (wire.silent_since, 0.5 * interval, "has heard nothing since a heartbeat"),
            (wire.closing_at, 1.0, "closes"),
            (
                None if wire.link.full or wire.told else wire.beat_wanted_at,
                0.5,
                "was asked for a beat and does not send it,",
            ),
        ):
            if since is not None and now - since > bound + LATE:
                self._violate(f"shard {shard}: {what} for {now - since:.1f} s, {bound:g} s are allowed")
        if wire.hello_at is not None and wire.link.stage is Stage.OPEN and not wire.link.full:
            quiet = now - (wire.last_beat_at or wire.hello_at)
            if quiet > interval + LATE:
                self._violate(f"shard {shard}: no heartbeat for {quiet:.1f} s")

    def _recovered(self, life: Life) -> None:
        """Check that every shard is Ready within a bound once no fault holds."""
        if life.stop_at is not None or life.fatal or life.host.name != "main" or life.tracker is None:
            return
        now = life.loop.time()
        calm = now - max(self.trouble_until, life.started_at)
        if calm < READY_WITHIN_BY_RESUME:
            return
        for shard in life.tracker.shards:
            known = any(s.label in life.known for s in self._gateway.living(shard.shard_id, life.host.name))
            bound = READY_WITHIN_BY_RESUME if known else READY_WITHIN_BY_IDENTIFY
            if shard.state is not State.READY and calm > bound and not self.budget_is_spent(life.host):
                self._violate(f"shard {shard.shard_id}: {shard.state} although nothing has been wrong for {calm:.0f} s")

    def budget_is_spent(self, host: Host) -> bool:
        """Return whether the budget is spent, by Discord's count or by the host's own of the last day."""
        measures, now = self._gateway.measures, self._gateway.loop.time()
        if now < self._gateway.refilled_at + SETTLING:
            return True  # it may have been, until a moment ago
        spendable = measures.start_total - measures.reserve
        slack = SETTLING if host.wall_jumped_at < 0 else CLOCK_WAS_SET
        spent = sum(at > now - DAY - slack for at in host.identified_at)
        by_discord = measures.start_total - self._gateway.remaining
        # who is killed may have paid for one that it did not send
        unsent = sum(at > now - DAY - slack for at in host.started_at)
        return max(by_discord, spent) + unsent >= spendable

    def _bounded(self, life: Life) -> None:
        assert life.tracker is not None
        if self._gateway.given == self._looked_at:
            return
        self._looked_at = self._gateway.given
        for health in life.tracker.publisher_health:
            bound = self._gateway.measures.queue
            if health.name.upper() in Sink.__members__ and Sink[health.name.upper()].required:
                bound += HELD * len(life.tracker.shards)
            if health.queued_events > bound:
                self._violate(f"publisher {health.name} holds {health.queued_events} events, {bound} are allowed")

    def still_full(self, life: Life, sink: Sink) -> bool:
        """Return whether the sink has no room now."""
        queues = () if life.tracker is None else life.tracker.publisher_health
        return any(
            one.name == sink.name.lower() and one.queued_events >= self._gateway.measures.queue for one in queues
        )

    def expect_back(self, life: Life, shard: int) -> float | None:
        """Seconds within which ``shard`` must be Ready again after an interruption now: None when much else was wrong of late."""
        now = self._gateway.loop.time()
        up = life.monotonic() - life.ready_since.get(shard, life.monotonic())
        if not self.clear or up < STABLE or now - self.trouble_until < STABLE:
            return None
        refused = self._weather.fault(Kind.REFUSE_RESUME, shard, now) is not None
        return 15.0 if refused else 4.0 + 24 * self._gateway.measures.latency

    @property
    def clear(self) -> bool:
        """Return whether no lasting fault holds, but for a resume host that refuses."""
        now = self._gateway.loop.time()
        return all(kind is Kind.REFUSE_RESUME or self._weather.anywhere(kind, now) is None for kind in Kind)
