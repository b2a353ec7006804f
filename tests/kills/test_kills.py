"""`kill -9` at twenty moments under 200 events/s: nothing missing, order kept, no IDENTIFY after the first."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.endurance.process import ROOT
from tests.kills.points import POINTS
from tests.kills.story import OUTSIDE, Moment, Story, in_turn, tell
from tests.kills.table import table

MS = 0.001
TWENTY = (
    # within 50 ms of READY, of RESUME, of an event on its way, of a checkpoint
    (
        Moment("READY stored"),
        Moment("RESUME sent"),
        Moment("in the file, not yet accepted", 30),
        Moment("checkpoint: queued", 1, 10 * MS),
    ),
    (
        Moment("READY stored", 1, 20 * MS),
        Moment("RESUMED"),
        Moment("half a batch in the file", 20),
        Moment("store: after the write", 1, 30 * MS),
    ),
    (
        Moment("READY stored", 1, 45 * MS),
        Moment("RESUMED", 1, 25 * MS),
        Moment("store: before COMMIT"),
        Moment("stop: drained"),
    ),
    (
        Moment("READY stored", 1, 10 * MS),
        Moment("RESUME sent", 1, 30 * MS),
        Moment("inflated", 60),
        Moment("store: after the write"),
    ),
    (
        Moment("READY stored", 1, 30 * MS),
        Moment("start: session adopted"),
        Moment("rotation: between two renames", 2),
        Moment("stop: before the last flush"),
    ),
)


@pytest.mark.system
async def test_twenty_kills_cost_no_event_and_no_identify() -> None:
    """Five sessions side by side, each killed four times and then stopped gracefully."""
    assert len({moment for moments in TWENTY for moment in moments}) == 20
    stories = await asyncio.gather(
        *(
            tell(len(moments), in_turn(moments), compress="zlib-stream", zlib_split=2, rotate_bytes=100_000)
            for moments in TWENTY
        )
    )
    assert not any(story.faults for story in stories), report(stories)
    kills = [kill for story in stories for kill in story.kills]
    assert sum(kill.missing for kill in kills) == 0, report(stories)
    assert sum(kill.identifies for kill in kills) == 0, report(stories)
    assert sum(kill.duplicates for kill in kills) > 0, "nothing was replayed: the kills came at no bad moment"


@pytest.mark.system
async def test_a_kill_while_the_disk_is_slow_costs_nothing_either() -> None:
    """The queue is full, the connection is closed for congestion again and again, and its replay begins where the file is."""
    moments = [Moment("READY stored"), Moment("in the file, not yet accepted", 12)]
    story = await tell(len(moments), in_turn(moments), compress="zlib-stream", slow_disk=True)
    assert not story.faults, report([story])


@pytest.mark.system
async def test_kills_at_the_steps_of_the_journal_cost_nothing_either() -> None:
    """Every story compares the journal with what was sent; here the processes die inside it."""
    moments = [
        Moment("journal: half a batch in the file", 30),
        Moment("journal: segment begun"),
        Moment("journal: snapshot not yet in its place"),
        Moment("journal: oldest segment removed"),
        Moment("journal: last snapshot"),
    ]
    story = await tell(len(moments), in_turn(moments), compress="zlib-stream")
    assert not story.faults, report([story])
    assert sum(kill.identifies for kill in story.kills) == 0, report([story])


@pytest.mark.system
async def test_kills_of_a_facade_in_a_process_of_its_own_cost_nothing_either() -> None:
    """It and the control plane are killed at their own moments; its bots get everything, or are told by op 9."""
    moments = [Moment("READY stored"), Moment("journal: half a batch in the file", 30), Moment(OUTSIDE, delay=2.0)]
    story = await tell(len(moments), in_turn(moments), compress="zlib-stream", apart=True)
    assert not story.faults, report([story])
    assert story.facade_kills > 0


def report(stories: list[Story]) -> str:
    """Return the text of a failure."""
    faults = [f"{fault}\n{story.log}" for story in stories for fault in story.faults]
    return "\n".join([table(stories), *faults])


@pytest.mark.system
def test_every_point_leads_somewhere() -> None:
    """Arming wraps the product's own functions, in a process of its own; a name that is gone is an AttributeError."""
    script = "from tests.kills.points import POINTS\nfor point in POINTS.values(): point.arm(lambda: None)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert {moment.point for moments in TWENTY for moment in moments} <= set(POINTS)
