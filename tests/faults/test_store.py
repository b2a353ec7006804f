"""Cases 25, 43 and 44: a session store that is full, read-only, damaged or newer, that is somebody else's or was forged, and
sessions whose ids were there before.
"""

# ruff: noqa: ASYNC110, ASYNC240  # it is about files and about other processes

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from discorder import diagnose
from discorder.simulator import Simulator
from discorder.wire import session_label
from tests.commandline import Command
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import Stage, StartStage

ROOT = Path(__file__).parents[2]
Cripple = Callable[..., Awaitable["Crippled"]]


class Crippled:
    """A control plane in a process of its own, controlled by words on its standard input."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    async def report(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.tell("report")
        async with asyncio.timeout(60):
            return dict(json.loads(await self.process.stdout.readline()))

    async def reports(self, text: str) -> dict[str, Any]:
        """The first report that has ``text`` in the listing of the tracker."""
        async with asyncio.timeout(60):
            while text not in (report := await self.report())["tracker"]:
                await asyncio.sleep(0.02)
        return report

    async def end(self) -> str:
        """Stop it; what it wrote to its console."""
        self.tell("stop")
        async with asyncio.timeout(60):
            _, log = await self.process.communicate()
        assert self.process.returncode == 0, log.decode()
        return log.decode()


@pytest.fixture
async def real() -> AsyncIterator[Simulator]:
    """A simulator on the real clock, for a process."""
    async with Simulator(guilds=1, identify_spacing=0.0) as simulator:
        yield simulator


@pytest.fixture
async def cripple(real: Simulator, environment: dict[str, str]) -> AsyncIterator[Cripple]:
    """Starts a control plane whose store lies at a path."""
    started: list[Crippled] = []

    async def start(store: Path, how: str = "") -> Crippled:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.crippled", real.api_url, str(store), how),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"DISCORD_BOT_TOKEN": real.token},
            cwd=ROOT,
        )
        started.append(Crippled(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.communicate()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        yield made
        made.chmod(0o755)


async def survives_a_drop(sim: Simulator) -> None:
    """The session is resumed, whatever the store does."""
    before = sim.resumed
    await sim.drop()
    await sim.wait_for(lambda: sim.resumed == before + 1, timeout=60)


@pytest.mark.system
async def test_25_the_disk_is_full(case: Case, cripple: Cripple, real: Simulator, tmp_path: Path) -> None:
    """In the middle of the run, really full: nothing of the store may grow. Logged once, and once more when it is over."""
    plane = await cripple(tmp_path / "sessions.sqlite3")
    assert (await plane.reports("store: ok"))["notes"] == []
    plane.tell("fill")
    await say(real)
    report = await plane.reports("store: failing")
    assert report["healthy"]
    assert "sessions.sqlite3" in report["notes"][0]
    await survives_a_drop(real)
    plane.tell("free")
    assert (await plane.reports("store: ok"))["notes"] == []
    log = await plane.end()
    assert log.count("The session store fails; the session runs on") == 1
    assert real.identifies == 1
    case.note(identifies=real.identifies - 1)


@pytest.mark.system
async def test_25_the_disk_is_full_at_start(case: Case, cripple: Cripple, real: Simulator, tmp_path: Path) -> None:
    """A fresh look-up pays for the IDENTIFY; once there is room the session is stored, and the next process resumes it."""
    path = tmp_path / "sessions.sqlite3"
    plane = await cripple(path, "full")
    assert (await plane.reports("store: failing"))["healthy"]
    await survives_a_drop(real)
    plane.tell("free")
    await plane.reports("store: ok")
    await plane.end()
    second = await cripple(path)
    await second.reports("store: ok")
    await second.end()
    assert (real.identifies, real.resumed) == (1, 2)
    case.note(identifies=real.identifies - 1)


@pytest.mark.system
async def test_25_the_store_is_read_only(case: Case, cripple: Cripple, real: Simulator, public_folder: Path) -> None:
    """What it holds is resumed; what comes later cannot be written, and the status says so."""
    path = public_folder / "sessions.sqlite3"
    first = await cripple(path)
    await first.reports("store: ok")
    await first.end()
    for file in sorted(public_folder.rglob("*"), reverse=True):
        file.chmod(0o555 if file.is_dir() else 0o444)
    public_folder.chmod(0o555)
    plane = await cripple(path, "unprivileged")
    report = await plane.reports("store: failing")
    assert report["healthy"]
    assert str(path) in report["notes"][0]
    await survives_a_drop(real)
    await plane.end()
    for file in public_folder.rglob("*"):
        file.chmod(0o755)
    warm_up = 1  # `crippled` lives once without a store before it gives up its rights
    assert (real.identifies, real.resumed) == (1 + warm_up, 2)
    case.note(identifies=real.identifies - 1 - warm_up)


def make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {0x44534352}")
    connection.execute("PRAGMA user_version = 99")
    connection.execute("CREATE TABLE session (of_the_future TEXT)")
    connection.commit()
    connection.close()


def make_damaged(path: Path) -> None:
    path.write_bytes(b"not a database, and longer than a header would be " * 40)


@pytest.mark.parametrize(
    ("make", "state"), [(make_damaged, "set aside: "), (make_newer, "unusable: ")], ids=["damaged", "newer"]
)
async def test_25_the_store_is_damaged_or_newer(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    tmp_path: Path,
    make: Callable[[Path], None],
    state: str,
) -> None:
    """A damaged one is set aside, one of a newer version is left alone, neither is trusted; the session begins anew and lives."""
    path = tmp_path / "sessions.sqlite3"
    make(path)
    before = path.read_bytes()
    stage = start_stage(sim, f"session.store={path}")
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    assert f"  store: {state}" in repr(tracker)
    assert len(diagnose(tracker).notes) == 1
    assert diagnose(tracker).healthy
    await sim.drop()
    await say(sim)
    await fault.recovered(2)
    assert await fault.cost() == FREE
    await stage.stop()
    kept = path if make is make_newer else next(tmp_path.glob("sessions.sqlite3.corrupt-*"))
    assert kept.read_bytes() == before


async def test_25_a_damaged_file_is_put_in_the_place_of_the_store(
    case: Case, sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """While it runs, as by a restored backup: set aside, and a new one holds the session, which the next life resumes."""
    path = tmp_path / "sessions.sqlite3"
    stage = start_stage(sim, f"session.store={path}")
    tracker = await stage.ready()
    await stage.until(lambda: "  store: ok" in repr(tracker))
    lives = [stage.recorder]
    fault = Fault(case, sim, stage, lives)
    restored = tmp_path / "restored"
    make_damaged(restored)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    restored.replace(path)
    await say(sim)
    await stage.until(lambda: "  store: set aside" in repr(tracker))
    assert diagnose(tracker).healthy
    assert list(tmp_path.glob("sessions.sqlite3.corrupt-*"))
    await stage.stop()
    second = start_stage(sim, f"session.store={path}")
    lives.append(second.recorder)
    await second.ready()
    assert await fault.cost() == FREE
    assert sim.resumed == 1


# ---------------------------------------------------------------- 43


@pytest.mark.system
@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
async def test_43_every_user_may_write_the_store(
    case: Case, discorder: Command, real: Simulator, tmp_path: Path, suffix: str
) -> None:
    """Or a journal beside it, which SQLite would copy into it: exit code 74, no change, and no request to Discord."""
    path = tmp_path / f"sessions.sqlite3{suffix}"
    path.touch()
    path.chmod(0o666)
    settings = (
        f"gateway.api={real.api_url}",
        f"session.store={tmp_path / 'sessions.sqlite3'}",
        "publishers.sink.kind=channel",
    )
    outcome = await discorder("serve", *(word for one in settings for word in ("--set", one)), token=real.token)
    assert outcome.code == 74, outcome.err
    said = " ".join(outcome.err.split())
    assert f"the session store {path} can be written by every user" in said
    assert "Traceback" not in said
    assert (path.stat().st_size, real.connects, real.rest_requests) == (0, 0, [])
    case.note(note=f"exit code {outcome.code}")


@pytest.mark.parametrize("column", ["resume_url", "session_id", "seq"])
async def test_43_somebody_changed_what_is_stored(
    case: Case,
    start_simulator: Callable[..., Awaitable[Simulator]],
    start_stage: StartStage,
    tmp_path: Path,
    column: str,
) -> None:
    """A row that the token did not sign is no session: the host that it names gets no RESUME, and a new session begins."""
    sim, theirs = await start_simulator(), await start_simulator()
    path = tmp_path / "sessions.sqlite3"
    first = start_stage(sim, f"session.store={path}")
    await first.ready()
    await first.stop()
    values = {"resume_url": f"'{theirs.gateway_url}'", "session_id": "'s-1'", "seq": "1"}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE session SET {column} = {values[column]}")  # noqa: S608  # constants
    second = start_stage(sim, f"session.store={path}")
    fault = Fault(case, sim, second, [first.recorder, second.recorder])
    await fault.recovered(within=60.0)
    assert await fault.cost() == (1, 0, 0)
    assert (sim.resumes, theirs.connects, theirs.rest_requests) == (0, 0, [])
    assert [record.type for record in second.recorder.records].count("DISCORDER_GAP") == 1


# ---------------------------------------------------------------- 44


@pytest.mark.parametrize("restarts", ["over restarts of the control plane", "in one process"])
async def test_44_a_restarted_server_gives_the_ids_of_its_sessions_again(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restarts: str,
) -> None:
    """A READY that does not answer a RESUME begins a new session, whatever its id: the loss of the old one is told, and its
    events have a label of their own, so that nobody takes them for repetitions.
    """
    monkeypatch.setattr("discorder.simulator.gateway.secrets.token_hex", lambda _: "0" * 32)
    store = f"session.store={tmp_path / 'sessions.sqlite3'}"
    stage = start_stage(sim, store)
    await stage.ready()
    labels = [session_label("0" * 32, ordinal) for ordinal in range(3)]
    for ordinal, label in enumerate(labels):
        await labelled(stage, label, 3)
        await say(sim)
        await labelled(stage, label, 6)
        assert stage.tracker.session_label == label
        if ordinal:
            gap = [json.loads(record.document) for record in stage.recorder.records if record.type == "DISCORDER_GAP"][
                -1
            ]
            assert (gap["session"], gap["data"]["kind"], gap["data"]["to_seq"]) == (
                labels[ordinal - 1],
                "session",
                None,
            )
        if label == labels[-1]:
            break
        await sim.forget_sessions()
        if restarts == "in one process":
            await sim.drop()
        else:
            await stage.stop()
            stage = start_stage(sim, store)
    assert sim.identifies == 3
    case.note(identifies=1, lost=0, duplicates=0, note="one IDENTIFY and one gap each time")


async def labelled(stage: Stage, label: str, count: int) -> None:
    """Wait until ``count`` events of a session were published."""
    await stage.until(lambda: [event.session for event in stage.recorder.events].count(label) == count, within=60.0)
