"""Running the command as its user does: a process of its own, with an environment of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No token, no colours, state in the test's folder."""
    kept = {name: value for name, value in os.environ.items() if name != "DISCORD_BOT_TOKEN"}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}


@pytest.fixture
def discorder(environment: dict[str, str], tmp_path: Path) -> Command:
    """`discorder ARG…` to its end."""

    async def run(*arguments: str, token: str | None = None) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env=environment | ({} if token is None else {"DISCORD_BOT_TOKEN": token}),
        )
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    return run
