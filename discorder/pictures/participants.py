"""Translate the steps of a scenario into messages between the participants of a sequence diagram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from discorder.pictures.scenarios import ScenarioStep
from discorder.statemachine import State
from discorder.statemachine import commands as command
from discorder.statemachine.table import VERBS, WIRE, Name
from discorder.statemachine.terms import Deadline, Keeper
from discorder.wire import GOODBYE_CLOSE, RESUMABLE_CLOSE


class Participant(StrEnum):
    """The participants, from left to right."""

    OPERATOR = "operator"
    STORE = "session store"
    GATE = "identify gate"
    MACHINE = "machine"
    DRIVER = "driver"
    COROUTINES = "coroutines"
    DISCORD = "Discord"


class Stroke(StrEnum):
    """The kind of an arrow: a trigger, a command, or tasks that the driver starts or stops (``RUNS[state]``)."""

    TRIGGER = "trigger"
    COMMAND = "command"
    TASKS = "tasks"


@dataclass(frozen=True, slots=True)
class Message:
    """An arrow from one participant to another."""

    sender: Participant
    receiver: Participant
    text: str
    stroke: Stroke


@dataclass(frozen=True, slots=True)
class Entered:
    """A box: the machine entered a state."""

    state: State


SENDERS: Mapping[Name, Participant] = {
    **dict.fromkeys((*WIRE, Name.CONNECT_FAILED, Name.BREACH), Participant.DISCORD),
    Name.START: Participant.OPERATOR,
    Name.STOP: Participant.OPERATOR,
    **dict.fromkeys(VERBS, Participant.OPERATOR),
    Name.IDENTIFY_SLOT: Participant.GATE,
    Name.SLOT_REFUSED: Participant.GATE,
    Name.SLOT_DEFERRED: Participant.GATE,
    Name.RESTART_DUE: Participant.DRIVER,
    Name.STOPPED: Participant.DRIVER,
    Name.CONGESTED: Participant.DRIVER,
    Name.ZOMBIE: Participant.COROUTINES,
    Name.TIMEOUT: Participant.COROUTINES,
    Name.TASK_FAILED: Participant.COROUTINES,
    Name.STABLE: Participant.COROUTINES,
    Name.DIAGNOSED: Participant.DRIVER,
}
"""The participant that reports a trigger."""


def messages(steps: list[ScenarioStep]) -> Iterator[Message | Entered]:
    """Yield the arrows and the entered states of ``steps``, from top to bottom."""
    for step in steps:
        name = step.trigger.name
        text = f"{name} [{step.guards}]" if step.guards else name.value
        yield Message(SENDERS[name], Participant.MACHINE, text, Stroke.TRIGGER)
        if step.target is not step.source:
            yield Entered(step.target)
        for issued in step.commands:
            receiver, description = _described(issued)
            yield Message(Participant.MACHINE, receiver, description, Stroke.COMMAND)
        for verb, tasks in (("stop", step.stopped), ("start", step.started)):
            if tasks:
                yield Message(Participant.DRIVER, Participant.COROUTINES, f"{verb} {', '.join(tasks)}", Stroke.TASKS)


def _described(issued: command.Command) -> tuple[Participant, str]:
    match issued:
        case command.OpenSocket(url=url, generation=generation):
            return Participant.DISCORD, f"dial the {'resume' if url else 'main'} host (generation {generation})"
        case command.SendResume():
            return Participant.DISCORD, "RESUME"
        case command.SendIdentify():
            return Participant.DISCORD, "IDENTIFY"
        case command.CloseSocket(keeps_session, seconds):
            code = RESUMABLE_CLOSE if keeps_session else GOODBYE_CLOSE
            return Participant.DISCORD, f"close with {code} within {seconds:g} s"
        case command.AbortSocket():
            return Participant.DISCORD, "drop the socket"
        case command.RequestSlot():
            return Participant.GATE, "request a slot"
        case command.ReleaseSlot():
            return Participant.GATE, "release the slot"
        case command.SaveSession():
            return Participant.STORE, "save the session"
        case command.DropSession():
            return Participant.STORE, "drop the session"
        case command.ScheduleRestart(windows):
            low, high = max(w.low for w in windows), max(w.high for w in windows)
            return Participant.DRIVER, f"restart in {low:g} to {high:g} s"
        case command.WakeRestart():
            return Participant.DRIVER, "restart as soon as it is allowed"
        case command.SavePause():
            return Participant.STORE, "save the pause"
        case command.DropPause():
            return Participant.STORE, "drop the pause"
        case command.ArmDeadline(deadline):
            return _timekeeper(deadline), f"expect {deadline.awaited} within {deadline.seconds:g} s"
        case command.Diagnose():
            return Participant.DRIVER, "diagnose"
        case command.OpenOutbox():
            return Participant.DRIVER, "let commands through"
        case command.ShutOutbox():
            return Participant.DRIVER, "let commands wait"
        case command.SaveProgress():
            return Participant.STORE, "save what is delivered"
        case command.End(ended):
            return Participant.OPERATOR, f"ended {ended.kind.value}"
        case command.SlowDown(seconds):
            return Participant.DRIVER, f"send at half the rate for {seconds:g} s"
        case command.Ignored() | command.Rejected() | command.ReportBreach():
            return Participant.DRIVER, f"{issued.trigger} has no effect in {issued.state}"


def _timekeeper(deadline: Deadline) -> Participant:
    return Participant.COROUTINES if deadline.keeper is Keeper.DOCTOR else Participant.DRIVER
