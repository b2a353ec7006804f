"""A transcript of one shard: what happened, what it asks for, where it is then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from discorder.statemachine import Facts, Session, ShardMachine, State, Task
from discorder.statemachine.commands import ArmDeadline, Command
from discorder.statemachine.table import Name
from discorder.statemachine.triggers import (
    Closed,
    Congested,
    ConnectFailed,
    Diagnosed,
    Hello,
    IdentifySlot,
    InvalidResumable,
    InvalidSession,
    Ready,
    Reconnect,
    RestartDue,
    Resumed,
    SlotDeferred,
    SlotRefused,
    Stable,
    Start,
    Stop,
    Stopped,
    TaskFailed,
    Timeout,
    Trigger,
    Zombie,
)

SAVED = Session("saved", "wss://resume.example")
OPENED = Session("opened", "wss://other.example")
ERROR = OSError("it broke")
USUAL = Facts()
UNTIL = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Playbook:
    """Plays triggers into one `ShardMachine`: ``on(trigger).asks(commands).then(state)``.

    Deadlines are left out of ``asks``, or each transcript would be full of them; ``deadlines`` has those of the last trigger.
    """

    def __init__(self, machine: ShardMachine) -> None:
        self.machine = machine
        self.asked: list[Command] = []
        self.deadlines: list[ArmDeadline] = []

    def on(self, *triggers: Trigger, facts: Facts = USUAL) -> Playbook:
        """These happen, one after the other; the commands of the last one are kept."""
        for trigger in triggers:
            commands = self.machine.handle(trigger, facts)
            self.asked = [command for command in commands if not isinstance(command, ArmDeadline)]
            self.deadlines = [command for command in commands if isinstance(command, ArmDeadline)]
        return self

    def asks(self, *commands: Command) -> Playbook:
        """The last trigger gave exactly these commands, in this order."""
        assert self.asked == list(commands)
        return self

    def then(self, state: State) -> Playbook:
        """The shard is in ``state`` now."""
        assert self.machine.state is state
        return self

    def timeout(self) -> Playbook:
        """The deadline of the present visit passes."""
        return self.on(Timeout(self.machine.visit, ERROR))

    def trigger(self, name: Name) -> Trigger:
        """An ordinary trigger of that name."""
        samples: tuple[Trigger, ...] = (
            *(Start(), Stop(), Hello(), ConnectFailed(ERROR), Timeout(self.machine.visit, ERROR), Closed(4000, ERROR)),
            *(TaskFailed(Task.PROCESSOR, ERROR), Reconnect(), InvalidSession(ERROR), InvalidResumable(ERROR)),
            *(IdentifySlot("ticket"), SlotRefused(UNTIL, ERROR), SlotDeferred(UNTIL, ERROR), Ready(OPENED)),
            *(Resumed(), Zombie(ERROR), Congested("audit"), Stable(), Diagnosed(), RestartDue(), Stopped()),
        )
        found = [sample for sample in samples if sample.name is name]
        assert found, (
            f"no sample of the trigger {name}: add one here, in Playbook.trigger of tests/statemachine/conftest.py"
        )
        return found[0]


PlaybookMaker = Callable[..., Playbook]


@pytest.fixture
def play() -> PlaybookMaker:
    """Begin a transcript; the keywords are those of `ShardMachine`."""

    def begin(*, fail_on_error: bool = False, max_attempts: int = 0, session: Session | None = None) -> Playbook:
        return Playbook(ShardMachine(fail_on_error=fail_on_error, max_attempts=max_attempts, session=session))

    return begin
