"""`discorder diagram`: the pictures of the life cycle, drawn from the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from discorder.errors import UnusableFile
from discorder.pictures import PictureFormat, check_all, render, write_all


def diagram(
    format: Annotated[PictureFormat, typer.Option("--format", help="What to draw.")] = PictureFormat.SVG,  # noqa: A002
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="F", help="A file; or a folder, for the whole set that the project keeps."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 when the set in the folder (default: diagrams) is outdated."
        ),
    ] = False,
) -> None:
    """Draw the life cycle of a session from the transition table: the state diagram, or its tables as Markdown."""
    if check:
        _check(Path("diagrams") if output is None else output)
    elif output is not None and output.is_dir():
        write_all(output)
    else:
        _write(render(format), output)


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
