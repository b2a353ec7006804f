"""Run the machine through the scenarios of the sequence diagrams.

A scenario is a list of triggers for a real `ShardMachine`. The commands are the machine's own, so a picture cannot show what the
machine does not do.
"""

from __future__ import annotations

from dataclasses import dataclass

from discorder.pictures.graph_model import guard_words
from discorder.statemachine import RUNS, CauseKind, Facts, Session, ShardMachine, State, Task
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.check import enabled
from discorder.statemachine.table import rows_for
from discorder.statemachine.terms import Guard

UP = Facts(now=100.0, dispatched=True, socket_closed=False)  # during a connection with dispatches
GONE = Facts(now=100.0, socket_closed=True)  # between two connections
_SESSION = Session("session", "wss://resume-host")
_REFUSED = OSError("refused")


@dataclass(frozen=True, slots=True)
class Scenario:
    """The ``triggers`` that are shown, each with the facts at its time, after the triggers of ``before``, which are not shown."""

    title: str
    before: tuple[tuple[trigger.Trigger, Facts], ...]
    triggers: tuple[tuple[trigger.Trigger, Facts], ...]


@dataclass(frozen=True, slots=True)
class ScenarioStep:
    """One trigger and its result. ``guards``: those of the matching row, in words."""

    trigger: trigger.Trigger
    guards: str
    source: State
    target: State
    commands: tuple[command.Command, ...]
    started: tuple[Task, ...]
    stopped: tuple[Task, ...]


_TO_READY = (
    (trigger.Start(), GONE),
    (trigger.Hello(), UP),
    (trigger.IdentifySlot(), UP),
    (trigger.Ready(_SESSION), UP),
)
_AGAIN = ((trigger.Diagnosed(), GONE), (trigger.RestartDue(), GONE))
_RESUMED = ((trigger.Hello(), UP), (trigger.Resumed(), UP))

SCENARIOS = {
    "start": Scenario("Start: IDENTIFY opens a session", (), (*_TO_READY, (trigger.Stable(), UP))),
    "resume": Scenario(
        "Op 7: a planned interruption is resumed", _TO_READY, ((trigger.Reconnect(), UP), *_AGAIN, *_RESUMED)
    ),
    "zombie": Scenario(
        "A zombie: the resume host refuses, the main host resumes the same session",
        _TO_READY,
        (
            (trigger.Zombie(_REFUSED), UP),
            *_AGAIN,
            (trigger.ConnectFailed(_REFUSED), GONE),
            *_AGAIN,
            *_RESUMED,
        ),
    ),
    "op-9": Scenario(
        "Op 9 false: the session is gone, a new one is opened",
        _TO_READY,
        (
            (trigger.InvalidSession(_REFUSED), UP),
            *_AGAIN,
            (trigger.Hello(), UP),
            (trigger.IdentifySlot(), UP),
            (trigger.Ready(_SESSION), UP),
        ),
    ),
    "shutdown": Scenario(
        "Shutdown: the session is handed over to the next start",
        _TO_READY,
        ((trigger.Stop(), UP), (trigger.Stopped(), GONE)),
    ),
}
"""The scenarios, by their names in ``discorder diagram``."""


def run(scenario: Scenario) -> list[ScenarioStep]:
    """Pass the triggers of ``scenario`` to a machine and return the steps that are shown."""
    machine = ShardMachine()
    try:
        for what, facts in scenario.before:
            machine.handle(what, facts)
        return [_step(machine, what, facts) for what, facts in scenario.triggers]
    finally:
        machine.retire()


def _step(machine: ShardMachine, what: trigger.Trigger, facts: Facts) -> ScenarioStep:
    source = machine.state
    guards = _deciding_guards(machine, what, facts)
    commands = machine.handle(what, facts)
    before, after = RUNS[source], RUNS[machine.state]
    return ScenarioStep(
        what,
        guards,
        source,
        machine.state,
        tuple(commands),
        started=_ordered(after - before),
        stopped=_ordered(before - after),
    )


def _deciding_guards(machine: ShardMachine, what: trigger.Trigger, facts: Facts) -> str:
    kind = None if machine.cause is None else machine.cause.kind
    valuation = {
        Guard.RESUMABLE: machine.session is not None,
        Guard.PLANNED: kind is CauseKind.PLANNED,
        Guard.FATAL: kind is CauseKind.FATAL,
        Guard.PARKED: kind is CauseKind.PARKED,
        Guard.FAIL_ON_ERROR: machine.fails_on_error,
        Guard.ATTEMPTS_LEFT: True,  # a machine of a scenario never gives up
        Guard.SOCKET_CLOSED: facts.socket_closed,
        Guard.MAY_OPEN: facts.may_open,
        Guard.PAUSED: machine.is_paused,
    }
    (row,) = [row for row in rows_for(machine.state, what.name) if enabled(row, valuation)]
    return guard_words(machine.state, row)


def _ordered(tasks: frozenset[Task]) -> tuple[Task, ...]:
    return tuple(task for task in Task if task in tasks)
