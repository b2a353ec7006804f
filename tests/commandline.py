"""Run the command as a user does: as a separate process with its own environment."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import preforked

SECONDS = 240.0


@dataclass(frozen=True)
class Outcome:
    """The result of a finished command."""

    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Remove the token and the colours, and keep the state in the test's folder."""
    kept = {name: value for name, value in os.environ.items() if name != "DISCORD_BOT_TOKEN"}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}


@pytest.fixture
def discorder(environment: dict[str, str], tmp_path: Path) -> Command:
    """Run `discorder ARG…` to its end."""

    async def run(*arguments: str, token: str | None = None) -> Outcome:
        code, out, err = await preforked.run(
            arguments,
            environment=environment | ({} if token is None else {"DISCORD_BOT_TOKEN": token}),
            folder=tmp_path,
            seconds=SECONDS,
        )
        return Outcome(code, out.decode(), err.decode())

    return run
