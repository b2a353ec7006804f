"""Many shards in one process: how they start, and that the failure of one does not affect the others."""

# the tests prepare files, and nothing else runs on the loop

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from discorder import diagnose, shard_of_guild
from discorder.clock import FakeClock, SystemClock
from discorder.errors import ConnectFailed, FatalCloseError, GatewayUnreachable, NotStarted
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import SPACING
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker
from discorder.transport import AiohttpTransport, Compression, inflater
from discorder.transport.protocol import Deliver, Transport
from discorder.wire import Op
from tests.harness import Stage

if TYPE_CHECKING:
    from tests.harness import StartStage

StartSimulator = Callable[..., Awaitable[Simulator]]


def identified(sim: Simulator) -> list[int]:
    """Return the shards that sent IDENTIFY, in order."""
    return [frame.d["shard"][0] for frame in sim.received if frame.op == Op.IDENTIFY]


def shown(stage: Stage) -> GatewayTracker | None:
    try:
        return stage.tracker
    except NotStarted:
        return None


def ready_count(stage: Stage) -> int:
    tracker = shown(stage)
    return 0 if tracker is None else tracker.progress.ready


def all_ready(stage: Stage) -> Callable[[], bool]:
    return lambda: (tracker := shown(stage)) is not None and tracker.progress.complete


async def test_64_shards_come_up_bucket_by_bucket_with_visible_progress(
    start_simulator: StartSimulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four rounds of 16 identify buckets; the log has a line per round, not per shard."""
    sim = await start_simulator(shards=64, max_concurrency=16, guilds=64)
    clock = FakeClock()
    stage = start_stage(sim, "gateway.shards=64", "log.level=info", clock=clock)
    began = clock.monotonic()
    await stage.until(lambda: ready_count(stage) == 16)
    assert 10.0 < (stage.tracker.progress.eta or 0.0) <= 3 * SPACING
    assert "16 of 64 ready, ETA" in repr(stage.tracker)
    await stage.until(all_ready(stage), within=60.0)
    took = clock.monotonic() - began
    assert 3 * SPACING <= took < 3 * SPACING + 15.0  # the fake clock runs while the test waits for real sockets
    rounds = [sorted(identified(sim)[place : place + 16]) for place in range(0, 64, 16)]
    assert rounds == [list(range(first, first + 16)) for first in range(0, 64, 16)]
    assert sim.violations == []
    log = capsys.readouterr().err
    assert "Starting shards shards=64 to_resume=0 to_identify=64 eta_seconds=15.8" in log
    assert 3 <= len(re.findall(r"Shards ready ready=\d+ of=64 eta_seconds=", log)) <= 6
    assert "All shards are ready shards=64" in log
    assert repr(stage.tracker.progress) == "64 of 64 ready"
    await stage.stop()


@pytest.mark.heavy
async def test_a_line_that_is_longer_than_a_socket_may_idle_is_no_failure(
    start_simulator: StartSimulator, start_stage: StartStage
) -> None:
    """One identify bucket: the gate defers shard 13, and fail_on_error does not count that as an error."""
    sim = await start_simulator(shards=16, max_concurrency=1, guilds=16)
    stage = start_stage(sim, "gateway.shards=16", "gateway.fail_on_error=true", clock=FakeClock())
    await stage.until(all_ready(stage), within=120.0)
    assert identified(sim) == list(range(16))
    assert sim.connects > 16
    assert {shard.stats.identify_count for shard in stage.tracker.shards} == {1}
    await stage.stop()


@pytest.mark.heavy
async def test_on_the_real_clock_no_limit_of_the_gateway_is_touched(start_stage: StartStage) -> None:
    """Two rounds of two buckets, 5.25 s apart, against a simulator that enforces 5 s."""
    async with Simulator(guilds=4, shards=4, max_concurrency=2) as sim:
        stage = start_stage(sim, clock=SystemClock())
        await stage.until(all_ready(stage))
        assert sorted(identified(sim)[:2]) == [0, 1]
        assert sorted(identified(sim)[2:]) == [2, 3]
        assert sim.violations == []
        await stage.stop()


async def test_a_single_shard_needs_no_progress_lines(
    sim: Simulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line "Control plane started" is enough."""
    stage = start_stage(sim)
    await stage.ready()
    assert repr(stage.tracker.progress) == "1 of 1 ready"
    log = capsys.readouterr().err
    assert "hards ready" not in log
    assert "Starting shards" not in log


async def test_a_shard_that_cannot_connect_does_not_touch_the_others(
    start_simulator: StartSimulator, stages: list[Stage]
) -> None:
    """The others start, receive events, and are never restarted. The verdict names the failing one."""
    sim = await start_simulator(shards=3, max_concurrency=3, guilds=3)

    class Unreachable(AiohttpTransport):
        async def connect(self, url: str, deliver: Deliver) -> None:
            msg = "this one has no network"
            raise ConnectFailed(msg)

    def dial(shard: tuple[int, int]) -> Transport:
        return Unreachable() if shard[0] == 1 else AiohttpTransport(inflater=inflater(Compression.ZLIB_STREAM))

    settings = (f"gateway.api={sim.api_url}", "gateway.shards=3", "gateway.compress=zlib-stream")
    stage = Stage(*settings, clock=FakeClock(), token=sim.token, dial=dial)
    stages.append(stage)
    await stage.until(lambda: ready_count(stage) == 2)
    healthy, failing = (stage.tracker.shards[0], stage.tracker.shards[2]), stage.tracker.shards[1]
    await stage.until(lambda: failing.attempts >= 4, within=300.0)
    await sim.dispatch("TYPING_START", {"n": 1})
    await stage.until(
        lambda: [event.shard[0] for event in stage.recorder.events if event.type == "TYPING_START"] == [0, 2]
    )
    assert [shard.state for shard in healthy] == [State.READY, State.READY]
    assert [shard.stats.restart_count for shard in healthy] == [0, 0]
    assert [reason.partition(":")[0] for reason in diagnose(stage.tracker).reasons] == ["shard 1"]
    assert repr(stage.tracker.progress).startswith("2 of 3 ready")
    await stage.stop()


async def test_the_shard_of_a_guild_is_found(start_simulator: StartSimulator, start_stage: StartStage) -> None:
    """If this process runs it, return the shard that gets the guild's events; otherwise the error lists the shards here."""
    sim = await start_simulator(shards=4, max_concurrency=4, guilds=8)
    stage = start_stage(sim, "gateway.shards={ids=[0, 1, 3], of=4}")
    await stage.until(all_ready(stage))
    await stage.until(lambda: sum(event.type == "GUILD_CREATE" for event in stage.recorder.events) == 6)
    for event in stage.recorder.events:
        if event.type == "GUILD_CREATE":
            assert stage.tracker.shard_for(msgspec.json.decode(event.data)["id"]).shard_id == event.shard[0]
    elsewhere = next(guild for guild in sim.guild_ids if shard_of_guild(guild, 4) == 2)
    with pytest.raises(ValueError, match=r"no shard 2 here; there are: 0, 1, 3"):
        stage.tracker.shard_for(elsewhere)


async def test_a_ban_of_our_address_is_named_while_the_look_up_waits_for_its_end(
    sim: Simulator, start_stage: StartStage
) -> None:
    """The verdict and its notes show it from the first refusal on. When the ban ends, the start goes on."""
    clock = FakeClock()
    await sim.block_address()
    stage = start_stage(sim, "gateway.shards=1", clock=clock, client=BotClient(sim.token, clock=clock))
    await stage.until(lambda: (tracker := shown(stage)) is not None and tracker.look_up_trouble is not None)
    told = diagnose(stage.tracker).reasons[-1]
    assert re.match(r"looking up the gateway failed \d+ times, next try in \d+ s: .*: our address is banned", told)
    assert told in diagnose(stage.tracker).notes
    await sim.heal()
    await stage.ready(within=60.0)
    assert diagnose(stage.tracker).healthy


async def test_a_ban_of_our_address_uses_up_max_attempts(sim: Simulator, start_stage: StartStage) -> None:
    clock = FakeClock()
    await sim.block_address()
    client = BotClient(sim.token, clock=clock)
    stage = start_stage(sim, "gateway.shards=1", "gateway.max_attempts=3", clock=clock, client=client)
    assert isinstance(error := await stage.end(), GatewayUnreachable)
    assert "our address is banned" in str(error)


async def test_a_shard_that_the_ledger_refuses_is_parked_and_its_status_says_until_when(
    start_simulator: StartSimulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two IDENTIFYs above the reserve, three shards: two run, and the third waits for Discord's reset without a socket."""

    async def look_up() -> GatewayInfo:
        limit = SessionStartLimit(total=1000, remaining=102, reset_after_ms=20 * 3_600_000, max_concurrency=3)
        return GatewayInfo(url=sim.gateway_url, shards=3, session_start_limit=limit)

    sim = await start_simulator(shards=3, max_concurrency=3, guilds=3)
    stage = start_stage(sim, look_up=look_up)
    await stage.until(lambda: ready_count(stage) == 2)
    parked = stage.tracker.shards[2]
    await stage.until(lambda: parked.state is State.RESTARTING)
    assert repr(stage.tracker.progress) == "2 of 3 ready, ETA 20 h 0 min"
    (reason,) = diagnose(stage.tracker).reasons
    assert reason.startswith("shard 2: Restarting for ")
    assert "the identify budget is spent: 100 of 1000 left, 100 are kept in reserve" in reason
    assert "the next IDENTIFY is allowed at " in reason
    assert parked.attempts == 0
    await stage.until(lambda: sim.open_connections == 2)
    connects = sim.connects
    await stage.until(lambda: stage.tracker.shards[0].ages.in_state > 30.0, within=60.0)
    assert (sim.connects, sim.identifies) == (connects, 2)
    assert "the identify budget is spent" in capsys.readouterr().err
    await stage.stop()


@pytest.mark.parametrize("code", [4004, 4010, 4013, 4014])
async def test_what_is_fatal_is_a_fact_about_token_or_layout_and_ends_all_shards(
    start_simulator: StartSimulator, start_stage: StartStage, code: int
) -> None:
    """The fatal close of one shard ends the plane. The other shards stop, and their sessions stay stored."""
    sim = await start_simulator(shards=3, max_concurrency=3, guilds=3)
    stage = start_stage(sim)
    await stage.until(all_ready(stage))
    await sim.close(code, shard=1)
    error = await stage.end()
    assert isinstance(error, FatalCloseError)
    assert error.code == code
    await sim.wait_for(lambda: sum(close.by == "client" for close in sim.closes) == 2)
    assert [close.code for close in sim.closes if close.by == "client"] == [4000, 4000]
    assert len(sim.sessions) >= 2


async def test_a_gateway_that_does_not_compress_is_understood_and_logged_once(
    sim: Simulator, start_stage: StartStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ignores the query parameter, also on the second connection."""
    monkeypatch.setattr("discorder.transport.inflate.gateway_query", lambda _: {"v": "10", "encoding": "json"})
    stage = start_stage(sim, "gateway.compress=zlib-stream")
    await stage.ready()
    await sim.drop()
    await stage.ready(generation=2)
    assert capsys.readouterr().err.count("The gateway does not compress its messages") == 1
    assert stage.recorder.events[0].type == "READY"


async def test_auto_follows_a_shard_count_that_changes_between_two_starts(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """Stored sessions of the old layout are not used, and not restored when the old layout returns."""
    clock, store = FakeClock(), f"session.store={tmp_path / 'sessions.sqlite3'}"
    for life, count in enumerate((1, 2, 2, 1), start=1):

        async def look_up(count: int = count) -> GatewayInfo:
            limit = SessionStartLimit(total=1000, remaining=900, reset_after_ms=80_000_000, max_concurrency=2)
            return GatewayInfo(url=sim.gateway_url, shards=count, session_start_limit=limit)

        stage = start_stage(sim, store, clock=clock, look_up=look_up)
        await stage.until(all_ready(stage), within=60.0)
        assert [(shard.shard_id, shard.shard_count) for shard in stage.tracker.shards] == [
            (n, count) for n in range(count)
        ]
        await stage.stop()
        assert (sim.identifies, sim.resumed) == {1: (1, 0), 2: (3, 0), 3: (3, 2), 4: (4, 2)}[life]
    assert sim.resumes == 2


# ---------------------------------------------------------------- what else the tracker shows


async def test_log_and_tracker_say_which_compression_auto_has_chosen(
    sim: Simulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the best that is installed. The text is the same if it was configured by name."""
    stage = start_stage(sim)
    await stage.ready()
    assert stage.tracker.compression is Compression.ZSTD_STREAM
    assert "  compression: zstd-stream" in repr(stage.tracker)
    assert "Transport compression chosen=zstd-stream asked=auto" in capsys.readouterr().err
    await stage.stop()
    other = start_stage(sim, "gateway.compress=zlib-stream")
    await other.ready()
    assert "  compression: zlib-stream" in repr(other.tracker)


def store_line(tracker: GatewayTracker) -> str:
    (line,) = re.findall(r"^  store: (.*)$", repr(tracker), re.MULTILINE)
    return str(line)


async def test_a_store_in_memory_on_purpose_is_shown_and_nothing_to_worry_about(
    sim: Simulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """``session.store = ""``: the status explains it, and the verdict has no note."""
    stage = start_stage(sim)
    await stage.ready()
    assert store_line(stage.tracker) == "in memory: sessions are kept in memory only: a restart identifies anew"
    assert diagnose(stage.tracker).notes == ()
    assert "Running without a session store" in capsys.readouterr().err


async def test_a_store_that_fails_and_works_again_is_told_in_log_and_verdict(
    sim: Simulator, start_stage: StartStage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The session goes on and is healthy, with a note. Pending sessions are written when the store works again."""
    path = tmp_path / "sessions.sqlite3"
    stage = start_stage(sim, f"session.store={path}")
    tracker = await stage.ready()
    assert store_line(tracker) == "ok"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.mkdir()  # in the place of the store
    await sim.dispatch("TYPING_START", {})
    await stage.until(lambda: store_line(tracker).startswith("failing: "))
    verdict = diagnose(tracker)
    assert verdict.healthy
    assert str(path) in verdict.notes[0]
    path.rmdir()
    await stage.until(lambda: store_line(tracker) == "ok")
    assert diagnose(tracker).notes == ()
    log = capsys.readouterr().err
    assert log.count("The session store fails; the session runs on") == 1
    assert log.count("The session store works again") == 1
    await stage.stop()
    second = start_stage(sim, f"session.store={path}")
    await second.ready()
    assert (sim.identifies, sim.resumed) == (1, 1)


async def test_a_second_user_of_the_token_is_named_in_log_and_verdict(
    sim: Simulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault case 28: Discord's remaining count falls faster than this ledger's own IDENTIFYs. The session stays up."""
    remaining = 1000

    async def look_up() -> GatewayInfo:
        limit = SessionStartLimit(total=1000, remaining=remaining, reset_after_ms=20_000, max_concurrency=1)
        return GatewayInfo(url=sim.gateway_url, shards=1, session_start_limit=limit)

    stage = start_stage(sim, look_up=look_up)
    tracker = await stage.ready()
    assert diagnose(tracker).notes == ()
    remaining = 992  # ours, and seven of another user of the token
    await stage.until(lambda: tracker.ages.in_state > 21.0)  # the window is over: the next IDENTIFY makes a new look-up
    await sim.invalidate()
    await stage.ready(generation=2, within=60.0)
    (note,) = diagnose(tracker).notes
    assert note.startswith("another process uses this token: 7 IDENTIFYs that this store does not count, last seen at ")
    assert diagnose(tracker).healthy
    assert "Another process uses this token identifies=7 in_all=7 remaining=992" in capsys.readouterr().err
    assert "  budget: 991 of 1000 IDENTIFYs left, 100 of them in reserve, until " in repr(tracker)
