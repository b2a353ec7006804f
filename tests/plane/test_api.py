"""The public API as a program uses it: on real sockets, against the simulator."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import loguru
import pytest

import discorder
from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.errors import (
    AuthenticationFailed,
    ConfigError,
    FatalCloseError,
    NotRunning,
    NotSharded,
    NotStarted,
    StoreLocked,
    StoreUnavailable,
    TokenMissing,
)
from discorder.plane.session_persistence import NO_CLAIM, Claim
from discorder.publishers.options import EventSelection
from discorder.rest import BotClient
from discorder.sessions.opening import read_store
from discorder.sessions.store import bot_key
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import Event
from tests.harness import Hanging

SECONDS = 60.0


def settings(sim: Simulator, *more: str) -> list[str]:
    return [
        f"gateway.api={sim.api_url}",
        "publishers.sink.kind=channel",
        "session.store=",
        "log.level=error",
        "http.bind=",
        *more,
    ]


def write_config(path: Path, sim: Simulator, store: str = "") -> Path:
    path.write_text(
        f'[gateway]\napi = "{sim.api_url}"\n[log]\nlevel = "error"\n[session]\nstore = "{store}"\n'
        '[http]\nbind = ""\n[publishers.sink]\nkind = "channel"\n'
    )
    return path


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, rate=50) as simulator:
        yield simulator


def start(
    sim: Simulator, ref: discorder.TrackerRef, *more: str, token: str | None = None, claim: Claim = NO_CLAIM
) -> asyncio.Task[None]:
    config = load_config(None, settings(sim, *more))
    client = BotClient(token or sim.token)
    return asyncio.create_task(serve_config(lambda: config, client=client, tracker_ref=ref, claim=claim))


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not predicate():  # noqa: ASYNC110  # a tracker is there to be looked at
            await asyncio.sleep(0.01)


class EarlyRef(discorder.TrackerRef):
    """Adds a publisher before the first dial, so that it gets every event of the run."""

    def __init__(self, publisher: discorder.ChannelEventPublisher) -> None:
        super().__init__()
        self._publisher = publisher

    def fill(self, tracker: GatewayTracker) -> None:
        tracker.add_publisher(self._publisher)
        super().fill(tracker)


class Raising:
    """A publisher that raises on every event."""

    name = "raising"
    durable = False

    def __init__(self) -> None:
        self.tries = 0

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        self.tries += len(events)
        msg = "no"
        raise RuntimeError(msg)

    async def close(self) -> None: ...


async def test_one_publisher_raises_another_hangs_and_the_third_gets_every_event() -> None:
    """The session and its heartbeats go on as well."""
    async with Simulator(guilds=1, rate=100, heartbeat_interval_ms=200) as sim:
        ref = discorder.TrackerRef()
        plane = start(sim, ref)
        tracker = await ref.ready(SECONDS)
        raising, channel = Raising(), discorder.ChannelEventPublisher(name="third")
        for publisher in (raising, Hanging(), channel):
            tracker.add_publisher(publisher)
        first = (await channel.get()).seq or 0
        await until(lambda: tracker.stats.heartbeat_received_count >= 5 and raising.tries > 1)
        await discorder.shutdown(tracker)
        await plane
        got = [first] + [(await channel.get()).seq for _ in range(len(channel))]
        assert got == list(range(first, tracker.stats.published_event_count + 1))
        assert tracker.stats.restart_count == 0
        assert sim.connects == 1


async def test_a_publisher_survives_a_restart_of_the_session(sim: Simulator) -> None:
    ref = discorder.TrackerRef()
    plane = start(sim, ref)
    tracker = await ref.ready(SECONDS)
    channel = discorder.ChannelEventPublisher(name="mine")
    tracker.add_publisher(channel, events=["MESSAGE_*"])
    await sim.drop()
    await until(lambda: tracker.stats.resume_count == 1)
    event = await channel.get()
    assert event.type.startswith("MESSAGE_")
    with pytest.raises(ValueError, match="already"):
        tracker.add_publisher(discorder.ChannelEventPublisher(name="mine"))
    tracker.remove_publisher("mine")
    with pytest.raises(ValueError, match="sink"):
        tracker.remove_publisher("mine")
    await discorder.shutdown(tracker)
    await plane


async def test_a_publisher_is_added_from_another_thread_with_its_policy_in_words(
    sim: Simulator, tmp_path: Path
) -> None:
    """The publisher is added when the call returns. Contradictory options raise in the calling thread."""
    ref = discorder.TrackerRef()
    plane = start(sim, ref)
    tracker = await ref.ready(SECONDS)
    file = discorder.DelimitedFileEventPublisher(tmp_path / "events.tsv", name="audit")
    channel = discorder.ChannelEventPublisher(name="mine")

    def add() -> None:
        tracker.add_publisher(file, required=True, events=EventSelection(exclude=("TYPING_START",)))
        tracker.add_publisher(channel, overflow="block", events="MESSAGE_CREATE")
        assert {"audit", "mine"} <= {publisher.name for publisher in tracker.publishers}
        with pytest.raises(ValueError, match="already"):
            tracker.add_publisher(discorder.ChannelEventPublisher(name="mine"))
        with pytest.raises(ConfigError, match="contradicts required"):
            tracker.add_publisher(file, name="again", required=True, overflow="drop_newest")
        with pytest.raises(ValueError, match="drop_everything"):
            tracker.add_publisher(file, name="again", overflow="drop_everything")

    await asyncio.to_thread(add)
    assert (await channel.get()).type == "MESSAGE_CREATE"
    assert {health.name for health in tracker.publisher_health if health.required} == {"audit"}
    await asyncio.to_thread(tracker.remove_publisher, "mine")
    await discorder.shutdown(tracker)
    await plane
    rows = (tmp_path / "events.tsv").read_text().splitlines()
    assert rows
    assert not any(row.startswith("TYPING_START") for row in rows)


async def test_the_ref_is_unset_filled_and_told_of_the_end(sim: Simulator) -> None:
    ref = discorder.TrackerRef()
    assert repr(ref) == "TrackerRef(<unset>)"
    with pytest.raises(NotStarted):
        _ = ref.value
    plane = start(sim, ref, token="MTIz.wrong.token")
    with pytest.raises(NotStarted):
        await ref.ready(SECONDS)
    with pytest.raises(AuthenticationFailed):
        await plane
    assert sim.connects == 0


async def test_ready_times_out_while_no_session_comes(sim: Simulator) -> None:
    await sim.withhold_hello()
    ref = discorder.TrackerRef()
    plane = start(sim, ref)
    with pytest.raises(TimeoutError):
        await ref.ready(timeout=0.2)
    assert not discorder.is_operational(ref.value)
    verdict = discorder.diagnose(ref.value)
    assert "Connecting" in verdict.reasons[0]
    await discorder.shutdown(ref.value)
    await plane


async def test_throw_to_says_what_it_cannot_do(sim: Simulator) -> None:
    ref = discorder.TrackerRef()
    plane = start(sim, ref)
    tracker = await ref.ready(SECONDS)
    with pytest.raises(ValueError, match="heartbeat"):
        tracker.throw_to("nurse", RuntimeError())
    await discorder.shutdown(tracker)
    await plane
    with pytest.raises(NotRunning):
        tracker.throw_to("processor", RuntimeError())


async def test_cancelling_serve_is_a_graceful_stop(sim: Simulator) -> None:
    ref = discorder.TrackerRef()
    plane = start(sim, ref)
    await ref.ready(SECONDS)
    plane.cancel()
    with pytest.raises(asyncio.CancelledError):
        await plane
    await sim.wait_for(lambda: sim.closes)
    assert [(close.code, close.by) for close in sim.closes] == [(4000, "client")]
    assert sim.sessions


async def test_four_shards_in_one_process() -> None:
    async with Simulator(guilds=8, rate=100, shards=4, max_concurrency=4) as sim:
        ref = discorder.TrackerRef()
        plane = start(sim, ref)
        tracker = await ref.ready(SECONDS)
        assert [shard.shard_id for shard in tracker.shards] == [0, 1, 2, 3]
        assert [shard.state for shard in tracker.shards] == [State.READY] * 4
        with pytest.raises(NotSharded, match=r"tracker\.shards\[i\]\.seq"):
            _ = tracker.seq
        with pytest.raises(NotSharded):
            discorder.get_status(tracker)
        assert "'Ready': 4" in repr(tracker)
        tracker.throw_to("processor", RuntimeError("one of them"), shard=2)
        await until(lambda: tracker.shards[2].state is not State.READY)
        assert discorder.diagnose(tracker).reasons[0].startswith("shard 2: ")
        await until(lambda: tracker.stats.resume_count == 1)
        assert [shard.stats.restart_count for shard in tracker.shards] == [0, 0, 1, 0]
        await discorder.shutdown(tracker)
        await plane
        assert sim.violations == []
        assert len(sim.sessions) == 4


async def test_a_fatal_close_of_one_shard_ends_the_plane_and_the_others_hand_over() -> None:
    async with Simulator(guilds=4, shards=2, max_concurrency=2) as sim:
        ref = discorder.TrackerRef()
        plane = start(sim, ref)
        await ref.ready(SECONDS)
        await sim.close(4004, shard=1)
        with pytest.raises(FatalCloseError):
            await plane
        await sim.wait_for(lambda: any(close.by == "client" for close in sim.closes))
        assert [close.code for close in sim.closes if close.by == "client"] == [4000]


async def test_serve_leaves_signals_and_the_programs_own_log_alone(sim: Simulator) -> None:
    seen: list[str] = []
    sink = loguru.logger.add(lambda message: seen.append(str(message)))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        ref = discorder.TrackerRef()
        plane = start(sim, ref, "log.level=debug")
        await ref.ready(SECONDS)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        await discorder.shutdown(ref.value)
        await plane
        loguru.logger.info("still there")
    finally:
        loguru.logger.remove(sink)
    assert len(seen) == 1


def test_a_plane_in_the_background_is_run_from_a_plain_thread(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()
    sim = Simulator(guilds=1, rate=50)
    asyncio.run_coroutine_threadsafe(sim.start(), loop).result(SECONDS)
    try:
        handle = discorder.serve_in_background(
            client=BotClient(sim.token), config_file_path=write_config(tmp_path / "config.toml", sim)
        )
        tracker = handle.tracker
        assert isinstance(tracker, GatewayTracker)
        channel = discorder.ChannelEventPublisher()
        tracker.add_publisher(channel)
        assert channel.get_blocking(timeout=SECONDS).shard == (0, 1)
        handle.shutdown()
        assert handle.join(SECONDS)
        assert handle.exception is None
        assert sim.sessions
    finally:
        asyncio.run_coroutine_threadsafe(sim.stop(), loop).result(SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        running.join()
        loop.close()


def test_a_background_start_that_fails_shows_in_the_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISCORD_BOT_TOKEN", raising=False)
    handle = discorder.serve_in_background()
    with pytest.raises(TokenMissing):
        _ = handle.tracker
    assert handle.join(SECONDS)
    assert isinstance(handle.exception, TokenMissing)
    handle.shutdown()


async def test_the_next_process_resumes_where_this_one_stopped(sim: Simulator, tmp_path: Path) -> None:
    """No event is missing, and no second IDENTIFY is spent."""
    seqs: list[int] = []
    for life in (1, 2):
        channel = discorder.ChannelEventPublisher(name="kept")
        ref = EarlyRef(channel)
        plane = start(sim, ref, f"session.store={tmp_path / 'sessions.sqlite'}")
        await ref.ready(SECONDS)
        await until(lambda ref=ref: ref.value.stats.published_event_count > 20)  # type: ignore[misc]  # a default binds the loop's value
        await discorder.shutdown(ref.value)
        await plane
        seqs += [(await channel.get()).seq or 0 for _ in range(len(channel))]
        assert ref.value.stats.identify_count == (1 if life == 1 else 0)
    assert sim.identifies == 1
    assert sim.resumed == 1
    assert seqs == list(range(seqs[0], seqs[-1] + 1))


async def test_a_second_plane_on_the_same_store_is_refused(sim: Simulator, tmp_path: Path) -> None:
    store = f"session.store={tmp_path / 'sessions.sqlite'}"
    ref = discorder.TrackerRef()
    plane = start(sim, ref, store)
    await ref.ready(SECONDS)
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        await start(sim, discorder.TrackerRef(), store)
    assert sim.connects == 1
    await discorder.shutdown(ref.value)
    await plane


async def test_a_plane_that_waits_for_its_shards_can_be_cancelled(sim: Simulator, tmp_path: Path) -> None:
    """Nothing was dialled, and the process that holds the shards is not signalled."""
    store = f"session.store={tmp_path / 'sessions.sqlite'}"
    ref = discorder.TrackerRef()
    plane = start(sim, ref, store)
    await ref.ready(SECONDS)
    waiting = start(sim, discorder.TrackerRef(), store, claim=Claim(patience=600.0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sim.connects == 1
    await discorder.shutdown(ref.value)
    await plane


async def test_a_plane_in_the_background_that_waits_for_its_shards_can_be_shut_down(
    sim: Simulator, tmp_path: Path
) -> None:
    """There is no tracker yet, so the handle stops the plane itself."""
    store = str(tmp_path / "sessions.sqlite")
    ref = discorder.TrackerRef()
    plane = start(sim, ref, f"session.store={store}")
    await ref.ready(SECONDS)
    config = write_config(tmp_path / "config.toml", sim, store)
    handle = discorder.serve_in_background(client=BotClient(sim.token), config_file_path=config, wait=600.0)
    await asyncio.to_thread(handle.shutdown)
    assert handle.exception is None
    with pytest.raises(NotStarted):
        _ = handle.tracker
    assert sim.connects == 1
    await discorder.shutdown(ref.value)
    await plane


def stored_sessions(store: Path, token: str) -> int:
    """Return the number of stored sessions; 0 before there is a store."""
    try:
        return len(read_store(store, bot_key(token)).sessions)
    except StoreUnavailable:
        return 0


@pytest.mark.system
async def test_after_kill_9_the_next_process_resumes(sim: Simulator, tmp_path: Path) -> None:
    store = tmp_path / "sessions.sqlite"
    config = write_config(tmp_path / "config.toml", sim, str(store))
    code = f"import discorder; discorder.run(config_file_path={str(config)!r})"
    for life in (1, 2, 3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env=os.environ | {"DISCORD_BOT_TOKEN": sim.token}
        )
        await sim.wait_for(lambda life=life: sim.identifies + sim.resumed == life, timeout=60)  # type: ignore[misc]
        async with asyncio.timeout(60):
            while not stored_sessions(store, sim.token):  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
    assert (sim.identifies, sim.resumed) == (1, 2)


async def test_run_in_another_thread_names_what_works_there(sim: Simulator, tmp_path: Path) -> None:
    """Flask, Streamlit and GUIs call it there: signals belong to the main thread, and the error names the alternative."""
    config = write_config(tmp_path / "config.toml", sim)
    ref = discorder.TrackerRef()
    with pytest.raises(RuntimeError, match=r"main thread.*serve_in_background"):
        await asyncio.to_thread(discorder.run, client=BotClient(sim.token), tracker_ref=ref, config_file_path=config)
    with pytest.raises(RuntimeError, match="serve_in_background"):
        await asyncio.to_thread(ref.wait)
    assert sim.connects == 0
