"""A transcript of one shard: its triggers, the commands that they give, and the state afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from discorder.statemachine import Facts, Session, ShardMachine, State, Task
from discorder.statemachine.commands import ArmDeadline, CloseSocket, Command, OpenOutbox, SaveProgress, ShutOutbox
from discorder.statemachine.table import Name
from discorder.statemachine.triggers import (
    Breach,
    Closed,
    Congested,
    ConnectFailed,
    Diagnosed,
    Hello,
    IdentifySlot,
    InvalidResumable,
    InvalidSession,
    Pause,
    Ready,
    Reconnect,
    Restart,
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
    Unpause,
    Zombie,
)

SAVED = Session("saved", "wss://resume.example")
OPENED = Session("opened", "wss://other.example")
ERROR = OSError("it broke")
USUAL = Facts()
STANDING = (CloseSocket, OpenOutbox, ShutOutbox, SaveProgress)
UNTIL = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Playbook:
    """Plays triggers into one `ShardMachine`: ``on(trigger).asks(commands).then(state)``.

    ``asks`` leaves out deadlines, and the commands given whenever a state is entered or left: every transcript would be full of
    them. ``deadlines`` and ``standing`` hold those of the last trigger.
    """

    def __init__(self, machine: ShardMachine) -> None:
        self.machine = machine
        self.asked: list[Command] = []
        self.deadlines: list[ArmDeadline] = []
        self.standing: list[Command] = []

    def on(self, *triggers: Trigger, facts: Facts = USUAL) -> Playbook:
        """Apply the triggers one after the other. Keep the commands of the last one."""
        for trigger in triggers:
            commands = self.machine.handle(trigger, facts)
            self.standing = [command for command in commands if isinstance(command, STANDING)]
            self.asked = [command for command in commands if not isinstance(command, (ArmDeadline, *STANDING))]
            self.deadlines = [command for command in commands if isinstance(command, ArmDeadline)]
        return self

    def asks(self, *commands: Command) -> Playbook:
        """Check that the last trigger gave exactly these commands, in this order."""
        assert self.asked == list(commands)
        return self

    def then(self, state: State) -> Playbook:
        """Check that the shard is in ``state``."""
        assert self.machine.state is state
        return self

    def resumable(self, *, yes: bool) -> Playbook:
        """Return whether the shard holds a session, so that the next Hello is answered with RESUME."""
        assert (self.machine.session is not None) is yes
        return self

    def timeout(self) -> Playbook:
        """Return the timeout of the current visit."""
        return self.on(Timeout(self.machine.visit, ERROR))

    def trigger(self, name: Name) -> Trigger:
        """Return an ordinary trigger of that name."""
        samples: tuple[Trigger, ...] = (
            *(Start(), Stop(), Restart(), Pause(), Unpause()),
            *(Hello(), ConnectFailed(ERROR), Timeout(self.machine.visit, ERROR), Closed(4000, ERROR)),
            *(
                TaskFailed(Task.PROCESSOR, ERROR),
                Breach(ERROR),
                Reconnect(),
                InvalidSession(ERROR),
                InvalidResumable(ERROR),
            ),
            *(IdentifySlot(), SlotRefused(UNTIL, ERROR), SlotDeferred(UNTIL, ERROR), Ready(OPENED)),
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
    """Begin a transcript. The keywords are those of `ShardMachine`."""

    def begin(
        *, fail_on_error: bool = False, max_attempts: int = 0, session: Session | None = None, paused: bool = False
    ) -> Playbook:
        machine = ShardMachine(fail_on_error=fail_on_error, max_attempts=max_attempts, session=session, paused=paused)
        return Playbook(machine)

    return begin
