"""Cases 45 to 49: odd frames cost no new connection, or one."""

from __future__ import annotations

import json

import pytest

from discorder.statemachine import State
from discorder.wire import Op, decode_document
from tests.faults.table import Case
from tests.harness import Line, MemoryStage, StartMemoryStage

HARD_TO_HOLD: dict[str, bytes] = {
    "a lone surrogate": b'{"content":"cut \\ud83d"}',
    "a low surrogate first": b'"\\udc00\\ud800"',
    "a surrogate as a name": b'{"\\ud83d":1}',
    "a number beyond a double": b'{"x":1e999}',
    "an integer of 5,000 digits": b'{"x":' + b"7" * 5000 + b"}",
    "1,100 nested arrays": b'{"x":' + b"[" * 1100 + b"]" * 1100 + b"}",
    "9,000 nested objects": b'{"x":' * 9000 + b"1" + b"}" * 9000,
    "U+0000": b'"\\u0000"',
}


def dispatch(kind: str, seq: int, data: bytes = b"{}") -> bytes:
    """One frame."""
    return b'{"op":0,"t":"%b","s":%d,"d":%b}' % (kind.encode(), seq, data)


async def published(stage: MemoryStage, *seqs: int) -> None:
    """Wait until the events with ``seqs`` were published, READY of the simulated session included, and no others."""
    await stage.until(lambda: len(stage.recorder.events) >= len(seqs))
    assert [event.seq for event in stage.recorder.events] == list(seqs)


def gaps(stage: MemoryStage) -> list[tuple[int, int]]:
    """Return the first and the last sequence of each published gap."""
    told = [json.loads(record.data) for record in stage.recorder.records if record.type == "DISCORDER_GAP"]
    return [(gap["from_seq"], gap["to_seq"]) for gap in told]


def pay(case: Case, stage: MemoryStage, *, lost: int = 0) -> None:
    """Note the cost of the case. Fails where there was more than one session."""
    identifies = sum(len(line.ops(Op.IDENTIFY)) for line in stage.exchange.lines)
    case.note(identifies=identifies - 1, lost=lost, duplicates=0)
    assert identifies == 1


@pytest.mark.parametrize("data", HARD_TO_HOLD.values(), ids=HARD_TO_HOLD.keys())
async def test_45_what_a_strict_parser_cannot_hold_is_published_byte_for_byte(
    case: Case, start_memory_stage: StartMemoryStage, data: bytes
) -> None:
    """The event is valid JSON; the document can be read as far as a bot needs to."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(dispatch("A", 2), dispatch("B", 3, data), dispatch("A", 4))
    await published(stage, 1, 2, 3, 4)
    assert decode_document(stage.recorder.events[2].document).data == data
    assert stage.tracker.generation == 1
    pay(case, stage)


async def test_45_ready_with_a_lone_surrogate_opens_the_session(
    case: Case, start_memory_stage: StartMemoryStage
) -> None:
    """Of READY only the session id is needed: a resume URL that is none means the main host."""
    stage = start_memory_stage()
    line = await stage.line()
    line.hello()
    await stage.until(lambda: line.ops(Op.IDENTIFY))
    line.feed(dispatch("READY", 1, b'{"session_id":"s1","resume_gateway_url":null,"user":{"name":"cut \\ud83d"}}'))
    await stage.ready()
    line.lose()
    second = await stage.resuming(2)
    assert second.url.startswith("ws://main.test")
    pay(case, stage)


NEVER_READ: dict[str, bytes] = {
    "no JSON": b'{"op":0,"t":"X","s":3,"d":{"content":}}',
    "no UTF-8": b'{"op":0,"t":"X","s":3,"d":"\xff"}',
    "a sequence beyond 64 bit": b'{"op":0,"t":"X","s":9223372036854775808,"d":{}}',
    "no sequence": b'{"op":0,"t":"X","d":{}}',
    "no op": b'{"t":"X","s":3,"d":{}}',
    "deeper than anybody looks": b'{"op":0,"t":"X","s":3,"d":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}


@pytest.mark.parametrize("frame", NEVER_READ.values(), ids=NEVER_READ.keys())
async def test_46_a_frame_that_is_never_good_costs_one_connection_and_is_told(
    case: Case, start_memory_stage: StartMemoryStage, frame: bytes
) -> None:
    """The replay brings it again: it is passed over, as a gap of one event, and what is behind it arrives."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(dispatch("A", 2), frame)
    second = await stage.resuming(2)
    second.feed(frame, dispatch("A", 4), dispatch("RESUMED", 5))
    await stage.ready(generation=2)
    await published(stage, 1, 2, 4, 5)
    assert gaps(stage) == [(3, 3)]
    assert stage.tracker.stats.odd_frames["the same breach of protocol again"] == 1
    pay(case, stage, lost=1)


BAD_READY: dict[str, bytes] = {
    "no session id": dispatch("READY", 1, b'{"user":{}}'),
    "an empty session id": dispatch("READY", 1, b'{"session_id":""}'),
    "a session id of 2,000 characters": dispatch("READY", 1, b'{"session_id":"%b"}' % (b"s" * 2000)),
    "a number": dispatch("READY", 1, b'{"session_id":1}'),
    "no object": dispatch("READY", 1, b"[]"),
    "no sequence": b'{"op":0,"t":"READY","d":{"session_id":"s1"}}',
    "no JSON": dispatch("READY", 1, b"{"),
}


@pytest.mark.parametrize("ready", BAD_READY.values(), ids=BAD_READY.keys())
async def test_46_a_ready_that_is_never_good_parks_the_shard(
    case: Case, start_memory_stage: StartMemoryStage, ready: bytes
) -> None:
    """After two IDENTIFYs. An hour later one more is tried."""
    stage = start_memory_stage()
    stage.strict, stage.stride = False, 5.0
    greeted: set[Line] = set()
    answered: set[Line] = set()

    async def play(seconds: float) -> int:
        """Let time pass, and return how many IDENTIFYs there were since the beginning."""
        end = stage.clock.monotonic() + seconds
        while stage.clock.monotonic() < end:
            await stage.pass_time()
            for line in set(stage.exchange.lines) - greeted:
                line.hello()
                greeted.add(line)
            for line in [line for line in greeted - answered if line.ops(Op.IDENTIFY)]:
                line.feed(ready)
                answered.add(line)
        return len(answered)

    assert await play(600.0) == 2
    assert stage.tracker.state is State.RESTARTING
    assert "parked" in (stage.tracker.shards[0].cause or "")
    assert await play(3_600.0) == 3
    case.note(identifies=2)


async def replayed(stage: MemoryStage, *frames: bytes) -> Line:
    """Return the second connection, on which ``frames`` answered a RESUME from 10."""
    line = await stage.identified()
    line.feed(*(dispatch("A", seq) for seq in range(2, 11)))
    await stage.until(lambda: len(stage.recorder.events) == 10)
    line.lose()
    second = await stage.resuming(2)
    assert second.ops(Op.RESUME)[0]["seq"] == 10
    second.feed(*frames)
    return second


REPLAYS: dict[str, tuple[int, ...]] = {
    "as asked": (11, 12, 13),
    "one too early": (10, 11, 12, 13),
    "five too early": (6, 7, 8, 9, 10, 11, 12, 13),
    "everything twice": (11, 11, 12, 12, 13, 13),
    "a live event first": (13, 11, 12),
    "two live events in between": (11, 13, 12, 13),
    "backwards": (13, 12, 11),
}


@pytest.mark.parametrize("seqs", REPLAYS.values(), ids=REPLAYS.keys())
async def test_47_a_replay_out_of_order_is_put_into_order(
    case: Case, start_memory_stage: StartMemoryStage, seqs: tuple[int, ...]
) -> None:
    """What was seen is dropped, what overtakes is held."""
    stage = start_memory_stage()
    await replayed(stage, *(dispatch("A", seq) for seq in seqs), dispatch("RESUMED", 14))
    await stage.ready(generation=2)
    await published(stage, *range(1, 15))
    assert gaps(stage) == []
    pay(case, stage)


async def test_47_what_is_held_comes_with_resumed(case: Case, start_memory_stage: StartMemoryStage) -> None:
    """A sequence that the server never used holds nothing up for longer."""
    stage = start_memory_stage()
    second = await replayed(stage, dispatch("A", 11), dispatch("A", 13), dispatch("A", 16))
    await stage.spend(5.0)
    await published(stage, *range(1, 12))
    second.feed(dispatch("RESUMED", 14))
    await stage.ready(generation=2)
    await published(stage, *range(1, 12), 13, 14, 16)
    second.feed(dispatch("A", 17))
    await published(stage, *range(1, 12), 13, 14, 16, 17)
    pay(case, stage)


async def test_47_a_hold_that_is_full_lets_go_and_what_comes_too_late_is_told(
    case: Case, start_memory_stage: StartMemoryStage
) -> None:
    """2,000 events are kept, then they are published as they came."""
    stage = start_memory_stage()
    live = range(20, 2_021)
    second = await replayed(stage, *(dispatch("A", seq) for seq in live))
    await stage.until(lambda: len(stage.recorder.events) == 10 + len(live))
    assert gaps(stage) == []
    second.feed(dispatch("A", 11), dispatch("A", 12), dispatch("RESUMED", 2_021))
    await stage.ready(generation=2)
    assert gaps(stage) == [(11, 19)]
    assert stage.tracker.generation == 2
    pay(case, stage, lost=9)


async def test_47_a_hold_is_bounded_in_bytes_too(case: Case, start_memory_stage: StartMemoryStage) -> None:
    """16 MiB of data."""
    stage = start_memory_stage()
    large = b'"%b"' % (b"x" * 1_000_000)
    await replayed(stage, *(dispatch("A", seq, large) for seq in range(12, 28)))
    await stage.spend(1.0)
    await published(stage, *range(1, 11))
    stage.exchange.lines[1].feed(dispatch("A", 28, large))
    await published(stage, *range(1, 11), *range(12, 29))
    pay(case, stage)


ODD: dict[str, tuple[bytes, str]] = {
    "a second Hello": (b'{"op":10,"d":{"heartbeat_interval":1000}}', "a second Hello"),
    "a second Hello that cannot be read": (b'{"op":10}', "a second Hello"),
    "an empty t": (dispatch("", 2), "a dispatch without a usable t"),
    "no t": (b'{"op":0,"s":2,"d":{}}', "a dispatch without a usable t"),
    "a t that is a number": (b'{"op":0,"t":7,"s":2,"d":{}}', "a dispatch without a usable t"),
    "a t that is a lone surrogate": (dispatch("\\ud83d", 2), "a dispatch without a usable t"),
    "a record of our own": (dispatch("DISCORDER_GAP", 2), "a dispatch without a usable t"),
    "an opcode out of all reason": (b'{"op":1000000000000000000000000000000,"d":{}}', "an opcode beyond 255"),
    "a negative opcode": (b'{"op":-1}', "an opcode beyond 255"),
    "what was published a moment ago": (b'{"op":0,"t":"READY","s":1,"d":%b}', "a dispatch that was seen before"),
}


@pytest.mark.parametrize(("frame", "odd"), ODD.values(), ids=ODD.keys())
async def test_48_an_odd_frame_is_dropped_and_counted(
    case: Case, start_memory_stage: StartMemoryStage, frame: bytes, odd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The connection stays, and what follows is published."""
    stage = start_memory_stage()
    line = await stage.identified()
    if b"%b" in frame:
        frame %= stage.recorder.events[0].data
    line.feed(frame, frame, dispatch("A", 3))
    await published(stage, 1, 3)
    assert stage.tracker.stats.odd_frames[odd] == 2
    assert capsys.readouterr().err.count(f'what="{odd}"') == 2
    assert (stage.tracker.generation, stage.tracker.heartbeat_interval_ms, gaps(stage)) == (1, 41_250, [])
    pay(case, stage)


async def test_48_a_dispatch_without_d_is_published_with_null(case: Case, start_memory_stage: StartMemoryStage) -> None:
    """Some encoders leave out null fields."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(b'{"op":0,"t":"A","s":2}')
    await published(stage, 1, 2)
    assert stage.recorder.events[1].data == b"null"
    pay(case, stage)


@pytest.mark.parametrize(
    "resumed",
    [b'{"op":0,"t":"RESUMED"}', b'{"op":0,"t":"RESUMED","s":null,"d":{}}', b'{"op":0,"t":"RESUMED","s":3}'],
    ids=["neither s nor d", "s null", "no d"],
)
async def test_48_resumed_ends_the_replay_whatever_it_lacks(
    case: Case, start_memory_stage: StartMemoryStage, resumed: bytes
) -> None:
    """Without a sequence it is no event of its own."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    second = await stage.resuming(2)
    second.feed(dispatch("A", 2), resumed)
    await stage.ready(generation=2)
    second.feed(dispatch("A", 4))
    await published(stage, *((1, 2, 3, 4) if b"3" in resumed else (1, 2, 4)))
    pay(case, stage)


@pytest.mark.parametrize("answer", [b'{"op":9}', b'{"op":9,"d":null}', b'{"op":9,"d":false}'])
async def test_48_op_9_without_d_means_false(case: Case, start_memory_stage: StartMemoryStage, answer: bytes) -> None:
    """The session is gone, and IDENTIFY follows within 5 s."""
    stage = start_memory_stage()
    line = await stage.identified()
    await stage.spend(10.0)  # the slot of the first IDENTIFY is free again
    line.lose()
    second = await stage.resuming(2)
    second.feed(answer)
    began = stage.clock.monotonic()
    third = await stage.line(3)
    third.hello()
    await stage.until(lambda: third.ops(Op.IDENTIFY))
    took = stage.clock.monotonic() - began
    assert 1.0 <= took <= 5.0
    case.note(recovery=took, identifies=1)


async def test_48_op_9_that_is_never_a_flag_is_taken_for_false(
    case: Case, start_memory_stage: StartMemoryStage
) -> None:
    """A new connection is tried once."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed(b'{"op":9,"d":"perhaps"}')
    second = await stage.resuming(2)
    second.feed(b'{"op":9,"d":"perhaps"}')
    third = await stage.line(3)
    third.hello()
    await stage.until(lambda: third.ops(Op.IDENTIFY))
    case.note(identifies=1)


async def test_48_an_event_before_ready_costs_no_identify(case: Case, start_memory_stage: StartMemoryStage) -> None:
    """It belongs to no session yet: told as a gap of the one that READY opens."""
    stage = start_memory_stage()
    line = await stage.line()
    line.feed(dispatch("A", 7))
    line.hello()
    second = await stage.line(2)  # before Hello it is a breach, once
    second.feed(b'{"op":10,"d":{"heartbeat_interval":41250}}', dispatch("A", 7))
    await stage.until(lambda: second.ops(Op.IDENTIFY))
    second.feed(dispatch("SESSIONS_REPLACE", 1), dispatch("READY", 2, b'{"session_id":"s1"}'), dispatch("A", 3))
    await published(stage, 2, 3)
    assert gaps(stage) == [(1, 1)]
    pay(case, stage)


@pytest.mark.parametrize("interval", [b"1e-20", b"0", b"-1", b"1e300", b"1e999", b'"soon"', b"2592000000"])
async def test_49_a_heartbeat_interval_out_of_all_reason_is_replaced_by_discords(
    case: Case, start_memory_stage: StartMemoryStage, interval: bytes
) -> None:
    """On the second connection: on the first it may be the host's fault."""
    stage = start_memory_stage()
    hello = b'{"op":10,"d":{"heartbeat_interval":%b}}' % interval
    (await stage.line()).feed(hello)
    second = await stage.line(2)
    second.feed(hello)
    await stage.until(lambda: second.ops(Op.IDENTIFY))
    assert stage.tracker.heartbeat_interval_ms == 41_250
    pay(case, stage)
