"""Check a control plane in one line: `discorder healthcheck`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from discorder.cli.plane_client import PlaneClient
from discorder.config import load_config
from discorder.errors import DiscorderError


def check(config: Path | None, overrides: Sequence[str], url: str | None, *, ready: bool) -> bool:
    """Print the verdict in one line and return it. Whatever keeps it from being known counts as unhealthy."""
    try:
        client = PlaneClient(load_config(config, overrides, publishers=False), url)
        healthy, text = _verdict(client, ready=ready)
    except DiscorderError as error:
        healthy, text = False, " ".join(str(error).split())
    typer.echo(text)
    return healthy


def _verdict(client: PlaneClient, *, ready: bool) -> tuple[bool, str]:
    """Return whether it is healthy, and a sentence."""
    answer = client.health("/readyz", "ready") if ready else client.health("/livez", "live")
    if not ready:
        reasons = "; ".join(answer.get("reasons", ()))
        return bool(answer["live"]), "live: the control plane answers" if answer["live"] else f"not live: {reasons}"
    verdict = "ready" if answer["ready"] else "not ready"
    return bool(answer["ready"]), f"{verdict}: {answer['headline']}" if "headline" in answer else verdict
