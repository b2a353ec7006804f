"""`discorder check-config`: validate a configuration and say what would run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discorder.cli.serve import Overrides


def check_config(
    file: Annotated[Path, typer.Argument(help="The TOML file to check.")],
    overrides: Overrides = None,
) -> None:
    """Validate a configuration and print what would run with it. Opens nothing, connects to nothing; 78 if it is wrong."""
    from discorder.config import load_config  # noqa: PLC0415  # only this command needs it
    from discorder.config.report import describe  # noqa: PLC0415

    typer.echo(describe(load_config(file, overrides or ())))
