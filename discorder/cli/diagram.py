"""`discorder diagram`: the pictures of the life cycle, of runs of the machine, and of the package."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discorder.errors import UnusableFile
from discorder.pictures import PictureFormat, Subject, Trail, Visit, check_all, render, write_all
from discorder.statemachine import State

if TYPE_CHECKING:
    from discorder.proofs.traces import Recorded
    from discorder.transport import Recording

_SILENT = ("publishers={}", "log.level=critical")  # only the steps are wanted of a replay


def diagram(
    subject: Annotated[Subject, typer.Argument(help="What to draw.")] = Subject.LIFE_CYCLE,
    format: Annotated[PictureFormat, typer.Option("--format", help="How to draw it.")] = PictureFormat.SVG,  # noqa: A002
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="F", help="A file; or a folder, for the whole set that the project keeps."
        ),
    ] = None,
    highlight: Annotated[
        State | None, typer.Option("--highlight", help="Mark this state in the picture of the life cycle.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Draw the path that a recorded session took through the life cycle, or a trace as 'discorder verify' reads it.",
        ),
    ] = None,
    shard: Annotated[int, typer.Option(min=0, help="Whose path, where several shards were recorded.")] = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 when the set in the folder (default: diagrams) is outdated."
        ),
    ] = False,
) -> None:
    """Draw the life cycle of a session from the transition table, sequence diagrams from runs of the machine, or the package."""
    if check:
        _check(Path("diagrams") if output is None else output)
    elif output is not None and output.is_dir():
        write_all(output)
    elif subject is not Subject.LIFE_CYCLE and (highlight is not None or trace is not None):
        msg = f"--highlight and --trace belong to the picture of the life cycle, not to {subject}"
        raise typer.BadParameter(msg)
    else:
        trail = None if trace is None else _trail(trace, shard)
        _write(render(subject, format, highlight, trail), output)


def _trail(recorded: Path, shard: int) -> Trail:
    """The steps of ``shard``: of a recorded session by a replay, of a trace as `discorder verify` reads it its last run."""
    from discorder.transport import Recording, is_recording  # noqa: PLC0415  # a picture without a trace needs no control plane

    runs = _replayed(Recording.load(recorded)) if is_recording(recorded) else _traced(recorded)
    if shard not in runs:
        msg = f"{recorded} has no shard {shard}; there are: {', '.join(map(str, runs))}"
        raise typer.BadParameter(msg)
    return Trail(recorded.name, runs[shard])


def _replayed(recording: Recording) -> dict[int, list[Visit]]:
    from discorder.config import load_config  # noqa: PLC0415
    from discorder.replaying import replay  # noqa: PLC0415

    tracker = asyncio.run(replay(recording, load_config(None, _SILENT))).tracker
    return {shard.shard_id: [_visit(step) for step in shard.transitions] for shard in tracker.shards}


def _traced(path: Path) -> dict[int, list[Visit]]:
    from discorder.proofs.traces import read_runs  # noqa: PLC0415

    return {shard: [_visit(step) for step in runs[-1]] for shard, runs in read_runs(path).items()}


def _visit(step: Recorded) -> Visit:
    return Visit(step.source, step.trigger, step.target)


def _check(folder: Path) -> None:
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
