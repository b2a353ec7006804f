"""Record the transitions of one shard in the history, the counters, the log and the state records. Read-only."""

from __future__ import annotations

from collections.abc import Callable

from discorder.clock import Clock
from discorder.logs import logger
from discorder.records import StateChange, state_record
from discorder.statemachine import ShardMachine, State
from discorder.statemachine import triggers as trigger
from discorder.statemachine.table import Name
from discorder.tracking.shard_tracker import ShardTracker, Transition, unpause_command
from discorder.wire import Event


class TransitionLog:
    """Record each transition right after it.

    ``seq`` returns the last sequence received; ``announce`` publishes a record.
    """

    def __init__(
        self,
        tracker: ShardTracker,
        machine: ShardMachine,
        clock: Clock,
        *,
        seq: Callable[[], int | None],
        announce: Callable[[Event], None],
        redact: Callable[[str], str],
    ) -> None:
        self._tracker = tracker
        self._machine = machine
        self._clock = clock
        self._seq = seq
        self._announce = announce
        self._redact = redact

    @property
    def who(self) -> dict[str, int]:
        """Return shard and generation, for a log record."""
        return {"shard": self._tracker.shard_id, "generation": self._machine.generation}

    def record(self, before: State, what: trigger.Trigger) -> Transition:
        """Record one transition."""
        tracker, machine = self._tracker, self._machine
        # An error's text may quote a header.
        cause = None if machine.cause is None else self._redact(machine.cause.text)
        moved = machine.state is not before
        spent = tracker.entered(machine.state) if moved else tracker.ages.in_state
        if moved:
            tracker.stats.states_entered[machine.state.value] += 1
        step = Transition(
            at=self._clock.now(),
            source=before,
            trigger=what.name,
            target=machine.state,
            cause=cause,
            generation=machine.generation,
            milliseconds=spent * 1000,
        )
        tracker.transitions.append(step)
        tracker.session, tracker.generation, tracker.attempts = machine.session, machine.generation, machine.attempts
        tracker.parked = machine.is_parked
        if cause is not None or machine.state is State.READY:
            tracker.cause = cause
        logger.debug(
            "Transition",
            source=step.source.value,
            trigger=step.trigger.value,
            target=step.target.value,
            cause=step.cause,
            milliseconds=round(step.milliseconds, 1),
            **self.who,
        )
        self._announce(self._as_record(step))
        return step

    def _as_record(self, step: Transition) -> Event:
        tracker = self._tracker
        change = StateChange(
            source=step.source.value,
            trigger=step.trigger.value,
            target=step.target.value,
            cause=step.cause,
            generation=step.generation,
            milliseconds=round(step.milliseconds, 1),
        )
        return state_record((tracker.shard_id, tracker.shard_count), tracker.session_label, step.at, change)

    def landmark(self, step: Transition) -> None:
        """Log and count the landmark of the entered state, if it has one."""
        state, stats, cause = step.target, self._tracker.stats, self._machine.cause
        if state is State.UNHEALTHY:
            logger.warning("Control plane is not healthy, stopping tasks", reasons=step.cause or "", **self.who)
        elif state is State.READY:
            if step.trigger is Name.RESUMED:
                stats.resume_count += 1
            summary = f"session {self._tracker.session_label}, seq {self._seq()}"
            logger.info("Control plane started", tracker=summary, **self.who)
        elif state is State.CONNECTING and step.source is State.RESTARTING:
            stats.restart_count += 1
            mode = "resume" if self._machine.session is not None else "identify"
            logger.info("Starting a new control plane", mode=mode, **self.who)
        elif state is State.RESTARTING and step.source is State.DISCONNECTED:
            logger.warning(
                "The shard was paused before this start: it is not dialled until it is unpaused",
                remedy=unpause_command(self._tracker.shard_id),
                **self.who,
            )
        elif state is State.EXITED and step.source is State.UNHEALTHY and cause and self._machine.fails_on_error:
            logger.error("Exiting because fail_on_error is set", error=repr(cause.error), **self.who)
