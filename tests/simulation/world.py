"""The whole of a run: one plan, one loop, one main host, and the judges. The result says what was violated, if anything."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from discorder.statemachine import State
from discorder.statemachine.table import Name
from discorder.tracking.shard_tracker import ShardTracker, Transition
from tests.simulation.cells import DOWN, ON_A_CONNECTION
from tests.simulation.delivery import Delivery, repeating
from tests.simulation.faults import CLOSE_CODES, Fault, Kind, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.hosting import Hosting
from tests.simulation.life import Life
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.operator import Operator
from tests.simulation.oracle import Referee
from tests.simulation.plan import DAY, Plan
from tests.simulation.session import TYPES
from tests.simulation.sinks import Sink
from tests.simulation.strikes import Strikes
from tests.simulation.trace import Trace
from tests.simulation.watchdog import EVERY, Watchdog

AIM_FOR = 60.0  # seconds that a fault waits for the state that it aims at
ACCEPTED_AFTER = 3.5  # latencies after a dial began: its connection is there, and Hello on the way
CALM = 900.0  # seconds without a fault at the end, after the last one is over
PARKED_LONGEST = 12_000.0  # beyond a day, when the clock was set
PATIENCE = 300.0  # between two looks whether a parked shard has come up
QUIET = 30.0  # and without an event
NIGHT_GAP = 60.0  # seconds between two events when nothing has been wrong for so long
ENDS_WITHIN = 10.0
SIMPLE = frozenset({Kind.RESET, Kind.RECONNECT, Kind.INVALID_RESUMABLE, Kind.CLOSE, Kind.TRUNCATED, Kind.RESTART})
RESTART_WITHIN = 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``violation`` "" = none. ``struck``: how often a fault of a kind struck in a state. ``digest`` identifies the run."""

    violation: str
    at: float
    digest: str
    transcript: tuple[str, ...]
    struck: Counter[tuple[Kind, str]]
    figures: dict[str, int]


class World:
    """Made for one plan; `run` is called once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = VirtualLoop()
        self._trace = Trace()
        self._rng = random.Random(f"world {plan.seed}")
        self._weather = Weather()
        self._lives: dict[Process, Life] = {}
        self._violation = ""
        self._gateway = Gateway(self._loop, self._rng, self._weather, plan.measures)
        self._referee = Referee(self._gateway, self._lives, self._violate, self._note)
        self._network = Network(self._loop, self._rng, self._weather, self._gateway, self._referee)
        self._network.latency, self._network.batch = plan.measures.latency, plan.measures.batch
        repeats = repeating((fault.kind, fault.variant) for fault in plan.faults)
        self._delivery = Delivery(self._gateway, self._lives, self._violate, repeats)
        self._watchdog = Watchdog(self._gateway, self._weather, self._violate, self._note)
        self._watchdog.moved = self._moved
        self._hosting = Hosting(
            self._loop, self._gateway, self._network, self._weather, self._rng, self._lives, self._violate, self._note
        )
        self._hosting.judge, self._hosting.saved = self._delivery.judge, self._delivery.saved
        self._hosting.found = self._referee.found
        self._main = self._hosting.host("main")
        self._strikes = Strikes(self._loop, self._gateway, self._network, self._weather, self._hosting, self._main)
        self._strikes.restart, self._strikes.foreign = self._restart_in, self._foreign
        self._strikes.operator = Operator(
            self._loop, self._main, lambda: self._strikes.life, self._violate, lambda: self._trouble(0.0)
        )
        self._struck: Counter[tuple[Kind, str]] = Counter()
        self._aimed: list[tuple[float, Fault]] = []
        self._talking = True
        self._over = False

    # ---------------------------------------------------------------- the run

    def run(self) -> Outcome:
        """Run the plan, then a calm in which everything must be well again, then a graceful stop."""
        with _alone(self._plan.seed):
            self._play()
            outcome = Outcome(
                self._violation,
                self._loop.time(),
                self._trace.digest,
                tuple(self._trace.lines),
                self._struck,
                self._figures(),
            )
            self._hosting.bury()
            self._loop.close()
        return outcome

    def _play(self) -> None:
        loop, plan = self._loop, self._plan
        loop.settled = self._settled
        self._restart_in(0.0)
        for fault in plan.faults:
            self._at(fault.at, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        for shard in range(plan.measures.shards):
            self._talk(shard)
        self._look()
        self._until(plan.seconds)
        self._until(max(loop.time(), self._watchdog.trouble_until) + CALM)
        latest = self._gateway.reset_at + DAY + PARKED_LONGEST
        while not self._all_ready() and self._watchdog.budget_is_spent(self._main) and loop.time() < latest:
            self._until(loop.time() + PATIENCE)  # parked until there are new IDENTIFYs
        self._talking = False
        self._until(loop.time() + QUIET)
        self._end()

    def _all_ready(self) -> bool:
        """Return whether all shards are Ready, or the run is over."""
        life = self._strikes.life
        shards = () if life is None or life.tracker is None else life.tracker.shards
        return bool(self._violation) or (bool(shards) and all(shard.state is State.READY for shard in shards))

    def _until(self, moment: float) -> None:
        self._loop.run_until(moment, while_=lambda: not self._violation)

    def _end(self) -> None:
        life = self._strikes.life
        if self._violation or life is None:
            return
        if not self._all_ready():
            self._violate("not Ready at the end of the calm")
            return
        self._delivery.stored_in_time(self._main)
        self._over = True
        self._hosting.stop(life, goodbye=False)
        self._until(self._loop.time() + ENDS_WITHIN)
        if not self._violation:
            self._delivery.finished(self._main)
            self._delivery.announced(self._main)

    # ---------------------------------------------------------------- whenever nothing is left to run

    def _settled(self) -> None:
        for life in self._hosting.running:
            if life.process.failures:
                self._violate(f"{life.process.name}: {life.process.failures[0]}")
            self._watchdog.settled(life)
            self._delivery.settled(life)
            if life.task is not None and life.task.done():
                self._process_ended(life)

    def _process_ended(self, life: Life) -> None:
        self._hosting.ended(life)
        if life.host is self._main and not self._over:
            self._restart_in(self._rng.uniform(0.05, RESTART_WITHIN) if life.stop_at is not None else 20.0)

    def _moved(self, life: Life, shard: ShardTracker, step: Transition) -> None:
        if step.target is not State.READY:
            life.ready_since.pop(shard.shard_id, None)
        elif step.source is not State.READY:
            life.ready_since[shard.shard_id] = life.monotonic()
        if step.trigger is Name.CONGESTED and (wire := life.wires.get(shard.shard_id)) and wire.link.session:
            life.congested.add(wire.link.session.label)
            sink = Sink[(step.cause or "").rpartition(": ")[2].upper()]  # the cause names the publisher
            if self._watchdog.still_full(life, sink):
                book = life.host.books[sink]
                life.held_off[shard.shard_id] = (life.monotonic(), book, book.accepted)
        if life is self._strikes.life and shard.state is step.target:  # it may have moved on at the same moment
            self._reached(shard.shard_id, step.target)

    def _reached(self, shard: int, state: State) -> None:
        """Apply the faults that aim at this state, and move a shard again that passed it unseen."""
        for aimed in [one for one in self._aimed if one[1].aim is state and one[1].shard == shard]:
            self._aimed.remove(aimed)
            fault = aimed[1]
            lag = fault.lag
            if not lag and state is State.CONNECTING and fault.kind in ON_A_CONNECTION:
                lag = ACCEPTED_AFTER * self._plan.measures.latency
            self._at(self._loop.time() + lag, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        waiting = next((fault for _, fault in self._aimed if fault.shard == shard), None)
        if waiting is not None and waiting.aim is not None and state is State.READY:
            self._strikes.provoke(waiting.aim, shard)

    # ---------------------------------------------------------------- faults

    def _begin(self, fault: Fault) -> None:
        if fault.aim is None:
            self._strike(fault)
            return
        self._trouble(AIM_FOR)
        if fault.aim is State.DISCONNECTED:
            self._note("world", f"aims {fault.kind} at the time between two processes")
            self._strikes.go_down()
            self._strike(fault)
            return
        if self._state(fault.shard) == fault.aim:
            self._strike(fault)
            return
        armed = (self._loop.time() + AIM_FOR, fault)
        self._aimed.append(armed)
        self._at(armed[0], lambda: self._aimed.remove(armed) if armed in self._aimed else None)
        if self._state(fault.shard) == State.READY:
            self._note("world", f"aims {fault.kind} at {fault.aim}")
            self._strikes.provoke(fault.aim, fault.shard)

    def _strike(self, fault: Fault) -> None:
        state = self._state(fault.shard)
        self._note("world", f"{fault} (in {state})")
        if not self._strikes.strike(fault):
            self._note("world", "finds nothing to strike")
            return
        self._struck[fault.kind, state] += 1
        if fault.kind in SIMPLE and not (fault.kind is Kind.CLOSE and CLOSE_CODES[fault.variant] in {4007, 4008, 4009}):
            self._expect_back(fault.shard)
        if fault.kind is not Kind.REFUSE_RESUME:  # the main host is there, so nobody may notice
            self._trouble(fault.seconds)

    def _expect_back(self, shard: int) -> None:
        life, struck = self._strikes.life, self._struck.total()
        seconds = None if life is None else self._watchdog.expect_back(life, shard)
        if life is None or seconds is None:
            return

        def look() -> None:
            undisturbed = self._struck.total() == struck and not self._aimed and life.running and life.stop_at is None
            if undisturbed and shard not in life.ready_since:
                self._violate(
                    f"shard {shard}: not Ready {seconds:g} s after a simple interruption, with all else in order"
                )

        self._at(self._loop.time() + seconds, look)

    def _trouble(self, seconds: float) -> None:
        self._watchdog.trouble_until = max(self._watchdog.trouble_until, self._loop.time() + seconds)

    def _state(self, shard: int) -> str:
        life = self._strikes.life
        if life is None or not life.running or life.tracker is None:
            return DOWN
        return next((str(one.state) for one in life.tracker.shards if one.shard_id == shard), DOWN)

    def _restart_in(self, seconds: float) -> None:
        def start() -> None:
            if self._strikes.life is None or not self._strikes.life.running:
                self._trouble(0.0)
                self._strikes.life = self._hosting.start(self._main)

        self._at(self._loop.time() + seconds, start)

    def _foreign(self) -> None:
        self._referee.foreign = True

    # ---------------------------------------------------------------- what goes on all the time

    def _talk(self, shard: int) -> None:
        if self._talking:
            self._gateway.publish(shard, self._rng.choice(TYPES))
            calm = self._loop.time() > self._watchdog.trouble_until + CALM
            gap = self._rng.expovariate(1 / max(self._plan.measures.event_gap, NIGHT_GAP if calm else 0.0))
            self._at(self._loop.time() + gap, lambda: self._talk(shard))

    def _look(self) -> None:
        self._watchdog.look(self._hosting.running)
        self._at(self._loop.time() + EVERY, self._look)

    def _at(self, moment: float, act: Callable[[], object]) -> None:
        self._loop.call_at(moment, act, context=self._loop.outside)

    # ---------------------------------------------------------------- what comes out

    def _violate(self, what: str) -> None:
        if not self._violation:
            self._violation = what
            self._note("VIOLATED", what)

    def _note(self, who: str, what: str) -> None:
        self._trace.note(self._loop.time(), who, what)

    def _figures(self) -> dict[str, int]:
        return {
            "steps": self._loop.steps,
            "events": sum(session.seq for session in self._gateway.sessions),
            "sessions": len(self._gateway.sessions),
            "identifies": self._gateway.identifies,
            "processes": len(self._lives),
            "faults": self._struck.total(),
        }


@contextlib.contextmanager
def _alone(seed: int) -> Iterator[None]:
    """The process-wide things that a run uses: the random numbers of tenacity's waits, and the standard library's log."""
    state, log = random.getstate(), logging.getLogger("discorder")
    disabled, log.disabled = log.disabled, True
    below = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("discorder.")]
    before = [one.disabled for one in below]
    for one in below:
        one.disabled = True
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        log.disabled = disabled
        for one, was in zip(below, before, strict=True):
            one.disabled = was


def run(plan: Plan) -> Outcome:
    """One run of ``plan``."""
    return World(plan).run()
