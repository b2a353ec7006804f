"""Discord's limits: frames, sizes, identify buckets, the daily budget; and the options that choose them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.simulator import Simulator, SimulatorOptions, ViolationKind

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]


def kinds(sim: Simulator) -> list[ViolationKind]:
    """What was overstepped, in order."""
    return [violation.kind for violation in sim.violations]


async def test_the_121st_frame_within_a_minute_ends_the_connection(start_simulator: Start, make_client: Make) -> None:
    """A sliding log: a minute's worth at the end of one minute leaves none for the start of the next."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    client = await make_client(sim).dial()
    await client.frame()
    for number in range(120):
        if number == 60:
            await clock.advance(59)
        await client.send(1)
        await client.until_op(11)
    await clock.advance(1.5)
    for _ in range(60):
        await client.send(1)
        await client.until_op(11)
    assert kinds(sim) == []
    await client.send(1)
    assert await client.close_code() == 4008
    assert kinds(sim) == [ViolationKind.SEND_LIMIT]


async def test_the_send_limit_can_be_switched_off(start_simulator: Start, make_client: Make) -> None:
    """A limit of 0 never refuses."""
    sim = await start_simulator(send_limit=0)
    client = await make_client(sim).dial()
    for _ in range(130):
        await client.send(1)
        await client.until_op(11)


@pytest.mark.parametrize(("limit", "size", "accepted"), [(4096, 4096, True), (4096, 4097, False), (15360, 4097, True)])
async def test_a_frame_may_have_so_many_bytes(
    start_simulator: Start, make_client: Make, limit: int, size: int, accepted: bool
) -> None:
    """4002 above the limit."""
    sim = await start_simulator(max_payload=limit)
    client = await make_client(sim).dial()
    await client.frame()
    await client.websocket.send_str('{"op":1,"d":null' + " " * (size - 17) + "}")
    if accepted:
        assert (await client.frame())["op"] == 11
    else:
        assert await client.close_code() == 4002
        assert kinds(sim) == [ViolationKind.PAYLOAD_SIZE]


@pytest.mark.parametrize("counted", [True, False])
async def test_one_identify_per_bucket_every_five_seconds(
    start_simulator: Start, make_client: Make, counted: bool
) -> None:
    """Too soon: op 9 false on an open socket; another bucket is free; a RESUME is never counted."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, identify_spacing=5.0, max_concurrency=2, count_rejected_identifies=counted)
    first = await make_client(sim).dial()
    session = (await first.identify(shard=[0, 4]))["session_id"]
    await (await make_client(sim).dial()).identify(shard=[1, 4])
    third = await make_client(sim).dial()
    await third.frame()
    await third.send(2, third.identity(shard=[2, 4]))
    assert await third.until_op(9) is False
    assert kinds(sim) == [ViolationKind.IDENTIFY_SPACING]
    assert sim.remaining == (997 if counted else 998)
    await first.close(4000)
    resumed = await make_client(sim).dial()
    await resumed.resume(session, 1)
    await resumed.until("RESUMED")
    await clock.advance(5)
    await third.send(2, third.identity(shard=[2, 4]))
    await third.until("READY")


async def test_one_identify_too_many_resets_the_token(start_simulator: Start, make_client: Make) -> None:
    """Every session ends, every connection is closed with 4004, and so is every later one."""
    sim = await start_simulator(session_start_remaining=1)
    first, second = await make_client(sim).dial(), await make_client(sim).dial()
    await first.identify()
    assert sim.remaining == 0
    await second.frame()
    await second.send(2, second.identity())
    assert [await client.close_code() for client in (first, second)] == [4004, 4004]
    assert sim.sessions == []
    assert kinds(sim) == [ViolationKind.IDENTIFY_BUDGET]
    third = await make_client(sim).dial()
    await third.send(2, third.identity())
    assert await third.close_code() == 4004


async def test_the_budget_comes_back_after_a_day(start_simulator: Start, make_client: Make) -> None:
    """24 h after the first IDENTIFY of the window."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, session_start_total=3)
    await (await make_client(sim).dial()).identify()
    assert sim.remaining == 2
    await clock.advance(24 * 3600)
    assert sim.remaining == 3


async def test_more_than_five_presence_updates_in_twenty_seconds_are_noted(
    start_simulator: Start, make_client: Make
) -> None:
    """They are recorded; the connection lives."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify()
    for _ in range(6):
        await client.send(3, {"activities": [], "status": "idle", "afk": False, "since": None})
    await client.send(1, 1)
    await client.until_op(11)
    assert kinds(sim) == [ViolationKind.PRESENCE_LIMIT]


@pytest.mark.parametrize(
    "options",
    [
        {"guilds": -1},
        {"guilds": 10**6},
        {"rate": -0.1},
        {"rate": float("nan")},
        {"port": 70_000},
        {"port": 4000, "resume_port": 4000},
        {"token": ""},
        {"shards": 0},
        {"max_concurrency": 0},
        {"approved_intents": 1},
        {"session_start_remaining": 1001},
        {"zlib_split": 0},
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any]) -> None:
    """ValueError, before anything is started."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Simulator(**options)


def test_options_may_be_given_as_a_value_or_as_keywords() -> None:
    """Keywords win; what is no option is refused."""
    assert Simulator(SimulatorOptions(guilds=7, rate=1), rate=2).options == SimulatorOptions(guilds=7, rate=2)
    with pytest.raises(TypeError):
        Simulator(guild=3)


async def test_verbs_refuse_bad_arguments(start_simulator: Start) -> None:
    """A ValueError that names what is allowed."""
    sim = await start_simulator()
    calls: list[tuple[Awaitable[None], str]] = [
        (sim.close(1006), "1006"),
        (sim.close(99), "99"),
        (sim.drop(shard=-1), "shard"),
        (sim.dispatch("", {}), "type"),
        (sim.send_op(0, {}), "dispatch"),
        (sim.refuse_upgrades(200), "status"),
        (sim.refuse_upgrades(503, "other"), "host"),
        (sim.refuse_upgrades(503, shard=0), "shard"),
        (sim.withhold_hello(shard=0), "shard"),
        (sim.ignore_openings(shard=0), "shard"),
        (sim.refuse_resumes(4000, shard=0), "shard"),
        (sim.refuse_resumes(999), "code"),
    ]
    for call, name in calls:
        with pytest.raises(ValueError, match=name):
            await call
