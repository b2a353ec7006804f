"""The effect of each kind of fault on the world when it strikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from discorder.errors import NotRunning
from discorder.statemachine import State
from tests.simulation.cells import ON_A_CONNECTION, ON_A_PROCESS
from tests.simulation.faults import BREACHES, ODDITIES, THROWN, Fault, Kind, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.hosting import Hosting
from tests.simulation.life import Host, Life
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Link, Network, Stage
from tests.simulation.operator import Operator
from tests.simulation.session import TYPES

CRASH_EVERY = 5.0
# more than a queue, the hold buffer and the batch in hand take, even of those that a filter lets through
FLOOD_EVENTS = 3600
GIANT = 6_000_000  # bytes: three do not fit into the hold buffer
PROVOKES = {State.IDENTIFYING: Kind.INVALID, State.UNHEALTHY: Kind.RECONNECT}
"""What brings a shard that is Ready into a state that a fault aims at; a reset for all others."""


class Strikes:
    """``main`` is the host whose control plane is judged; `life` its present process."""

    def __init__(
        self, loop: VirtualLoop, gateway: Gateway, network: Network, weather: Weather, hosting: Hosting, main: Host
    ) -> None:
        self._loop = loop
        self._gateway = gateway
        self._network = network
        self._weather = weather
        self._hosting = hosting
        self._main = main
        self.life: Life | None = None
        self.restart: Callable[[float], None]  # start the main process again in so many seconds
        self.foreign: Callable[[], None]
        self.operator: Operator

    def provoke(self, aim: State, shard: int) -> None:
        """Cause a transition that leads the shard through ``aim``."""
        if aim in {State.STOPPING, State.EXITED} and self.life is not None:
            self._hosting.stop(self.life, goodbye=False)
            return
        link = self._link(shard)
        if link is None:
            return
        if (kind := PROVOKES.get(aim)) is not None:
            self._gateway.strike(link, kind, 0)
        else:
            link.drop("provoked")

    def go_down(self) -> None:
        """Run no process for some time."""
        if self.life is not None and self.life.running:
            self._hosting.kill(self.life)
            self.restart(2.0)

    def strike(self, fault: Fault) -> bool:
        """Apply ``fault`` now; False where it has no target."""
        kind, now = fault.kind, self._loop.time()
        if kind in ON_A_CONNECTION:
            return self._strike_link(fault)
        if kind in ON_A_PROCESS:
            return self._strike_process(fault)
        if kind is Kind.SECOND_OWNER:
            self._second_owner(fault.seconds)
        elif kind is Kind.CRASH_LOOP:
            self._crash_until(now + fault.seconds)
        elif kind is Kind.RECONNECT_STORM:
            self._storm_until(now + fault.seconds, fault.shard)
        elif kind is Kind.FLOOD:
            self._flood(fault)
        elif kind is Kind.BURST:
            for number in range((250, 3000)[fault.variant]):
                self._gateway.publish(fault.shard, TYPES[number % len(TYPES)])
        elif kind is Kind.WALL_JUMP:
            self._main.wall.offset += (3600.0, -3600.0)[fault.variant]
            self._main.wall_jumped_at = now
        elif kind in {Kind.REPLAY_LOST, Kind.EXPIRED}:
            self._strike_sessions(fault)
        else:
            self._weather.begin(fault, now)
        return True

    def _strike_link(self, fault: Fault) -> bool:
        kind, link = fault.kind, self._link(fault.shard)
        if link is None or link.stage in {Stage.NEW, Stage.CLOSED}:
            return False
        if kind is Kind.RESET:
            link.drop("reset")
        elif kind is Kind.HALF_OPEN:
            link.stop_passing()
        elif kind is Kind.TRUNCATED:
            link.push(BREACHES[0])
            link.server_closes(None)
        elif kind is Kind.WRITE_HANGS:
            link.full = True
        elif kind is Kind.GARBAGE:
            link.push((*BREACHES, *ODDITIES)[fault.variant])
        else:
            return self._gateway.strike(link, kind, fault.variant)
        return True

    def _strike_sessions(self, fault: Fault) -> None:
        for session in self._gateway.living(fault.shard, self._main.name):
            if fault.kind is Kind.EXPIRED:
                self._gateway.end_session(session, "expired")
            session.kept_from = session.seq + 1
        if (link := self._link(fault.shard)) is not None:
            link.drop("reset")

    def _flood(self, fault: Fault) -> None:
        """``variant``: the publisher's number; 2 and 3 are the same with few events, some of them giants."""
        giants, number = divmod(fault.variant, 2)
        self._weather.begin(replace(fault, kind=Kind.SINK_HANGS, variant=number), self._loop.time())
        for count in range(20 if giants else FLOOD_EVENTS):  # a filter lets three of four through, and every giant
            self._gateway.publish(
                fault.shard, TYPES[count % 4], GIANT if giants and count < 14 and not count % 2 else 0
            )

    def _strike_process(self, fault: Fault) -> bool:
        kind, life = fault.kind, self.life
        if life is None or not life.running:
            return False
        if kind is Kind.HOST_SLEEP:
            self._sleep(life, fault.seconds)
        elif kind is Kind.KILL:
            self._hosting.kill(life)
            self.restart(fault.lag + 0.5)
        elif kind is Kind.THROW:
            return self._throw(life, fault)
        elif kind is Kind.RESTART:
            return self.operator.restart(life, fault.shard)
        elif kind is Kind.PAUSE:
            return self.operator.pause(life, fault.shard, fault.seconds)
        else:
            return self._hosting.stop(life, goodbye=kind is Kind.GOODBYE)
        return True

    def _throw(self, life: Life, fault: Fault) -> bool:
        if life.tracker is None:
            return False
        try:
            life.tracker.throw_to(THROWN[fault.variant], RuntimeError("simulated failure"), shard=fault.shard)
        except (NotRunning, ValueError):
            return False
        if (wire := life.wires.get(fault.shard)) is not None:
            wire.disturbed = True
        return True

    def _sleep(self, life: Life, seconds: float) -> None:
        process = life.process
        if process.frozen_until > self._loop.time():
            return  # it sleeps already
        self._loop.suspend(process, seconds)

        def wake() -> None:
            process.slept += seconds

        self._loop.call_later(seconds, wake, context=self._loop.outside)

    def _crash_until(self, end: float) -> None:
        if self._loop.time() < end:
            if self.life is not None and self.life.running:
                self._hosting.kill(self.life)
                self.restart(0.5)
            self._loop.call_later(CRASH_EVERY, lambda: self._crash_until(end), context=self._loop.outside)

    def _storm_until(self, end: float, shard: int) -> None:
        if self._loop.time() < end:
            if (link := self._link(shard)) is not None:
                self._gateway.strike(link, Kind.RECONNECT, 0)
            self._loop.call_later(1.2, lambda: self._storm_until(end, shard), context=self._loop.outside)

    def _second_owner(self, seconds: float) -> None:
        self.foreign()
        host = self._hosting.host(f"other{self._loop.time():.0f}")
        life = self._hosting.start(host)
        self._loop.call_later(seconds, lambda: self._hosting.kill(life), context=self._loop.outside)

    def _link(self, shard: int) -> Link | None:
        return None if self.life is None else self._network.links.get((self.life.process, shard))
