"""One owner per shard (fault cases 27 and 29): real locks, real processes."""

# ruff: noqa: ASYNC220, ASYNC240  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from discorder.clock import FakeClock, SystemClock
from discorder.errors import StoreLocked
from discorder.sessions import ShardLocks, SqliteSessionStore, hold_shards

BOT, OTHER_BOT = "a" * 64, "b" * 64
Shard = tuple[int, int]
StartScript = Callable[..., "subprocess.Popen[str]"]

HOLDER = """
import asyncio, signal, sys
from pathlib import Path
from discorder.clock import SystemClock
from discorder.sessions import hold_shards

async def main(directory, how):
    locks = await hold_shards(Path(directory), "a" * 64, [(0, 2), (1, 2)], clock=SystemClock())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, (lambda: None) if how == "deaf" else stop.set)
    print("held", flush=True)
    await stop.wait()
    locks.release()
    print("handed over", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "s.sqlite3.locks"


async def held(directory: Path, *shards: Shard, bot: str = BOT) -> ShardLocks:
    return await hold_shards(directory, bot, shards, clock=FakeClock())


def started(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


@pytest.mark.parametrize(
    ("mine", "theirs", "free"),
    [
        ((0, 1), (0, 1), False),
        ((0, 2), (1, 2), True),
        ((0, 1), (3, 16), False),
        ((3, 16), (0, 1), False),
        ((0, 2), (2, 4), False),
        ((0, 2), (1, 4), True),
        ((1, 4), (1, 6), False),
        ((0, 4), (1, 6), True),
    ],
)
async def test_shards_exclude_each_other_if_they_share_a_guild(
    directory: Path, mine: Shard, theirs: Shard, free: bool
) -> None:
    first = await held(directory, mine)
    if free:
        (await held(directory, theirs)).release()
    else:
        with pytest.raises(StoreLocked):
            await held(directory, theirs)
    first.release()


async def test_other_bots_do_not_matter(directory: Path) -> None:
    mine, theirs = await held(directory, (0, 1)), await held(directory, (0, 1), bot=OTHER_BOT)
    mine.release()
    theirs.release()


async def test_after_a_release_the_shard_is_free_and_releasing_twice_is_no_error(directory: Path) -> None:
    first = await held(directory, (0, 1))
    first.release()
    first.release()
    (await held(directory, (0, 1))).release()


async def test_all_or_none(directory: Path) -> None:
    """A process that cannot lock one of its shards releases all the others."""
    mine = await held(directory, (1, 4))
    with pytest.raises(StoreLocked):
        await held(directory, (0, 4), (1, 4), (2, 4))
    (await held(directory, (0, 4), (2, 4))).release()
    mine.release()


async def test_lock_files_of_an_old_layout_are_swept_up(directory: Path) -> None:
    (await held(directory, *((shard, 8) for shard in range(8)))).release()
    now = await held(directory, (0, 1))
    assert [path.name for path in directory.glob("*.lock")] == [f"{'a' * 16}-0of1.lock"]
    now.release()


async def test_the_error_names_process_age_file_and_remedies(directory: Path, start_script: StartScript) -> None:
    holder = start_script(HOLDER, directory, "willing")
    started(holder)
    with pytest.raises(StoreLocked) as caught:
        await hold_shards(directory, BOT, [(1, 2)], clock=SystemClock())
    text = str(caught.value)
    assert caught.value.pid == holder.pid
    assert caught.value.exit_code == 73
    for part in (
        f"process {holder.pid} since 20",
        "0 s)",
        f"{'a' * 16}-1of2.lock",
        "shards 0, 1 of 2",
        "--take-over",
        "store",
    ):
        assert part in text


async def test_a_lock_file_that_says_nothing_readable_still_locks(directory: Path) -> None:
    mine = await held(directory, (0, 1))
    (directory / f"{'a' * 16}-0of1.lock").write_text('{"pid": null}')
    with pytest.raises(StoreLocked, match="another process") as caught:
        await held(directory, (0, 1))
    assert caught.value.pid is None
    mine.release()


async def test_kill_9_frees_the_lock(directory: Path, start_script: StartScript) -> None:
    holder = start_script(HOLDER, directory, "willing")
    started(holder)
    holder.kill()
    holder.wait()
    (await held(directory, (0, 2))).release()


async def test_take_over_asks_the_holder_and_waits_until_it_has_left(
    directory: Path, start_script: StartScript
) -> None:
    holder = start_script(HOLDER, directory, "willing")
    started(holder)
    locks = await hold_shards(directory, BOT, [(0, 1)], clock=SystemClock(), take_over=True)
    assert holder.wait(timeout=5) == 0
    assert holder.stdout is not None
    assert holder.stdout.read() == "handed over\n"
    locks.release()


async def test_take_over_of_a_holder_that_does_not_leave_ends_after_the_bound(
    directory: Path, start_script: StartScript
) -> None:
    holder = start_script(HOLDER, directory, "deaf")
    started(holder)
    clock = FakeClock()
    taking = asyncio.create_task(hold_shards(directory, BOT, [(0, 2)], clock=clock, take_over=True))
    await clock.advance(29)
    assert not taking.done()
    await clock.advance(2)
    with pytest.raises(StoreLocked, match="asked to hand over and waited 30 s"):
        await taking
    assert holder.poll() is None


async def test_waiting_for_the_holder_signals_nobody(directory: Path) -> None:
    """Fault case 29: the new process waits, and another party stops the old one."""
    mine = await held(directory, (0, 1))
    clock = FakeClock()
    waiting = asyncio.create_task(hold_shards(directory, BOT, [(0, 1)], clock=clock, patience=60.0))
    await clock.advance(50)
    assert not waiting.done()
    mine.release()
    await clock.advance(0.2)
    (await waiting).release()


async def test_take_over_never_signals_this_very_process(directory: Path) -> None:
    mine = await held(directory, (0, 1))
    with pytest.raises(StoreLocked, match="this very process"):
        await hold_shards(directory, BOT, [(0, 1)], clock=FakeClock(), take_over=True)
    mine.release()


@pytest.mark.parametrize(("field", "value"), [("started", 1), ("host", "elsewhere")])
async def test_take_over_never_signals_a_process_that_is_not_surely_the_holder(
    directory: Path, start_script: StartScript, field: str, value: object
) -> None:
    """The process id in the lock file may be that of another process by now, or of another host."""
    holder = start_script(HOLDER, directory, "willing")
    started(holder)
    for path in directory.glob("*.lock"):
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    clock = FakeClock()
    taking = asyncio.create_task(hold_shards(directory, BOT, [(0, 2)], clock=clock, take_over=True))
    await clock.advance(31)
    with pytest.raises(StoreLocked):
        await taking
    assert holder.poll() is None


async def test_a_second_starter_waits_for_the_one_that_is_starting(directory: Path) -> None:
    """The mutex is held only for moments. A process that holds it longer is named."""
    (await held(directory, (0, 1))).release()
    descriptor = os.open(directory / "mutex", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    clock = FakeClock()
    one, two = (
        asyncio.create_task(hold_shards(directory, BOT, [(shard, 2)], clock=clock, patience=patience))
        for shard, patience in ((0, 0.0), (1, 60.0))
    )
    await clock.advance(5.2)
    with pytest.raises(StoreLocked, match="has been starting"):
        await one
    os.close(descriptor)
    await clock.advance(0.2)
    (await two).release()


async def test_nobody_else_starts_while_shards_are_taken(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files of another layout are removed at that time; none of them may be another process's new lock."""
    (await held(directory, (0, 4), (1, 2))).release()
    lock, mutex = fcntl.flock, directory / "mutex"
    alone: list[bool] = []

    def watched(descriptor: int, operation: int) -> None:
        if os.fstat(descriptor).st_ino != mutex.stat().st_ino:
            other = os.open(mutex, os.O_RDWR)
            try:
                lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone.append(True)
            else:
                alone.append(False)
            finally:
                os.close(other)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", watched)
    (await held(directory, (0, 1))).release()
    assert alone == [True] * 3, "the shard itself, and two of other layouts"


async def test_a_store_holds_its_shards_until_it_is_closed(tmp_path: Path) -> None:
    path, clock = tmp_path / "s.sqlite3", FakeClock()
    one, two = (SqliteSessionStore(path, bot=BOT, clock=clock) for _ in range(2))
    await one.open()
    await two.open()
    await one.hold([(0, 1)])
    with pytest.raises(StoreLocked):
        await two.hold([(0, 1)])
    await one.close()
    await two.hold([(0, 1)])
    await two.close()


async def test_a_child_process_does_not_inherit_a_lock(directory: Path) -> None:
    mine = await held(directory, (0, 1))
    child = subprocess.Popen(["sleep", "60"])
    mine.release()
    (await held(directory, (0, 1))).release()
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGKILL)
    child.wait()
