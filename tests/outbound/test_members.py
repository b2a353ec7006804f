"""Requests for guild members: chunks, ids that are not found, Discord's limit, missing chunks, and new sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import CommandRateLimited, CommandUnanswered, InvalidCommand, ShardNotReady
from discorder.outbound.members import GuildMembers
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op

if TYPE_CHECKING:
    from tests.harness import Line, MemoryStage, StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]
INTENTS = 'gateway.intents=["guilds", "guild_members"]'
GUILD = 1345187898931525632


async def test_the_chunks_of_a_whole_guild_are_one_result_and_are_published_unchanged(
    start_simulator: Start, start_stage: StartStage
) -> None:
    """2,509 members in three chunks; a second request for the whole guild waits 30 s, without a violation."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, members=2_500, keep_documents=True)
    stage = start_stage(sim, INTENTS, clock=clock)
    tracker, guild = await stage.ready(), sim.guild_ids[0]
    found = await stage.result(tracker.request_guild_members(guild))
    assert isinstance(found, GuildMembers)
    assert (found.guild_id, len(found.members), found.not_found, found.presences) == (guild, 2_509, (), ())
    assert len({member["user"]["id"] for member in found.members}) == 2_509
    assert repr(found) == f"GuildMembers(guild_id={guild}, 2509 members, 0 not found, 0 presences)"
    chunks = [event for event in stage.recorder.events if event.type == "GUILD_MEMBERS_CHUNK"]
    assert [e.data for e in chunks] == [d.data for d in sim.sent_documents if d.type == "GUILD_MEMBERS_CHUNK"]
    assert len(chunks) == 3
    asked_at = clock.monotonic()
    again = await stage.result(tracker.request_guild_members(guild))
    assert len(again.members) == 2_509
    assert clock.monotonic() - asked_at >= 29.0
    with pytest.raises(CommandRateLimited, match=f"all members of guild {guild}") as limited:
        await stage.result(tracker.request_guild_members(guild, wait=False))
    assert limited.value.retry_after == pytest.approx(30.5, abs=1.0)
    assert sim.violations == []


async def test_members_by_prefix_and_by_id(start_simulator: Start, start_stage: StartStage) -> None:
    """Ids that are not found are integers, however Discord writes them; two concurrent requests do not mix."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, members=20)
    stage = start_stage(sim, clock=clock)
    tracker, guild = await stage.ready(), sim.guild_ids[1]
    by_prefix = asyncio.ensure_future(tracker.request_guild_members(guild, query="made_up_1"))
    known = 1_346_000_000_000_000_003
    wanted: list[int | str] = [known, 7, "1300000000000000000"]
    by_id = await stage.result(tracker.request_guild_members(str(guild), user_ids=wanted))
    assert by_id.guild_id == guild
    assert [member["user"]["id"] for member in by_id.members] == [str(known)]
    assert by_id.not_found == (7, 1_300_000_000_000_000_000)
    await stage.until(by_prefix.done)
    assert {m["user"]["username"] for m in by_prefix.result().members} >= {"made_up_1", "made_up_10", "made_up_19"}
    assert sim.violations == []


async def test_all_members_without_the_intent_would_end_the_connection_and_are_refused(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Discord would close with 4014, which is fatal."""
    stage = start_memory_stage('gateway.intents=["guilds"]')
    line = await stage.identified()
    with pytest.raises(InvalidCommand, match=r"guild_members, which gateway\.intents does not have"):
        await stage.tracker.request_guild_members(GUILD)
    assert line.ops(Op.REQUEST_GUILD_MEMBERS) == []


# ---------------------------------------------------------------- on connections in memory


def chunk(nonce: str, index: int, count: int, **more: Any) -> dict[str, Any]:
    """``d`` of a GUILD_MEMBERS_CHUNK with one member, whose id is the index."""
    member = {"user": {"id": str(index)}}
    return {
        "guild_id": str(GUILD),
        "members": [member],
        "chunk_index": index,
        "chunk_count": count,
        "nonce": nonce,
        **more,
    }


async def asked(stage: MemoryStage, line: Line, times: int = 1) -> str:
    """Advance the clock until the request was sent ``times`` times, and return its nonce."""
    await stage.until(lambda: len(line.ops(Op.REQUEST_GUILD_MEMBERS)) == times, within=60.0)
    nonce: str = line.ops(Op.REQUEST_GUILD_MEMBERS)[-1]["nonce"]
    return nonce


def ids(found: GuildMembers) -> list[str]:
    return [member["user"]["id"] for member in found.members]


async def test_chunks_are_sorted_and_those_of_other_requests_are_ignored(
    start_memory_stage: StartMemoryStage,
) -> None:
    """An unknown nonce, a missing one and garbage have no effect; presences and ids are collected over the chunks."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, presences=True))
    nonce = await asked(stage, line)
    assert len(nonce.encode()) <= 32
    assert line.ops(Op.REQUEST_GUILD_MEMBERS)[0] == {
        "guild_id": str(GUILD),
        "presences": True,
        "query": "",
        "limit": 0,
        "nonce": nonce,
    }
    line.feed(
        line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 1, 2, presences=[{"status": "idle"}])),
        line.dispatched("GUILD_MEMBERS_CHUNK", chunk("another's", 0, 1)),
        line.dispatched("GUILD_MEMBERS_CHUNK", {"nonce": nonce, "chunk_index": "first"}),
        line.dispatched("GUILD_MEMBERS_CHUNK", {"members": []}),
        line.dispatched("RATE_LIMITED", {"opcode": 8, "retry_after": 5.0, "meta": {"guild_id": "1"}}),
        line.dispatched("RATE_LIMITED", {"opcode": 31, "retry_after": 5.0, "meta": {"nonce": nonce}}),
        line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2)),
    )
    await stage.until(request.done)
    assert ids(request.result()) == ["0", "1"]
    assert request.result().presences == ({"status": "idle"},)
    assert len(line.ops(Op.REQUEST_GUILD_MEMBERS)) == 1
    assert stage.tracker.state is State.READY


async def test_a_lone_surrogate_in_a_name_loses_no_member(start_memory_stage: StartMemoryStage) -> None:
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD))
    document = chunk(await asked(stage, line), 0, 1)
    document["members"][0]["nick"] = "cut \ud83d"
    line.feed(json.dumps(line.dispatched("GUILD_MEMBERS_CHUNK", document)).encode())
    await stage.until(request.done)
    assert request.result().members[0]["nick"] == "cut \ud83d"


async def test_after_rate_limited_the_request_is_repeated_after_the_stated_time(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Another process may have requested the same guild."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified(600_000)
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD))
    nonce = await asked(stage, line)
    meta = {"guild_id": str(GUILD), "nonce": nonce}
    line.feed(line.dispatched("RATE_LIMITED", {"opcode": 8, "retry_after": 42.0, "meta": meta}))
    limited_at = stage.fake.monotonic()
    assert await asked(stage, line, times=2) == nonce
    assert 42.0 <= stage.fake.monotonic() - limited_at < 45.0
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 1)))
    await stage.until(request.done)
    assert ids(request.result()) == ["0"]


async def test_without_wait_the_error_has_discords_retry_after(start_memory_stage: StartMemoryStage) -> None:
    """``wait=False``."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, wait=False))
    meta = {"guild_id": str(GUILD), "nonce": await asked(stage, line)}
    line.feed(line.dispatched("RATE_LIMITED", {"opcode": 8, "retry_after": 17.5, "meta": meta}))
    await stage.until(request.done)
    with pytest.raises(CommandRateLimited) as limited:
        await request
    assert (limited.value.reason, limited.value.retry_after) == ("rate_limited", 17.5)


async def test_missing_chunks_are_an_error_after_the_timeout(start_memory_stage: StartMemoryStage) -> None:
    """Each chunk restarts the timeout; for an unknown guild Discord sends no answer at all."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, timeout=10.0))
    nonce = await asked(stage, line)
    await stage.fake.advance(8.0)
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2)))
    await stage.fake.advance(8.0)
    assert not request.done()
    await stage.fake.advance(3.0)
    with pytest.raises(
        CommandUnanswered, match=f"guild {GUILD} are incomplete: 1 chunks, then none for 10 s"
    ) as silent:
        await request
    assert silent.value.reason == "no_answer"


async def test_a_request_continues_over_a_resume(start_memory_stage: StartMemoryStage) -> None:
    """The replay contains the missing chunks, and one for the second time. The time of the outage does not count."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, timeout=2.0))
    nonce = await asked(stage, line)
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2)))
    await stage.pass_time()
    line.lose()
    second = await stage.resuming(2)
    await stage.fake.advance(9.0)
    second.feed(
        second.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2)),
        second.dispatched("RESUMED"),
        second.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 1, 2)),
    )
    await stage.until(request.done)
    assert ids(request.result()) == ["0", "1"]
    assert second.ops(Op.REQUEST_GUILD_MEMBERS) == []


async def test_a_request_is_repeated_in_a_new_session(start_memory_stage: StartMemoryStage) -> None:
    """The chunks of the old session are discarded, since the missing ones never come."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, user_ids=[1, 2]))
    nonce = await asked(stage, line)
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 1, 2)))
    await stage.pass_time()
    line.feed({"op": Op.INVALID_SESSION, "d": False})
    anew = await stage.line(2)
    anew.hello()
    await stage.until(lambda: anew.ops(Op.IDENTIFY))
    anew.ready("s2")
    assert await asked(stage, anew) == nonce
    anew.feed(anew.dispatched("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 1)))
    await stage.until(request.done)
    assert ids(request.result()) == ["0"]


async def test_two_requests_are_collected_side_by_side(start_memory_stage: StartMemoryStage) -> None:
    """The first complete result has no chunk of the other request."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    first = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD))
    of_first = await asked(stage, line)
    second = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD, user_ids=[1]))
    of_second = await asked(stage, line, times=2)
    assert of_first != of_second
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(of_first, 0, 1)))
    await stage.until(first.done)
    line.feed(line.dispatched("GUILD_MEMBERS_CHUNK", chunk(of_second, 7, 1)))
    await stage.until(second.done)
    assert (ids(first.result()), ids(second.result())) == (["0"], ["7"])


async def test_events_are_not_inspected_after_the_last_request(
    start_memory_stage: StartMemoryStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a request is open, an invalid answer is a warning; afterwards it is an ordinary event."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD))
    await asked(stage, line)
    line.feed(line.dispatched("RATE_LIMITED", {"opcode": "eight"}))
    await stage.until(lambda: stage.recorder.events[-1].type == "RATE_LIMITED")
    assert "An answer to a request for members cannot be read" in capsys.readouterr().err
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    line.feed(line.dispatched("RATE_LIMITED", {"opcode": "eight"}), line.dispatched("MESSAGE_CREATE"))
    await stage.until(lambda: stage.recorder.events[-1].type == "MESSAGE_CREATE")
    assert "cannot be read" not in capsys.readouterr().err
    assert stage.tracker.state is State.READY


async def test_a_shutdown_ends_a_request_that_waits_for_chunks(start_memory_stage: StartMemoryStage) -> None:
    """No caller waits for a control plane that has ended."""
    stage = start_memory_stage(INTENTS)
    line = await stage.identified()
    request = asyncio.ensure_future(stage.tracker.request_guild_members(GUILD))
    await asked(stage, line)
    await stage.stop()
    with pytest.raises(ShardNotReady, match=f"ended before all members of guild {GUILD} had arrived"):
        await request
