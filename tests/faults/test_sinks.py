"""Cases 50 to 52: what a sink raises, and what may be wrong with its file. And 16 once more: a stop while a sink is opened."""

from __future__ import annotations

import asyncio
import csv
import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from discorder import is_operational
from discorder.publishers.delivery.health import PublisherState
from discorder.simulator import Simulator
from tests.commandline import Command
from tests.faults.fault import FREE, Fault, Seen, loss, say, told
from tests.faults.spool import Spool
from tests.faults.table import Case
from tests.harness import StartStage


class Panic(BaseException):
    """What an extension module raises when its Rust panics is no `Exception` either."""


# ---------------------------------------------------------------- 50


@pytest.mark.parametrize("policy", ["overflow=drop_oldest", "required=true"])
@pytest.mark.parametrize(
    "error",
    [Panic("index out of bounds"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
async def test_50_a_sink_raises_what_is_no_exception(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    spools: Mapping[str, Spool],
    error: BaseException,
    policy: str,
) -> None:
    """The sink gets every event, the connection stays, and its health shows the failures."""
    stage = start_stage(sim, "publishers.rusty.kind=spool", f"publishers.rusty.{policy}")
    tracker = await stage.ready()
    rusty = spools["rusty"]
    await stage.until(lambda: rusty.seen == told(sim))
    rusty.errors = [error] * 3
    fault = Fault(case, sim, stage, [rusty])
    await say(sim, 20)
    await stage.until(lambda: rusty.seen == told(sim))
    fault.over()
    (health,) = (one for one in tracker.publisher_health if one.name == "rusty")
    assert (health.state, health.failures, health.dropped) == (PublisherState.HEALTHY, 3, 0)
    assert health.last_error
    assert is_operational(tracker)
    assert await fault.cost() == FREE
    assert sim.connects == 1


# ---------------------------------------------------------------- 51


async def test_51_the_file_of_a_required_sink_cannot_be_renamed(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every event is in the one file, and the resume point has moved with it."""
    path = tmp_path / "events.tsv"
    real = Path.replace

    def refuse(self: Path, target: str | Path) -> Path:
        if self == path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    settings = ["kind=delimited_file", f"path={path}", "required=true", "rotate_bytes=2000", "max_events=5"]
    stage = start_stage(sim, *(f"publishers.audit.{setting}" for setting in settings))
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    for _ in range(20):
        await say(sim, 5)
        await stage.until(lambda: seen_in(path) == told(sim))
    fault.over()
    assert fault.paid(loss(told(sim), seen_in(path))) == FREE
    assert names_in(tmp_path) == ["events.tsv"]
    assert (sim.connects, tracker.stats.restart_count) == (1, 0)
    await stage.stop()
    assert "cannot rotate" in capsys.readouterr().err


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("events.tsv*")]


def seen_in(path: Path) -> list[Seen]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row[2], int(row[4]), row[0]) for row in csv.reader(file, delimiter="\t") if row[4]]


# ---------------------------------------------------------------- 52


@pytest.mark.system
@pytest.mark.parametrize("by", ["name", "link"])
async def test_52_the_path_of_a_sink_names_somebody_elses_file(
    case: Case, discorder: Command, tmp_path: Path, by: str
) -> None:
    """One clear error, exit code 74, not a byte is changed, and no request to Discord."""
    theirs = tmp_path / "passwords"
    theirs.write_text("hunter2")
    path = theirs if by == "name" else tmp_path / "events.tsv"
    if by == "link":
        path.symlink_to(theirs)
    async with Simulator() as sim:
        settings = (
            f"gateway.api={sim.api_url}",
            "publishers.audit.kind=delimited_file",
            f"publishers.audit.path={path}",
        )
        arguments = [word for setting in settings for word in ("--set", setting)]
        outcome = await discorder("serve", *arguments, token=sim.token)
        assert (sim.connects, sim.rest_requests) == (0, [])
    said = " ".join(outcome.err.split())
    assert outcome.code == 74, outcome.err
    assert f"publishers.audit.path: cannot append to {path}: it is not a file of this publisher" in said
    assert "Traceback" not in said
    assert theirs.read_text() == "hunter2"
    case.note(note=f"exit code {outcome.code}")


# ---------------------------------------------------------------- 16


@pytest.mark.parametrize("stubborn", [False, True], ids=["hangs", "ignores its cancellation"])
async def test_16_a_stop_while_a_sink_is_opened(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    spools: Mapping[str, Spool],
    monkeypatch: pytest.MonkeyPatch,
    *,
    stubborn: bool,
) -> None:
    """Its broker does not answer; the stop does not wait for the 30 s that it may take."""
    released = asyncio.Event()

    async def open_for_ever(self: Spool) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    monkeypatch.setattr(Spool, "open", open_for_ever)
    stage = start_stage(sim, "publishers.slow.kind=spool")
    await stage.until(lambda: "slow" in spools)
    await stage.spend(1.0)
    began = stage.clock.monotonic()
    stage.task.cancel()
    await stage.until(stage.task.done, while_running=False)
    assert stage.task.cancelled()
    assert stage.clock.monotonic() - began <= 1.0
    assert sim.connects == 0
    case.note(recovery=stage.clock.monotonic() - began)
    released.set()
