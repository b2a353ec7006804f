"""An operator who restarts, pauses and unpauses shards of the main host, and looks whether a pause has reached the disk."""

from __future__ import annotations

from collections.abc import Callable

from discorder.errors import NotRunning, VerbRefused
from discorder.tracking.tracker import GatewayTracker
from tests.simulation.life import Host, Life
from tests.simulation.loop import VirtualLoop

STORED_WITHIN = 2.5  # seconds, on a sound disk
PATIENCE = 1.0  # seconds until an operator whose process is down or starting tries again


class Operator:
    """``life`` returns the present process of ``host``; ``eased`` is called when a pause has ended."""

    def __init__(
        self,
        loop: VirtualLoop,
        host: Host,
        life: Callable[[], Life | None],
        violate: Callable[[str], None],
        eased: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._host = host
        self._life = life
        self._violate = violate
        self._eased = eased

    def restart(self, life: Life, shard: int) -> bool:
        """Return whether the restart had an effect."""
        return self._request(life, shard, lambda tracker: tracker.restart_shard(shard))

    def pause(self, life: Life, shard: int, seconds: float) -> bool:
        """Pause for ``seconds``. Return whether the pause had an effect."""
        if not self._request(life, shard, lambda tracker: tracker.pause_shard(shard)):
            return False
        life.paused.add(shard)
        began = self._loop.time()
        self._later(STORED_WITHIN, lambda: self._look(life, shard, began))
        self._later(seconds, lambda: self._unpause(shard))
        return True

    def _request(self, life: Life, shard: int, verb: Callable[[GatewayTracker], None]) -> bool:
        if life.tracker is None or not life.awake:
            return False
        try:
            self._loop.within(life.process).run(verb, life.tracker)
        except (VerbRefused, NotRunning, ValueError):
            return False
        if (wire := life.wires.get(shard)) is not None:
            wire.disturbed = True
        return True

    def _look(self, life: Life, shard: int, began: float) -> None:
        stored = {one for (one, _), since in self._host.disk.pauses.items() if since is not None}
        troubled = self._host.disk.troubled_at >= began or self._host.disk.full or not life.awake
        if life.running and shard in life.paused and shard not in stored and not troubled:
            self._violate(f"shard {shard}: a pause is not on the disk after {STORED_WITHIN} s")

    def _unpause(self, shard: int) -> None:
        """End the pause; wait for a process that takes the request."""
        life = self._life()
        try:
            if life is None or not life.running or not life.awake or life.tracker is None:
                raise NotRunning
            self._loop.within(life.process).run(life.tracker.unpause_shard, shard)
        except VerbRefused as refused:
            if refused.reason == "it is not paused":  # a killed process had not stored it
                self._ended(life, shard)
                return
            self._later(PATIENCE, lambda: self._unpause(shard))
        except (NotRunning, ValueError):
            self._later(PATIENCE, lambda: self._unpause(shard))
        else:
            self._ended(life, shard)

    def _ended(self, life: Life | None, shard: int) -> None:
        if life is not None:
            life.paused.discard(shard)
        self._eased()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._loop.call_later(seconds, act, context=self._loop.outside)
