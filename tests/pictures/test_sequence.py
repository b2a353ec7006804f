"""The sequence diagrams show runs of the machine: every step, every command, and the tasks of `RUNS`."""

from __future__ import annotations

import pytest

from discorder.pictures import PictureFormat, Subject
from discorder.pictures.participants import SENDERS, Entered, Message, Participant, Stroke, messages
from discorder.pictures.render import render
from discorder.pictures.scenarios import SCENARIOS, run
from discorder.statemachine import RUNS, State
from discorder.statemachine import commands as command
from discorder.statemachine.table import Name

SCENARIO_NAMES = {subject: subject.scenario for subject in Subject if subject.scenario is not None}


def test_every_trigger_has_a_sender() -> None:
    """Otherwise a run with this trigger could not be drawn."""
    missing = set(Name) - set(SENDERS)
    assert missing == set(), "add these to SENDERS in discorder/pictures/participants.py"


def test_every_scenario_has_a_picture() -> None:
    """And every picture has a scenario."""
    assert set(SCENARIO_NAMES.values()) == set(SCENARIOS)


@pytest.mark.parametrize(
    ("scenario", "states"),
    [
        ("start", [State.CONNECTING, State.IDENTIFYING, State.READY]),
        ("resume", [State.UNHEALTHY, State.RESTARTING, State.CONNECTING, State.RESUMING, State.READY]),
        (
            "zombie",
            [
                *(State.UNHEALTHY, State.RESTARTING, State.CONNECTING),
                *(State.UNHEALTHY, State.RESTARTING, State.CONNECTING, State.RESUMING, State.READY),
            ],
        ),
        ("op-9", [State.UNHEALTHY, State.RESTARTING, State.CONNECTING, State.IDENTIFYING, State.READY]),
        ("shutdown", [State.STOPPING, State.EXITED]),
    ],
)
def test_a_scenario_goes_where_its_title_says(scenario: str, states: list[State]) -> None:
    """A changed table that leads to other states fails here."""
    assert [step.target for step in run(SCENARIOS[scenario]) if step.target is not step.source] == states


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_of_a_run_is_left_out_and_nothing_is_added(scenario: str) -> None:
    """One arrow per trigger, per command, and per group of tasks that starts or stops; one box per entered state."""
    steps = run(SCENARIOS[scenario])
    shown = list(messages(steps))
    arrows = [one for one in shown if isinstance(one, Message)]
    by_stroke = {stroke: [one for one in arrows if one.stroke is stroke] for stroke in Stroke}
    assert [one.text.split(" ")[0] for one in by_stroke[Stroke.TRIGGER]] == [step.trigger.name.value for step in steps]
    assert len(by_stroke[Stroke.COMMAND]) == sum(len(step.commands) for step in steps)
    changes = [RUNS[step.target] ^ RUNS[step.source] for step in steps]
    named = [one.text.replace(",", "").split(" ")[1:] for one in by_stroke[Stroke.TASKS]]
    assert sorted(task for tasks in named for task in tasks) == sorted(str(task) for tasks in changes for task in tasks)
    assert [one.state for one in shown if isinstance(one, Entered)] == [
        step.target for step in steps if step.target is not step.source
    ]


def test_the_arrows_connect_the_right_participants() -> None:
    """The machine requests a slot from the gate, which replies; Discord gets IDENTIFY."""
    arrows = [one for one in messages(run(SCENARIOS["start"])) if isinstance(one, Message)]
    drawn = {one.text: (one.sender, one.receiver) for one in arrows}
    assert drawn["request a slot"] == (Participant.MACHINE, Participant.GATE)
    assert drawn["identify_slot"] == (Participant.GATE, Participant.MACHINE)
    assert drawn["IDENTIFY"] == (Participant.MACHINE, Participant.DISCORD)
    assert drawn["hello [not resumable]"] == (Participant.DISCORD, Participant.MACHINE)
    assert drawn["save the session"] == (Participant.MACHINE, Participant.STORE)


def test_the_zombie_scenario_changes_hosts_and_keeps_the_session() -> None:
    """The resume host first, then the main host, and no IDENTIFY (fault case 1)."""
    given = [wanted for step in run(SCENARIOS["zombie"]) for wanted in step.commands]
    dials = [wanted for wanted in given if isinstance(wanted, command.OpenSocket)]
    assert [bool(dial.url) for dial in dials] == [True, False]
    assert sum(isinstance(wanted, command.SendResume) for wanted in given) == 1
    assert not any(isinstance(wanted, command.SendIdentify | command.DropSession) for wanted in given)


def test_the_guards_that_decided_are_on_the_arrow() -> None:
    """In the same words as in the state diagram."""
    guards = {step.trigger.name: step.guards for step in run(SCENARIOS["resume"])}
    assert guards[Name.HELLO] == "resumable"
    assert guards[Name.DIAGNOSED] == "1. planned"
    assert guards[Name.RESTART_DUE] == "1. socket closed, may open, not paused"


@pytest.mark.parametrize("subject", SCENARIO_NAMES)
def test_the_picture_and_the_mermaid_text_show_the_same_messages(subject: Subject) -> None:
    """In the same order."""
    drawn = render(subject, PictureFormat.DOT).decode()
    text = render(subject, PictureFormat.MERMAID).decode()
    assert text.startswith("sequenceDiagram\n")
    arrows = [line.split(": ", 1)[1] for line in text.splitlines() if ">>" in line or "-)" in line]
    scenario = subject.scenario
    assert scenario is not None
    assert arrows == [one.text for one in messages(run(SCENARIOS[scenario])) if isinstance(one, Message)]
    assert drawn.count("penwidth=1.4") == len(arrows)
