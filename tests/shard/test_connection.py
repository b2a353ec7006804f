"""One connection at a time, in memory and on a clock that the test moves: heartbeats, tasks, causes, late reports."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from discorder import get_status
from discorder.clock import FakeClock, settle_loop
from discorder.errors import Closed, FatalCloseError, TaskDied, ZombieConnection
from discorder.outbound.outbox import Outbox
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.sessions.store import Ordinals
from discorder.shard.connection import Connection
from discorder.shard.dependencies import DialTarget
from discorder.shard.receiver import Receiver
from discorder.statemachine import State, Task
from discorder.statemachine.table import Name
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Op
from tests.harness import Line, Recorder

if TYPE_CHECKING:
    from tests.harness import Exchange, MemoryStage, StartMemoryStage

INTERVAL = 10.0


async def beats_until(stage: MemoryStage, line: Line, seconds: float) -> list[float]:
    """Return when beats were sent in the next ``seconds``. Each is acknowledged at once."""
    times: list[float] = []
    known = len(line.ops(Op.HEARTBEAT))
    end = stage.fake.monotonic() + seconds
    while stage.fake.monotonic() < end:
        await stage.fake.advance(0.25)
        if len(line.ops(Op.HEARTBEAT)) > known:
            known = len(line.ops(Op.HEARTBEAT))
            times.append(stage.fake.monotonic())
            line.ack()
    return times


# ---------------------------------------------------------------- heartbeats


async def test_jitter_comes_once_and_then_the_interval_is_kept(start_memory_stage: StartMemoryStage) -> None:
    """First beat after interval x jitter, then one every interval: Discorder.jl drew the jitter anew for each beat."""
    stage = start_memory_stage()
    line = await stage.identified(INTERVAL * 1000)
    times = await beats_until(stage, line, 62.0)
    assert len(times) == 6
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([INTERVAL] * 5, abs=0.3)
    assert times[0] <= 0.5 * INTERVAL + 1.0


async def test_op_1_is_answered_at_once_and_the_schedule_goes_on(start_memory_stage: StartMemoryStage) -> None:
    """docs/protocol.md#heartbeats; Discorder.jl ignored op 1."""
    stage = start_memory_stage()
    line = await stage.identified(INTERVAL * 1000)
    before = await beats_until(stage, line, 16.0)
    count = len(line.ops(Op.HEARTBEAT))
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await stage.fake.advance(0.0)
    assert len(line.ops(Op.HEARTBEAT)) == count + 1
    line.ack()
    after = await beats_until(stage, line, 20.0)
    assert [at - before[-1] for at in after] == pytest.approx([INTERVAL, 2 * INTERVAL], abs=0.3)


async def test_op_1_before_ready_is_answered_too(start_memory_stage: StartMemoryStage) -> None:
    """Discord may ask at any time after Hello."""
    stage = start_memory_stage()
    line = await stage.line()
    line.hello()
    await stage.in_state(State.IDENTIFYING)
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await stage.fake.advance(0.0)
    assert line.ops(Op.HEARTBEAT) == [None]


async def test_a_beat_carries_the_last_sequence(start_memory_stage: StartMemoryStage) -> None:
    """The beat carries the sequence received last, as Discord requires."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(line.dispatched("MESSAGE_CREATE"), line.dispatched("MESSAGE_CREATE"))
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await stage.fake.advance(0.0)
    assert line.ops(Op.HEARTBEAT)[-1] == 3


async def test_other_frames_do_not_hide_a_missing_ack_for_ever(start_memory_stage: StartMemoryStage) -> None:
    """A beat that is unanswered for 1.5 intervals means a zombie, whatever else arrives; Discorder.jl compared no ACKs."""
    stage = start_memory_stage()
    line = await stage.identified(INTERVAL * 1000)
    while not line.ops(Op.HEARTBEAT):
        await stage.fake.advance(0.25)
    sent_at = stage.fake.monotonic()
    while stage.tracker.state is State.READY:
        line.feed(line.dispatched("MESSAGE_CREATE"))
        await stage.fake.advance(0.25)
    assert stage.fake.monotonic() - sent_at == pytest.approx(1.5 * INTERVAL, abs=0.5)
    assert stage.tracker.transitions[-1].trigger in {Name.ZOMBIE, Name.DIAGNOSED}


async def test_a_write_that_hangs_is_a_zombie(start_memory_stage: StartMemoryStage) -> None:
    """A half-open socket whose buffer is full: the age of the beat counts from the moment it is written."""
    stage = start_memory_stage()
    line = await stage.identified(INTERVAL * 1000)
    line.writes.clear()
    await stage.until(lambda: stage.tracker.state is not State.READY, within=1.1 * INTERVAL)
    await stage.until(lambda: line.close_codes == [4000])


async def test_the_cause_of_a_beat_that_meets_a_closed_socket_is_what_the_processor_reads(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Close code 4004 is still readable on a socket that refuses writes. The cause is this fatal close, not the failed beat."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.write_error = Closed(None, "network")
    line.feed({"op": Op.HEARTBEAT, "d": None})
    await stage.fake.advance(1.0)
    assert stage.tracker.state is State.READY
    line.lose(4004)
    assert isinstance(await stage.end(), FatalCloseError)


# ---------------------------------------------------------------- tasks


async def test_each_generation_has_a_new_master_and_the_tracker_stays(start_memory_stage: StartMemoryStage) -> None:
    """`tracker.master_task` changes, the tracker is one and the same; an old master has finished."""
    stage = start_memory_stage()
    line = await stage.identified()
    tracker, first = stage.tracker, stage.tracker.master_task
    assert get_status(tracker) == dict.fromkeys(("heartbeat", "processor", "doctor", "master"), "running")
    line.lose()
    second_line = await stage.resuming(2)
    second_line.feed(second_line.dispatched("RESUMED"))
    await stage.ready(generation=2)
    assert stage.ref.value is tracker
    assert tracker.master_task is not first
    assert first is not None
    assert first.done()
    assert first.exception() is None


async def test_get_status_tells_absent_running_done_and_failed_apart(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """Before Hello there is no heartbeat; after a failure the one that failed says so."""
    stage = start_memory_stage()
    line = await stage.line()
    await stage.in_state(State.CONNECTING)
    running = {"processor": "running", "doctor": "running", "master": "running"}
    assert get_status(stage.tracker) == {"heartbeat": "absent", **running}
    line.hello()
    await stage.in_state(State.IDENTIFYING)
    stage.tracker.throw_to("heartbeat", RuntimeError("simulated failure"))
    await stage.until(lambda: stage.tracker.state is State.RESTARTING)
    done = {"processor": "done", "doctor": "done", "master": "done"}
    assert get_status(stage.tracker) == {"heartbeat": "failed", **done}


async def test_before_the_first_dial_no_task_runs(start_memory_stage: StartMemoryStage, exchange: Exchange) -> None:
    """Disconnected: all four absent."""
    exchange.answers.clear()
    stage = start_memory_stage()
    await stage.in_state(State.DISCONNECTED)
    assert set(get_status(stage.tracker).values()) == {"absent"}
    exchange.answers.set()


async def test_a_task_that_somebody_else_cancels_has_failed(start_memory_stage: StartMemoryStage) -> None:
    """The cause names the task; the session is resumed."""
    stage = start_memory_stage()
    line = await stage.identified()
    processor = stage.tracker.processor_task
    assert processor is not None
    processor.cancel()
    await stage.until(lambda: stage.tracker.state is State.RESTARTING)
    assert "the processor was cancelled by somebody other" in (stage.tracker.shards[0].cause or "")
    assert line.close_codes == [4000]
    assert (await stage.resuming(2)).ops(Op.RESUME) == [
        {"token": "MTIz.in-memory.not-a-secret", "session_id": "s1", "seq": 1}
    ]


async def test_under_fail_on_error_a_cancelled_task_ends_serve(start_memory_stage: StartMemoryStage) -> None:
    """With `TaskDied`, which is no CancelledError: the caller was not cancelled."""
    stage = start_memory_stage("gateway.fail_on_error=true")
    await stage.identified()
    doctor = stage.tracker.doctor_task
    assert doctor is not None
    doctor.cancel()
    assert isinstance(await stage.end(), TaskDied)


async def test_a_zombie_under_fail_on_error_is_raised_as_such(start_memory_stage: StartMemoryStage) -> None:
    """The caller gets the failure itself."""
    stage = start_memory_stage("gateway.fail_on_error=true")
    await stage.identified(INTERVAL * 1000)
    assert isinstance(await stage.end(), ZombieConnection)


# ---------------------------------------------------------------- causes and late reports


async def test_the_first_of_two_causes_decides(start_memory_stage: StartMemoryStage) -> None:
    """Op 7 and then a close with 4004 in the same turn: planned, so it restarts."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed({"op": Op.RECONNECT})
    line.lose(4004)
    await stage.until(lambda: stage.tracker.state is State.RESTARTING)
    assert (stage.tracker.shards[0].cause or "").startswith("op 7")
    assert stage.tracker.stats.unexpected_count <= 1


async def test_the_first_of_two_causes_decides_the_other_way_round_too(start_memory_stage: StartMemoryStage) -> None:
    """A fatal close stays fatal, whatever fails after it."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose(4004)
    await stage.until(lambda: stage.tracker.processor_task is None or stage.tracker.processor_task.done())
    assert isinstance(await stage.end(), FatalCloseError)


# ---------------------------------------------------------------- a resume that is interrupted


@pytest.mark.parametrize("frame", [{"op": Op.RECONNECT}, {"op": Op.INVALID_SESSION, "d": True}, b"garbage"])
async def test_a_resume_that_is_interrupted_is_tried_again(
    start_memory_stage: StartMemoryStage, frame: dict[str, object] | bytes
) -> None:
    """Op 7, op 9 true and nonsense instead of RESUMED: the same session again, from the last event that came."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    second.feed(second.dispatched("MESSAGE_CREATE"), frame)
    third = await stage.resuming(3)
    assert [resume["seq"] for resume in (second.ops(Op.RESUME)[0], third.ops(Op.RESUME)[0])] == [1, 2]
    third.feed(third.dispatched("MESSAGE_CREATE"), third.dispatched("RESUMED"))
    await stage.ready(generation=3)
    assert [event.seq for event in stage.recorder.events] == [1, 2, 3, 4]
    assert line.ops(Op.IDENTIFY)
    assert not second.ops(Op.IDENTIFY)
    assert not third.ops(Op.IDENTIFY)


async def test_a_session_that_replays_is_not_refused_however_often_its_replay_is_cut(
    start_memory_stage: StartMemoryStage,
) -> None:
    """One event on each of nine connections over four minutes: the server accepts the session, but the connection is unstable."""
    stage = start_memory_stage()
    (await stage.identified()).lose()
    for number in range(2, 11):
        line = await stage.resuming(number)
        line.feed(line.dispatched("MESSAGE_CREATE"))
        await stage.fake.advance(29.0)
        assert stage.tracker.state is State.RESUMING
        line.lose()
    assert (await stage.resuming(11)).ops(Op.RESUME)[0]["seq"] == 10
    assert stage.fake.monotonic() > 180.0
    assert stage.tracker.stats.identify_count == 1


async def test_a_replay_may_contain_the_resumed_of_an_earlier_resume(start_memory_stage: StartMemoryStage) -> None:
    """A replayed RESUMED has a sequence of its own, like any other event, and does not end the connection."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    replayed = [
        second.dispatched(kind) for kind in ("MESSAGE_CREATE", "RESUMED", "MESSAGE_CREATE", "RESUMED", "RESUMED")
    ]
    second.feed(*replayed, second.dispatched("MESSAGE_CREATE"))
    await stage.until(lambda: [event.seq for event in stage.recorder.events] == [1, 2, 3, 4, 5, 6, 7])
    await stage.fake.advance(5.0)
    assert (stage.tracker.state, stage.tracker.generation) == (State.READY, 2)
    assert (stage.tracker.stats.resume_count, stage.tracker.stats.unexpected_count) == (1, 0)


async def test_a_replay_that_begins_with_what_resume_named_is_no_breach(start_memory_stage: StartMemoryStage) -> None:
    """Some servers resend the event of the sequence that RESUME names; it is not published again, neither then nor later."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(line.dispatched("TYPING_START"), line.dispatched("TYPING_START"))
    await stage.until(lambda: len(stage.recorder.events) == 3)
    line.lose()
    second = await stage.resuming(2)
    second.goes_on_after(2)
    second.feed(second.dispatched("TYPING_START"), second.dispatched("MESSAGE_CREATE"), second.dispatched("RESUMED"))
    await stage.ready(generation=2)
    second.feed(second.dispatched("TYPING_START", seq=3), second.dispatched("TYPING_START", seq=6))
    await stage.until(lambda: len(stage.recorder.events) == 6)
    assert [event.seq for event in stage.recorder.events] == [1, 2, 3, 4, 5, 6]
    assert stage.tracker.generation == 2


@pytest.mark.parametrize("missed", [0, 2])
async def test_a_resumed_without_a_sequence_of_its_own_ends_the_replay_too(
    start_memory_stage: StartMemoryStage, missed: int
) -> None:
    """Some servers give RESUMED the sequence of the event before it. It is not a breach, and RESUMED is not published."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    second.feed(
        *(second.dispatched("TYPING_START") for _ in range(missed)), second.dispatched("RESUMED", seq=1 + missed)
    )
    await stage.ready(generation=2)
    second.goes_on_after(1 + missed)
    second.feed(second.dispatched("MESSAGE_CREATE"))
    await stage.until(lambda: stage.recorder.events[-1].type == "MESSAGE_CREATE")
    assert [event.seq for event in stage.recorder.events] == list(range(1, missed + 3))
    assert stage.tracker.generation == 2


async def test_op_9_false_as_the_answer_to_a_resume_identifies_after_a_pause(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Wait at least a second, and Discord's spacing of IDENTIFYs. It is an answer, not a failure, even under fail_on_error."""
    stage = start_memory_stage("gateway.fail_on_error=true")
    line = await stage.identified()
    line.feed({"op": Op.RECONNECT})
    second = await stage.resuming(2)
    second.feed({"op": Op.INVALID_SESSION, "d": False})
    refused_at = stage.fake.monotonic()
    third = await stage.line(3)
    assert stage.fake.monotonic() - refused_at >= 1.0
    third.hello()
    await stage.until(lambda: third.ops(Op.IDENTIFY))
    assert stage.fake.monotonic() - refused_at >= 1.0
    third.ready("s2")
    await stage.ready(generation=3)
    assert not third.ops(Op.RESUME)
    assert stage.tracker.stats.identify_count == 2
    assert len({event.session for event in stage.recorder.events}) == 2


async def test_a_replay_that_makes_no_progress_is_given_up_after_30_seconds(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Each replayed event moves the deadline; the session is kept."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    for _ in range(3):
        await stage.fake.advance(12.0)
        second.ack()
        second.feed(second.dispatched("MESSAGE_CREATE"))
    await stage.fake.advance(1.0)
    assert stage.tracker.shards[0].state is State.RESUMING
    gave_up_after = stage.fake.monotonic()
    while stage.tracker.state is State.RESUMING:
        await stage.fake.advance(0.5)
        second.ack()
    assert 28.0 < stage.fake.monotonic() - gave_up_after < 31.0
    third = await stage.resuming(3)
    assert third.ops(Op.RESUME)[0]["seq"] == 4


# ---------------------------------------------------------------- ends


async def test_a_peer_that_does_not_answer_the_close_is_given_a_second(start_memory_stage: StartMemoryStage) -> None:
    """The doctor closes with 4000, waits a second and drops the socket. The verdict waits no longer than that."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.answers_close = False
    stage.tracker.throw_to("processor", RuntimeError("simulated failure"))
    await stage.until(lambda: stage.tracker.state is State.RESTARTING, within=1.2)
    assert line.close_codes == [4000]
    assert line.aborted


async def test_a_stop_while_an_identify_slot_is_awaited_sends_no_identify(start_memory_stage: StartMemoryStage) -> None:
    """The second IDENTIFY of a bucket waits for its spacing. On a stop, withdraw the request and close the socket with 4000."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose(4009)
    second = await stage.line(2)
    second.hello()
    await stage.in_state(State.IDENTIFYING)
    assert not second.ops(Op.IDENTIFY)
    began = stage.fake.monotonic()
    await stage.stop()
    assert stage.fake.monotonic() - began < 1.0
    assert second.close_codes == [4000]
    assert not second.ops(Op.IDENTIFY)
    assert stage.tracker.stats.identify_count == 1


async def test_a_dial_that_hangs_is_given_up_after_ten_seconds(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """DNS, TCP, TLS and upgrade together; then the next generation dials."""
    exchange.prepare().accepts.clear()
    stage = start_memory_stage()
    await stage.in_state(State.CONNECTING)
    began = stage.fake.monotonic()
    await stage.until(lambda: stage.tracker.state is not State.CONNECTING)
    assert stage.fake.monotonic() - began == pytest.approx(10.0, abs=0.2)
    assert "no connection within 10 s" in (stage.tracker.shards[0].cause or "")
    await stage.line(2)


@pytest.mark.parametrize("nonsense", [b"garbage", b'{"op":0,"t":"READY","s":1,"d":{}}', b'{"op":10,"d":{}}'])
async def test_a_resume_host_that_speaks_nonsense_before_hello_gives_way_to_the_main_host(
    start_memory_stage: StartMemoryStage, nonsense: bytes
) -> None:
    """The shard changes hosts as after a refusal or silence. The session is kept and resumed on the main host."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.line(2)
    second.feed(nonsense)
    third = await stage.resuming(3)
    assert ["resume.test" in second.url, "main.test" in third.url] == [True, True]
    third.feed(third.dispatched("RESUMED"))
    await stage.ready(generation=3)
    assert stage.tracker.stats.identify_count == 1


async def test_the_second_connection_goes_to_the_resume_host_and_asks_for_what_the_first_did(
    start_memory_stage: StartMemoryStage,
) -> None:
    """The second connection goes to the host from READY, with version, encoding and compression in the query."""
    stage = start_memory_stage("gateway.compress=none")
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    assert line.url == "ws://main.test/?v=10&encoding=json"
    assert second.url == "ws://resume.test/?v=10&encoding=json"


POISON = b'{"op":0,"t":"MESSAGE_CREATE","s":4,"d":{"content":}}'  # no valid JSON, for any parser


async def test_a_frame_that_can_never_be_read_is_passed_over_and_told(start_memory_stage: StartMemoryStage) -> None:
    """The first such frame costs a reconnect. The second time it is skipped: a gap of one event, and the replay goes on."""
    recorder = Recorder("witness")
    stage = start_memory_stage(publishers=[recorder])
    line = await stage.identified()
    line.feed(*(line.dispatched("TYPING_START") for _ in range(2)), POISON)
    second = await stage.resuming(2)
    second.feed(POISON, second.dispatched("TYPING_START", seq=5), second.dispatched("RESUMED"))
    await stage.ready(generation=2)
    (record,) = [record for record in recorder.records if record.type == "DISCORDER_GAP"]
    gap = msgspec.json.decode(record.data)
    assert (gap["from_seq"], gap["to_seq"], gap["kind"], gap["publisher"]) == (4, 4, "publisher", "witness")
    assert [event.seq for event in recorder.events] == [1, 2, 3, 5, 6]


async def _nowhere() -> DialTarget:
    return DialTarget("ws://nowhere.test")


def generation_on(line: Line) -> Connection:
    """Return a generation without a driver; nothing reads what it posts."""
    clock = FakeClock()
    tracker = ShardTracker(0, 1, clock)
    delivery = ShardDelivery(0, lambda: ())
    return Connection(
        1,
        line,
        tracker=tracker,
        receiver=Receiver((0, 1), clock, tracker.stats, delivery, ordinal=Ordinals().take),
        clock=clock,
        rng=random.Random(0),
        target=_nowhere,
        hold_dials=lambda _: None,
        post=lambda _: None,
        outbox=Outbox(0, clock, tracker.stats, pause_reason=lambda: None),
        log_heartbeats=lambda: False,
    )


async def test_a_task_that_has_ended_is_not_started_again_before_the_driver_has_heard_of_it() -> None:
    """Its report waits in the inbox. The task has nothing more to do on this connection."""
    line = Line()
    generation = generation_on(line)
    wanted = frozenset({Task.MASTER, Task.PROCESSOR})
    generation.reconcile(wanted)
    await settle_loop()
    line.lose()
    await settle_loop()
    processor = generation.tasks[Task.PROCESSOR]
    assert processor.done()
    generation.reconcile(wanted)
    assert generation.tasks[Task.PROCESSOR] is processor
    generation.reconcile(frozenset())
    await generation.finish()


async def test_a_master_that_is_alone_finishes_when_the_generation_is_wound_up() -> None:
    """No other task is left that could wake it by ending."""
    generation = generation_on(Line())
    generation.reconcile(frozenset({Task.MASTER}))
    await settle_loop()
    assert not generation.tasks[Task.MASTER].done()
    generation.reconcile(frozenset())
    await settle_loop()
    assert generation.tasks[Task.MASTER].done()
