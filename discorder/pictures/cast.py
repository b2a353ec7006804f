"""Who takes part in a sequence diagram, and what a step of the machine means between them. It decides nothing about the looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from discorder.pictures.stories import Step
from discorder.statemachine import State
from discorder.statemachine import commands as command
from discorder.statemachine.table import WIRE, Name
from discorder.statemachine.terms import Deadline, Keeper


class Part(StrEnum):
    """The participants, from left to right; ``MACHINE`` is the one that decides."""

    OPERATOR = "operator"
    STORE = "session store"
    GATE = "identify gate"
    MACHINE = "machine"
    DRIVER = "driver"
    COROUTINES = "coroutines"
    DISCORD = "Discord"


class Stroke(StrEnum):
    """What an arrow is: something that happened, a command, or the driver keeping the running tasks equal to ``RUNS[state]``."""

    TRIGGER = "trigger"
    COMMAND = "command"
    TASKS = "tasks"


@dataclass(frozen=True, slots=True)
class Message:
    """One arrow."""

    sender: Part
    receiver: Part
    text: str
    stroke: Stroke


@dataclass(frozen=True, slots=True)
class Entered:
    """The machine entered a state."""

    state: State


SENDERS: Mapping[Name, Part] = {
    **dict.fromkeys((*WIRE, Name.CONNECT_FAILED), Part.DISCORD),
    Name.START: Part.OPERATOR,
    Name.STOP: Part.OPERATOR,
    Name.IDENTIFY_SLOT: Part.GATE,
    Name.SLOT_REFUSED: Part.GATE,
    Name.SLOT_DEFERRED: Part.GATE,
    Name.RESTART_DUE: Part.DRIVER,
    Name.STOPPED: Part.DRIVER,
    Name.CONGESTED: Part.DRIVER,
    Name.ZOMBIE: Part.COROUTINES,
    Name.TIMEOUT: Part.COROUTINES,
    Name.TASK_FAILED: Part.COROUTINES,
    Name.STABLE: Part.COROUTINES,
    Name.DIAGNOSED: Part.COROUTINES,
}
"""Who reports a trigger."""


def messages(steps: list[Step]) -> Iterator[Message | Entered]:
    """The arrows of ``steps`` and the states that are entered, from top to bottom."""
    for step in steps:
        name = step.trigger.name
        said = f"{name} [{step.guards}]" if step.guards else name.value
        yield Message(SENDERS[name], Part.MACHINE, said, Stroke.TRIGGER)
        if step.target is not step.source:
            yield Entered(step.target)
        for wanted in step.commands:
            receiver, text = _told(wanted)
            yield Message(Part.MACHINE, receiver, text, Stroke.COMMAND)
        for verb, tasks in (("stop", step.stopped), ("start", step.started)):
            if tasks:
                yield Message(Part.DRIVER, Part.COROUTINES, f"{verb} {', '.join(tasks)}", Stroke.TASKS)


def _told(wanted: command.Command) -> tuple[Part, str]:  # one line per command
    match wanted:
        case command.OpenSocket(url=url, generation=generation):
            return Part.DISCORD, f"dial the {'resume' if url else 'main'} host (generation {generation})"
        case command.SendResume():
            return Part.DISCORD, "RESUME"
        case command.SendIdentify():
            return Part.DISCORD, "IDENTIFY"
        case command.CloseSocket(code):
            return Part.DISCORD, f"close with {code}"
        case command.AbortSocket():
            return Part.DISCORD, "drop the socket"
        case command.RequestSlot():
            return Part.GATE, "request a slot"
        case command.ReleaseSlot():
            return Part.GATE, "release the slot"
        case command.SaveSession():
            return Part.STORE, "save the session"
        case command.DropSession():
            return Part.STORE, "forget the session"
        case command.ScheduleRestart(windows):
            low, high = max(w.low for w in windows), max(w.high for w in windows)
            return Part.DRIVER, f"restart in {low:g} to {high:g} s"
        case command.ArmDeadline(deadline):
            return _keeper(deadline), f"expect {deadline.awaited} within {deadline.seconds:g} s"
        case command.Diagnose():
            return Part.DRIVER, "diagnose"
        case command.SlowDown(seconds):
            return Part.DRIVER, f"send at half the rate for {seconds:g} s"
        case command.Ignored() | command.Rejected():
            return Part.DRIVER, f"{wanted.trigger} means nothing in {wanted.state}"


def _keeper(deadline: Deadline) -> Part:
    return Part.COROUTINES if deadline.keeper is Keeper.DOCTOR else Part.DRIVER
