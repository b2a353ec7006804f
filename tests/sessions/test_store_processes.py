"""The store and the operating system: kill -9, two processes at once, a full disk, a place without write access."""

# ruff: noqa: ASYNC240, ASYNC251  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import itertools
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from discorder.sessions import SqliteSessionStore, StoreState, fitting

MakeStore = Callable[..., Awaitable[SqliteSessionStore]]
StartScript = Callable[..., "subprocess.Popen[str]"]

PREAMBLE = """
import asyncio, os, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from discorder.clock import SystemClock
from discorder.sessions import *

SESSION = StoredSession(0, 1, "s-1", "ws://resume", 0, b"{}", datetime.now(UTC), 513)
LIMIT = StartLimit(1000, 1000, 86_400_000, 1)

async def opened(path):
    store = SqliteSessionStore(Path(path), bot="b" * 64, clock=SystemClock())
    await store.open()
    return store
"""

WRITER = (
    PREAMBLE
    + """
async def main(path):
    store = await opened(path)
    await store.hold([(0, 1)])
    gate = IdentifyGate(SystemClock(), store, spacing=0.0)
    gate.set_limits(LIMIT)
    for seq in range(1, 100_000):
        ticket = await gate.admit(0)
        if isinstance(ticket, Ticket):
            print("identify", seq, flush=True)  # what a socket would have got
            ticket.sent()
        store.save(replace(SESSION, seq=seq), now=True)
        await store.flush()
        print("saved", seq, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
)

IDENTIFIER = (
    PREAMBLE
    + """
import time

async def main(path, shard, spacing):
    store = await opened(path)
    gate = IdentifyGate(SystemClock(), store, spacing=float(spacing))
    gate.set_limits(LIMIT)
    for _ in range(4):
        ticket = await gate.admit(int(shard))
        print(time.time(), flush=True)
        ticket.sent()
    await gate.close()
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
)

FULL_DISK = (
    PREAMBLE
    + """
import resource

async def main(path):
    store = await opened(path)
    store.save(replace(SESSION, seq=1), now=True)
    await store.flush()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    store.save(replace(SESSION, seq=2), now=True)
    await store.flush()
    print(store.health.state.value, fitting(await store.load_all(), 1, None)[0].seq)
    try:
        await store.transact(lambda ledger: (ledger.sent(0, "t", 1.0), None))
    except Exception as error:
        print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.flush()
    print(store.health.state.value)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
)

FULL_AT_START = (
    PREAMBLE
    + """
import resource

async def main(path):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    store = await opened(path)
    print(store.health.state.value, fitting(await store.load_all(), 1, None))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.save(replace(SESSION, seq=3), now=True)
    await store.flush()
    print(store.health.state.value)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
)

UNPRIVILEGED = (
    PREAMBLE
    + """
import concurrent.futures.thread
from discorder.errors import UnusableFile

async def main(path):
    try:
        store = await opened(path)
    except UnusableFile as error:
        print("UnusableFile", error.exit_code)
        return
    await store.hold([(0, 1)])
    print(store.health.state.value, {key: one.seq for key, one in fitting(await store.load_all(), 1, None).items()})
    store.save(replace(SESSION, seq=50), now=True)
    await store.flush()
    print(store.health.state.value, {key: one.seq for key, one in fitting(await store.load_all(), 1, None).items()})
    await store.close()

if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)  # root may write everywhere
asyncio.run(main(*sys.argv[1:]))
"""
)


def output(process: subprocess.Popen[str]) -> list[str]:
    text, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return text.splitlines()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that another user can reach; pytest's usual ones are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        yield made
        made.chmod(0o755)


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 10, 40])
async def test_kill_9_leaves_a_sound_store_that_under_counts_nothing(
    make_store: MakeStore, start_script: StartScript, path: Path, lines: int
) -> None:
    """Fault case 9: every save and every payment that was confirmed is in the file."""
    writer = start_script(WRITER, path)
    assert writer.stdout is not None
    told = [writer.stdout.readline().split() for _ in range(lines)]
    time.sleep(lines % 4 * 0.0007)  # at another moment of the next write
    writer.kill()
    told += [line.split() for line in writer.stdout.read().splitlines() if len(line.split()) == 2]
    writer.wait()

    store = await make_store()
    assert store.health.state is StoreState.OK
    saved = [int(seq) for what, seq in told if what == "saved"]
    identifies = [seq for what, seq in told if what == "identify"]
    loaded = fitting(await store.load_all(), 1, None)
    if saved:
        assert loaded[0].seq >= saved[-1]
    ledger = await store.transact(lambda ledger: (ledger, ledger))
    assert len(ledger.debits) >= len(identifies) > 0
    await store.hold([(0, 1)])


async def test_two_processes_never_identify_within_a_spacing_of_one_bucket(
    start_script: StartScript, path: Path
) -> None:
    spacing = 0.15
    processes = [start_script(IDENTIFIER, path, shard, spacing) for shard in (0, 1)]
    sends = sorted(float(line) for process in processes for line in output(process))
    assert len(sends) == 8
    assert min(later - earlier for earlier, later in itertools.pairwise(sends)) >= spacing - 0.001


async def test_two_processes_that_start_at_once_make_one_store(
    make_store: MakeStore, start_script: StartScript, path: Path
) -> None:
    for process in [start_script(IDENTIFIER, path, shard, 0.0) for shard in range(3)]:
        output(process)
    ledger = await (await make_store()).transact(lambda ledger: (ledger, ledger))
    assert len(ledger.debits) == 12


async def test_on_a_full_disk_the_session_runs_on(make_store: MakeStore, start_script: StartScript, path: Path) -> None:
    assert output(start_script(FULL_DISK, path)) == ["failing 2", "StoreUnavailable", "ok"]
    assert fitting(await (await make_store()).load_all(), 1, None)[0].seq == 2


async def test_a_disk_that_is_full_at_start_is_no_reason_not_to_start(
    make_store: MakeStore, start_script: StartScript, path: Path
) -> None:
    path.parent.mkdir()
    assert output(start_script(FULL_AT_START, path)) == ["failing {}", "ok"]
    assert fitting(await (await make_store()).load_all(), 1, None)[0].seq == 3


@pytest.mark.parametrize("read_only", ["file", "directory"])
async def test_a_read_only_store_is_read_and_the_session_runs_on(
    make_store: MakeStore, start_script: StartScript, public_directory: Path, read_only: str
) -> None:
    """Fault case 25."""
    place = public_directory / "s.sqlite3"
    store = await make_store(at=place)
    await store.close()
    output(start_script(PREAMBLE + SAVE_ONE, place))
    for file in public_directory.iterdir():
        if file.is_file():
            file.chmod(0o444)
        else:
            for inner in file.iterdir():
                inner.chmod(0o666)
            file.chmod(0o777 if read_only == "file" else 0o555)
    public_directory.chmod(0o777 if read_only == "file" else 0o555)
    assert output(start_script(UNPRIVILEGED, place)) == ["failing {0: 41}", "failing {0: 50}"]


async def test_where_nothing_may_be_made_it_does_not_start(start_script: StartScript, public_directory: Path) -> None:
    public_directory.chmod(0o555)
    assert output(start_script(UNPRIVILEGED, public_directory / "new" / "s.sqlite3")) == ["UnusableFile 74"]
    assert not list(public_directory.iterdir())


SAVE_ONE = """
async def main(path):
    store = await opened(path)
    store.save(replace(SESSION, seq=41))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
