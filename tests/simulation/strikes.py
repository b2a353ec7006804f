"""What each kind of fault does to the world at the moment at which it strikes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from discorder.errors import NotRunning
from discorder.statemachine import State
from tests.simulation.faults import BREACHES, CLOSE_CODES, NATURES, ODDITIES, THROWN, Fault, Kind, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.hosting import Hosting
from tests.simulation.life import Host, Life
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Link, Network
from tests.simulation.session import TYPES

CRASH_EVERY = 5.0
GATEWAY_STRIKES = frozenset(
    {
        Kind.RECONNECT,
        Kind.INVALID_RESUMABLE,
        Kind.INVALID,
        Kind.NO_ACK,
        Kind.ASK_BEAT,
        Kind.SECOND_READY,
        Kind.CLOSE_FATAL,
    }
)
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

    def provoke(self, aim: State, shard: int) -> None:
        """Make the shard move, so that it comes through ``aim``."""
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
        """No process runs, for a while."""
        if self.life is not None and self.life.running:
            self._hosting.kill(self.life)
            self.restart(2.0)

    def strike(self, fault: Fault) -> None:
        kind, link = fault.kind, self._link(fault.shard)
        if kind is Kind.SECOND_OWNER:
            self._second_owner(fault.seconds)
        elif kind is Kind.CRASH_LOOP:
            self._crash_until(self._loop.time() + fault.seconds)
        elif kind is Kind.RECONNECT_STORM:
            self._storm_until(self._loop.time() + fault.seconds, fault.shard)
        elif NATURES[kind].lasts[1] and kind is not Kind.HOST_SLEEP:
            self._weather.begin(fault, self._loop.time())
        elif kind in GATEWAY_STRIKES:
            if link is not None:
                self._gateway.strike(link, kind, fault.variant)
        elif kind in {Kind.BURST, Kind.WALL_JUMP, Kind.HOST_SLEEP, Kind.KILL, Kind.STOP, Kind.GOODBYE, Kind.THROW}:
            self._strike_process(fault)
        elif link is not None:
            self._strike_link(link, fault)

    def _strike_link(self, link: Link, fault: Fault) -> None:
        kind = fault.kind
        if kind is Kind.RESET:
            link.drop("reset")
        elif kind is Kind.HALF_OPEN:
            link.stop_passing()
        elif kind is Kind.TRUNCATED:
            link.push(BREACHES[0])
            link.server_closes(None)
        elif kind is Kind.WRITE_HANGS:
            link.full = True
        elif kind is Kind.CLOSE:
            self._gateway.close(link, CLOSE_CODES[fault.variant])
        elif kind is Kind.GARBAGE:
            link.push((*BREACHES, *ODDITIES)[fault.variant])
        elif kind in {Kind.REPLAY_LOST, Kind.EXPIRED}:
            for session in self._gateway.living(fault.shard, self._main.name):
                if kind is Kind.EXPIRED:
                    self._gateway.end_session(session, "expired")
                session.kept_from = session.seq + 1
            link.drop("reset")

    def _strike_process(self, fault: Fault) -> None:
        kind, life = fault.kind, self.life
        if kind is Kind.BURST:
            for number in range((250, 3000)[fault.variant]):
                self._gateway.publish(fault.shard, TYPES[number % len(TYPES)])
        elif kind is Kind.WALL_JUMP:
            self._main.wall.offset += (3600.0, -3600.0)[fault.variant]
            self._main.wall_jumped_at = self._loop.time()
        elif life is None or not life.running:
            return
        elif kind is Kind.HOST_SLEEP:
            self._sleep(life, fault.seconds)
        elif kind is Kind.KILL:
            self._hosting.kill(life)
            self.restart(fault.lag + 0.5)
        elif kind is Kind.THROW and life.tracker is not None:
            with contextlib.suppress(NotRunning, ValueError):
                life.tracker.throw_to(THROWN[fault.variant], RuntimeError("simulated failure"), shard=fault.shard)
        elif kind in {Kind.STOP, Kind.GOODBYE}:
            self._hosting.stop(life, goodbye=kind is Kind.GOODBYE)

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
