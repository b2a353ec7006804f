"""Report the progress of a start with several shards: how many are ready, and an estimate for the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from discorder.clock import Clock, Timer
from discorder.logs import logger
from discorder.statemachine import State
from discorder.tracking.shard_tracker import ShardTracker

GATHER_SECONDS = 0.5  # the shards of one round of identify buckets become ready together and get one log line
LOG_EVERY_SECONDS = 5.0  # minimum between two log lines


@dataclass(frozen=True, slots=True)
class StartProgress:
    """``ready`` of ``total`` shards have been Ready. ``eta``: the estimated seconds until all are, None if not known yet.

    ``paused``: the shards that an operator has paused and that have not been Ready. They are not awaited, unless all are paused.
    Only the shards of this process count.
    """

    ready: int
    total: int
    eta: float | None
    paused: int = 0

    @property
    def complete(self) -> bool:
        return self.total == 0 or (self.ready > 0 and self.ready + self.paused == self.total)

    def __repr__(self) -> str:
        text = f"{self.ready} of {self.total} ready"
        if self.paused:
            text += f", {self.paused} paused"
        if self.complete:
            return text
        return f"{text}, ETA {'unknown' if self.eta is None else _span(self.eta)}"


class StartUp:
    """Logs the progress until each shard that is not paused has been Ready once.

    ``seconds_to_identify`` estimates the seconds until the last of the given shards has identified; None before the look-up.
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
        self._logged_at = float("-inf")
        self._counts = 0, 0  # at the last call of `changed`
        self._timer: Timer | None = None

    @property
    def progress(self) -> StartProgress:
        """The current progress."""
        shards = self._shards()
        ready, paused = _counts(shards)
        progress = StartProgress(ready, len(shards), 0.0, paused)
        return progress if progress.complete else replace(progress, eta=self._eta(shards))

    def announce(self) -> None:
        """Log the number of shards, of resumes and of identifies, and the estimate."""
        shards = self._shards()
        if len(shards) > 1:
            stored = sum(shard.session is not None for shard in shards)
            logger.info(
                "Starting shards",
                shards=len(shards),
                to_resume=stored,
                to_identify=len(shards) - stored,
                eta_seconds=_rounded(self._eta(shards)),
                **_also(sum(shard.paused_since is not None for shard in shards)),
            )

    def changed(self) -> bool:
        """Log the progress after a change of a shard. Return True once all that are not paused have been Ready."""
        shards = self._shards()
        ready, paused = counts = _counts(shards)
        complete = StartProgress(ready, len(shards), None, paused).complete
        if counts != self._counts and len(shards) > 1:
            self._counts = counts
            if complete:
                self.close()
                seconds = round(self._clock.monotonic() - self._began_at, 1)
                logger.info("All shards are ready", shards=ready, seconds=seconds, **_also(paused))
            elif self._timer is None:
                wait = max(GATHER_SECONDS, self._logged_at + LOG_EVERY_SECONDS - self._clock.monotonic())
                self._timer = self._clock.call_later(wait, self._log_progress)
        return complete

    def close(self) -> None:
        """Cancel the next log line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _log_progress(self) -> None:
        self._timer = None
        self._logged_at = self._clock.monotonic()
        progress = self.progress
        logger.info(
            "Shards ready",
            ready=progress.ready,
            of=progress.total,
            eta_seconds=_rounded(progress.eta),
            **_also(progress.paused),
        )

    def _eta(self, shards: Sequence[ShardTracker]) -> float | None:
        """Estimate the seconds from the identify buckets and the back-off of the shards that are awaited."""
        missing = [shard for shard in shards if not shard.was_ready and shard.paused_since is None]
        if not missing:
            return None  # all are paused
        seconds = self._seconds_to_identify([shard.shard_id for shard in missing if _must_identify(shard)])
        if seconds is None:
            return None
        now = self._clock.monotonic()
        due = [shard.backoff.due - now for shard in missing if shard.backoff is not None]
        return max([seconds, *due])


def _counts(shards: Sequence[ShardTracker]) -> tuple[int, int]:
    """Return how many shards have been Ready, and how many of the others are paused."""
    ready = sum(shard.was_ready for shard in shards)
    return ready, sum(shard.paused_since is not None and not shard.was_ready for shard in shards)


def _also(paused: int) -> dict[str, int]:
    return {"paused": paused} if paused else {}


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
