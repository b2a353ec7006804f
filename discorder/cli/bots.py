"""Print the bots of the façade of a control plane: `discorder facade status`."""

from __future__ import annotations

import msgspec
import typer

from discorder.cli.bots_view import render_facade
from discorder.cli.plane_client import PlaneClient
from discorder.cli.status import console, decode
from discorder.escapes import escape_json


def show_bots(client: PlaneClient, *, as_json: bool) -> None:
    """Print the bots once, as text or as the part ``facade`` of the status document. Raises like `PlaneClient.status`."""
    document = client.status()
    view = decode(document)
    if as_json:
        typer.echo(escape_json(msgspec.json.encode(msgspec.json.decode(document).get("facade"))).decode())
    else:
        console().print(render_facade(view.facade, view.at))
