"""The sequence diagrams show runs of the machine: every step, every command, and the tasks that `RUNS` asks for."""

from __future__ import annotations

import pytest

from discorder.pictures import PictureFormat, Subject, render
from discorder.pictures.cast import SENDERS, Entered, Message, Part, Stroke, messages
from discorder.pictures.stories import STORIES, run
from discorder.statemachine import RUNS, State
from discorder.statemachine import commands as command
from discorder.statemachine.table import Name

TOLD = {subject: subject.story for subject in Subject if subject.story is not None}


def test_every_trigger_is_reported_by_somebody() -> None:
    """Or a run in which it happens could not be drawn."""
    missing = set(Name) - set(SENDERS)
    assert missing == set(), "who reports these? Add them to SENDERS in discorder/pictures/cast.py"


def test_every_story_has_a_picture() -> None:
    """And the pictures are of stories that exist."""
    assert set(TOLD.values()) == set(STORIES)


@pytest.mark.parametrize(
    ("story", "states"),
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
def test_a_story_goes_where_its_title_says(story: str, states: list[State]) -> None:
    """Told by the machine: a table that leads elsewhere breaks the story."""
    assert [step.target for step in run(STORIES[story]) if step.target is not step.source] == states


@pytest.mark.parametrize("story", STORIES)
def test_nothing_of_a_run_is_left_out_and_nothing_is_added(story: str) -> None:
    """One arrow per trigger, one per command, one per group of tasks that starts or stops; a box per state that is entered."""
    steps = run(STORIES[story])
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


def test_the_arrows_begin_and_end_at_those_who_act() -> None:
    """The gate is asked by the machine and answers it; Discord gets IDENTIFY."""
    arrows = [one for one in messages(run(STORIES["start"])) if isinstance(one, Message)]
    told = {one.text: (one.sender, one.receiver) for one in arrows}
    assert told["request a slot"] == (Part.MACHINE, Part.GATE)
    assert told["identify_slot"] == (Part.GATE, Part.MACHINE)
    assert told["IDENTIFY"] == (Part.MACHINE, Part.DISCORD)
    assert told["hello [not resumable]"] == (Part.DISCORD, Part.MACHINE)
    assert told["save the session"] == (Part.MACHINE, Part.STORE)


def test_the_zombie_story_changes_hosts_and_keeps_the_session() -> None:
    """Resume host first, then the main one, no IDENTIFY: what fault case 1 asks for."""
    given = [wanted for step in run(STORIES["zombie"]) for wanted in step.commands]
    dials = [wanted for wanted in given if isinstance(wanted, command.OpenSocket)]
    assert [bool(dial.url) for dial in dials] == [True, False]
    assert all(dial.resume for dial in dials)
    assert not any(isinstance(wanted, command.SendIdentify | command.DropSession) for wanted in given)


def test_the_guards_that_decided_are_on_the_arrow() -> None:
    """In the words of the state diagram."""
    guards = {step.trigger.name: step.guards for step in run(STORIES["resume"])}
    assert guards[Name.HELLO] == "resumable"
    assert guards[Name.DIAGNOSED] == "1. planned"
    assert guards[Name.RESTART_DUE] == "socket closed, may open"


@pytest.mark.parametrize("subject", TOLD)
def test_the_picture_and_the_mermaid_text_tell_the_same(subject: Subject) -> None:
    """The same messages in the same order."""
    drawn = render(subject, PictureFormat.DOT).decode()
    text = render(subject, PictureFormat.MERMAID).decode()
    assert text.startswith("sequenceDiagram\n")
    arrows = [line.split(": ", 1)[1] for line in text.splitlines() if ">>" in line or "-)" in line]
    story = subject.story
    assert story is not None
    assert arrows == [one.text for one in messages(run(STORIES[story])) if isinstance(one, Message)]
    assert drawn.count("penwidth=1.4") == len(arrows)
