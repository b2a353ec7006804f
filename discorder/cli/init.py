"""`discorder init`: write a configuration in which every key is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discorder.errors import ConfigError, UnusableFile


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.")] = Path("discorder.toml"),
    dev: Annotated[
        bool, typer.Option("--dev", help="For development: ends on the first failure, logs everything.")
    ] = False,
) -> None:
    """Write a configuration file in which every key is explained, ready for `discorder serve --config FILE`."""
    from discorder.config import sample_config  # noqa: PLC0415  # only this command needs it

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(sample_config("dev" if dev else "prod"))
    except FileExistsError:
        msg = f"{file} exists; name another file, or remove it first"
        raise ConfigError(msg) from None
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}"
        raise UnusableFile(msg) from error
    typer.echo(f"wrote {file}; look it over, then: discorder check-config {file}")
