"""Check a control plane in one line: `discorder healthcheck`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from discorder.cli.plane_client import PlaneClient
from discorder.cli.plane_group import find_processes, names
from discorder.config import load_config
from discorder.errors import DiscorderError


def check(config: Path | None, overrides: Sequence[str], url: str | None, *, ready: bool) -> bool:
    """Print the verdict in one line and return it. Whatever keeps it from being known counts as unhealthy.

    Several processes are healthy if each is; those that are not come first.
    """
    try:
        clients = find_processes(load_config(config, overrides, publishers=False), url)
    except DiscorderError as error:
        typer.echo(" ".join(str(error).split()))
        return False
    verdicts = [(*_verdict(client, ready=ready), name) for name, client in zip(names(clients), clients, strict=True)]
    verdicts.sort(key=lambda verdict: verdict[0])
    typer.echo("; ".join(f"{name}: {text}" if name else text for _, text, name in verdicts))
    return all(healthy for healthy, _, _ in verdicts)


def _verdict(client: PlaneClient, *, ready: bool) -> tuple[bool, str]:
    """Return whether one process is healthy, and a sentence."""
    try:
        answer = client.health("/readyz", "ready") if ready else client.health("/livez", "live")
    except DiscorderError as error:
        return False, " ".join(str(error).split())
    if not ready:
        reasons = "; ".join(answer.get("reasons", ()))
        return bool(answer["live"]), "live: the control plane answers" if answer["live"] else f"not live: {reasons}"
    verdict = "ready" if answer["ready"] else "not ready"
    return bool(answer["ready"]), f"{verdict}: {answer['headline']}" if "headline" in answer else verdict
