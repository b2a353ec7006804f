"""``prev`` names the previous event of the same type, so that a reader finds every gap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from discorder.clock import FakeClock
from discorder.simulator import Simulator
from discorder.wire import Event

if TYPE_CHECKING:
    from tests.harness import StartMemoryStage, StartStage


def shown(events: list[Event]) -> list[tuple[str, int | None, int | None]]:
    return [(event.type, event.seq, event.prev) for event in events]


async def test_prev_is_the_seq_of_the_last_event_of_the_type_and_0_for_the_first(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Discord's own numbers have gaps; those are not reported as losses."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(*(line.dispatched(kind, seq=seq) for kind, seq in [("A", 2), ("B", 5), ("A", 9), ("A", 10), ("B", 11)]))
    await stage.until(lambda: len(stage.recorder.events) == 6)
    assert shown(stage.recorder.events) == [
        ("READY", 1, 0),
        ("A", 2, 0),
        ("B", 5, 0),
        ("A", 9, 2),
        ("A", 10, 9),
        ("B", 11, 5),
    ]


async def test_a_resume_in_the_same_process_goes_on_and_a_new_session_begins_anew(
    start_memory_stage: StartMemoryStage,
) -> None:
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(line.dispatched("A"))
    line.lose()
    line = await stage.resuming(2)
    line.feed(line.dispatched("A"), line.dispatched("RESUMED"), line.dispatched("B"))
    await stage.ready(generation=2)
    line.feed(b'{"op":9,"d":false}')
    line = await stage.line(3)
    line.hello()
    await stage.until(lambda: line.sent, within=60.0)
    line.ready("another")
    line.feed(line.dispatched("A"))
    await stage.ready(generation=3)
    await stage.until(lambda: len(stage.recorder.events) == 7)
    assert shown(stage.recorder.events) == [
        ("READY", 1, 0),
        ("A", 2, 0),
        ("A", 3, 2),
        ("RESUMED", 4, 0),
        ("B", 5, 0),
        ("READY", 1, 0),
        ("A", 2, 0),
    ]


async def test_another_process_knows_what_precedes_only_from_the_second_event_of_a_type_on(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """It is null for the first event of each type in that process, which is not the first of the session."""
    store, clock = f"session.store={tmp_path / 'sessions.sqlite3'}", FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await sim.dispatch("A", {})
    await first.until(lambda: first.recorder.events[-1].type == "A")
    await first.stop()
    second = start_stage(sim, store, clock=clock)
    await second.ready()
    for kind in ("A", "B", "A", "B"):
        await sim.dispatch(kind, {})
    await second.until(lambda: len(second.recorder.events) == 5)
    start = second.recorder.events[0].seq or 0
    assert shown(second.recorder.events) == [
        ("RESUMED", start, None),
        ("A", start + 1, None),
        ("B", start + 2, None),
        ("A", start + 3, start + 1),
        ("B", start + 4, start + 2),
    ]
