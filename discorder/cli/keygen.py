"""`discorder keygen`: a key pair for an encrypted bus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def keygen(
    name: Annotated[Path, typer.Argument(help="NAME.key and NAME.key_secret are written; neither may exist.")],
) -> None:
    """Make a CURVE key pair: one for the bus, and one for each bot that may connect from another host.

    The bus gets curve_secret_file = "NAME.key_secret" and curve_clients = [the bots' public keys]; a bot gets its own
    NAME.key_secret and the bus's public key. The secret file is readable by you alone, and no key is sent anywhere.
    """
    from discorder.curve import generate  # noqa: PLC0415  # only this command needs it

    public_file, secret_file, public = generate(name)
    typer.echo(f"secret  {secret_file} (keep it where it is used)")
    typer.echo(f"public  {public_file}")
    typer.echo(public)
