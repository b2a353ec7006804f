"""How far a start with several shards is: n of N ready, and when the last one can be.

An estimate for people and the log. Must not: start anything, or hold anything up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from discorder.clock import Clock, Timer
from discorder.logs import logger
from discorder.statemachine import State
from discorder.tracking.shard_tracker import ShardTracker

GATHER_SECONDS = 0.5  # the shards of one round of identify buckets come up together and get one line
LINE_EVERY_SECONDS = 5.0  # at least, between two lines


@dataclass(frozen=True, slots=True)
class Progress:
    """``ready`` of ``total`` shards have been Ready; ``eta`` is the seconds until all can be, None while nobody knows."""

    ready: int
    total: int
    eta: float | None

    @property
    def complete(self) -> bool:
        return self.ready == self.total

    def __repr__(self) -> str:
        text = f"{self.ready} of {self.total} ready"
        if self.complete:
            return text
        return f"{text}, ETA {'unknown' if self.eta is None else _span(self.eta)}"


class StartUp:
    """Watches the shards until each has been Ready once.

    ``seconds_to_identify`` gives the seconds until the last of some shards can have identified, None before the look-up.
    """

    def __init__(
        self,
        clock: Clock,
        shards: Callable[[], Sequence[ShardTracker]],
        seconds_to_identify: Callable[[Sequence[int]], float | None],
    ) -> None:
        self._clock = clock
        self._shards = shards
        self._seconds_to_identify = seconds_to_identify
        self._began_at = clock.monotonic()
        self._lined_at = float("-inf")
        self._ready = 0  # as of the last look
        self._timer: Timer | None = None

    @property
    def progress(self) -> Progress:
        """As of now."""
        shards = self._shards()
        ready = sum(shard.was_ready for shard in shards)
        return Progress(ready, len(shards), 0.0 if ready == len(shards) else self._eta(shards))

    def announce(self) -> None:
        """The layout is known and the shards start: one line that says what is ahead."""
        shards = self._shards()
        if len(shards) > 1:
            stored = sum(shard.session is not None for shard in shards)
            logger.info(
                "Starting shards",
                shards=len(shards),
                to_resume=stored,
                to_identify=len(shards) - stored,
                eta_seconds=_rounded(self._eta(shards)),
            )

    def changed(self) -> bool:
        """A shard has changed. True once all have been Ready."""
        shards = self._shards()
        ready = sum(shard.was_ready for shard in shards)
        if ready != self._ready and len(shards) > 1:
            self._ready = ready
            if ready == len(shards):
                self.close()
                seconds = round(self._clock.monotonic() - self._began_at, 1)
                logger.info("All shards are ready", shards=ready, seconds=seconds)
            elif self._timer is None:
                wait = max(GATHER_SECONDS, self._lined_at + LINE_EVERY_SECONDS - self._clock.monotonic())
                self._timer = self._clock.call_later(wait, self._line)
        return ready == len(shards)

    def close(self) -> None:
        """No line comes any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _line(self) -> None:
        self._timer = None
        self._lined_at = self._clock.monotonic()
        progress = self.progress
        logger.info("Shards ready", ready=progress.ready, of=progress.total, eta_seconds=_rounded(progress.eta))

    def _eta(self, shards: Sequence[ShardTracker]) -> float | None:
        """By the identify buckets, and by the back-off of shards that wait for something else."""
        missing = [shard for shard in shards if not shard.was_ready]
        seconds = self._seconds_to_identify([shard.shard_id for shard in missing if _must_identify(shard)])
        if seconds is None:
            return None
        now = self._clock.now()
        due = [(shard.restart_due_at - now).total_seconds() for shard in missing if shard.restart_due_at is not None]
        return max([seconds, *due])


def _must_identify(shard: ShardTracker) -> bool:
    sent = shard.state is State.IDENTIFYING and shard.stats.identify_count > 0
    return shard.session is None and not sent


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
