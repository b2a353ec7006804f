"""Sessions of servers with unusual sequences and session ids, across restarts of the control plane."""

from __future__ import annotations

from pathlib import Path

from discorder.statemachine import State
from discorder.wire import Op, session_label
from tests.harness import Line, MemoryStage, StartMemoryStage


def ready(session_id: str, seq: int) -> bytes:
    """Return a READY of a server that may start at any sequence."""
    return b'{"op":0,"t":"READY","s":%d,"d":{"session_id":"%b"}}' % (seq, session_id.encode())


def event(seq: int) -> bytes:
    """Return an event."""
    return b'{"op":0,"t":"A","s":%d,"d":{}}' % seq


async def dialled(stage: MemoryStage, known: int) -> Line:
    """Return the newest connection, beyond the ``known`` ones, after Hello."""
    line = await stage.line(known + 1)
    line.hello()
    await stage.until(lambda: line.ops(Op.IDENTIFY) or line.ops(Op.RESUME))
    return line


async def test_a_session_that_begins_with_sequence_zero_loses_nothing_at_a_restart(
    start_memory_stage: StartMemoryStage, tmp_path: Path
) -> None:
    """0 is a sequence like any other: RESUME starts from it, and event 1 arrives."""
    store = f"session.store={tmp_path / 'sessions.db'}"
    stage = start_memory_stage(store)
    line = await dialled(stage, 0)
    line.feed(ready("s1", 0))
    await stage.ready()
    await stage.spend(3.0)
    await stage.stop()

    stage = start_memory_stage(store)
    line = await dialled(stage, 1)
    assert line.ops(Op.RESUME)[0]["seq"] == 0
    line.feed(event(1), b'{"op":0,"t":"RESUMED","s":2,"d":{}}')
    await stage.ready()
    assert [event.seq for event in stage.recorder.events] == [1, 2]
    assert stage.recorder.events[0].session == session_label("s1")


async def test_the_identify_behind_a_refused_resume_comes_within_two_seconds(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Discord requires 1 to 5 s."""
    stage = start_memory_stage()
    line = await stage.identified()
    await stage.spend(10.0)  # the bucket of the first IDENTIFY is free again
    line.lose()
    second = await stage.resuming(2)
    second.feed(b'{"op":9,"d":false}')
    await stage.in_state(State.RESTARTING)
    began = stage.clock.monotonic()
    await dialled(stage, 2)
    assert 0.9 <= stage.clock.monotonic() - began <= 2.2
