"""What the commands that connect to a bus have in common: its address, and keys where it asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discorder.bot.sockets import CurveKeys

Address = Annotated[str, typer.Argument(help="Where the control plane publishes.")]
ServerKey = Annotated[
    str | None, typer.Option("--server-key", metavar="KEY", help="For a bus with CURVE: its public key, 40 characters.")
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file", metavar="FILE", help="For a bus with CURVE: your own key file, from discorder keygen."
    ),
]


def keys_of(server_key: str | None, secret_file: Path | None) -> CurveKeys | None:
    """The keys to connect with, None for a bus without CURVE."""
    if server_key is None and secret_file is None:
        return None
    if server_key is None or secret_file is None:
        msg = "--server-key and --secret-file go together"
        raise typer.BadParameter(msg)
    return CurveKeys(server_key, secret_file)
