"""Draw pictures of the life cycle, of runs of the machine, and of the package: `discorder diagram`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import typer

from discorder.config import load_config
from discorder.errors import UnusableFile
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.render import check_all, render
from discorder.pictures.trace_path import PathStep, TracePath
from discorder.proofs.traces import TraceStep, read_runs
from discorder.replaying import replay
from discorder.statemachine import State
from discorder.tracking.shard_tracker import Transition
from discorder.transport.recorded import Recording, is_recording

_SILENT = ("publishers={}", "log.level=critical")  # only the steps are wanted of a replay


def draw(
    subject: Subject,
    picture_format: PictureFormat,
    output: Path | None,
    *,
    highlight: str | None,
    trace: Path | None,
    shard: int,
) -> None:
    """Write one picture to ``output``, or to stdout."""
    if highlight is not None and highlight not in {*State}:
        msg = f"--highlight: there is no state {highlight!r}; allowed: {', '.join(State)}"
        raise typer.BadParameter(msg)
    taken = None if trace is None else _path_of(trace, shard)
    _write(render(subject, picture_format, None if highlight is None else State(highlight), taken), output)


def _path_of(recorded: Path, shard: int) -> TracePath:
    """The steps of ``shard``: of a recorded session by a replay, of a trace as `discorder verify` reads it its last run."""
    runs = _replayed(Recording.load(recorded)) if is_recording(recorded) else _traced(recorded)
    if shard not in runs:
        msg = f"{recorded} has no shard {shard}; there are: {', '.join(map(str, runs))}"
        raise typer.BadParameter(msg)
    return TracePath(recorded.name, runs[shard])


def _replayed(recording: Recording) -> dict[int, list[PathStep]]:
    tracker = asyncio.run(replay(recording, load_config(None, _SILENT))).tracker
    return {shard.shard_id: [_step(step) for step in shard.transitions] for shard in tracker.shards}


def _traced(path: Path) -> dict[int, list[PathStep]]:
    return {shard: [_step(step) for step in runs[-1]] for shard, runs in read_runs(path).items()}


def _step(step: Transition | TraceStep) -> PathStep:
    return PathStep(step.source, step.trigger, step.target)


def check_folder(folder: Path) -> None:
    """Exit with 1 when a picture in ``folder`` is outdated."""
    findings = check_all(folder)
    for finding in findings:
        typer.echo(finding, err=True)
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{folder} is up to date")


def _write(picture: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(picture)
        return
    try:
        output.write_bytes(picture)
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise UnusableFile(msg) from error
