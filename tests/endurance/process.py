"""The processes of an endurance test, to be stopped, killed and started again: `discorder serve`, and a bot on its bus."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from discorder.simulator import Simulator

ROOT = Path(__file__).parents[2]
SERVE = ("-m", "discorder", "serve")

CONFIG = """\
[gateway]
api = "{api}"
shards = {shards}
compress = "{compress}"

[log]
level = "warning"

[session]
store = "{folder}/sessions.sqlite3"

[http]
bind = ""

[publishers.audit]
kind = "delimited_file"
required = true
path = "{folder}/audit.tsv"
rotate_bytes = {rotate_bytes}
keep = 100000
"""
BUS = """
[publishers.bus]
kind = "zmq"
bind = "{address}"
"""


class ChildProcess:
    """One program over many lives. Its output goes to ``log``."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.lives = 0
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """Return the process that was started last."""
        assert self._process is not None, "it was not started"
        return self._process

    async def begin(self, arguments: Sequence[str], program: str = sys.executable) -> None:
        """Begin another life of ``program``, this Python by default, with ``arguments``."""
        assert not self.runs, "it runs"
        self.lives += 1
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(program, *arguments),
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ended(self, within: float) -> int:
        """Wait for its exit code, negative for a signal. Raises TimeoutError."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> int:
        """Send SIGKILL; the exit code shows whether it had ended before."""
        if self.runs:
            self.process.kill()
        return await self.process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.runs:
            self.process.send_signal(signal.SIGTERM)

    async def stop(self, within: float = 15.0) -> int:
        """Stop it gracefully and return its exit code. Raises TimeoutError."""
        self.ask_to_stop()
        return await self.ended(within)

    async def clean_up(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None:
            await self.kill()

    def said(self, lines: int = 15) -> str:
        """Return the end of the output of all lives."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:]) if self._log.exists() else ""


class PlaneProcess(ChildProcess):
    """A control plane: the same store and the same file in every life. ``folder`` must exist.

    ``bus``: an address to bind; ``more``: lines for the table of the file.
    """

    def __init__(
        self,
        folder: Path,
        sim: Simulator,
        *,
        shards: int = 1,
        compress: str = "auto",
        rotate_bytes: int = 0,
        api: str | None = None,
        bus: str | None = None,
        more: str = "",
    ) -> None:
        super().__init__(folder / "plane.log", {"DISCORD_BOT_TOKEN": sim.token, "NO_COLOR": "1"})
        self.audit = folder / "audit.tsv"
        self.store = folder / "sessions.sqlite3"
        self.config = folder / "plane.toml"
        text = CONFIG.format(
            folder=folder, api=api or sim.api_url, shards=shards, compress=compress, rotate_bytes=rotate_bytes
        )
        self.config.write_text(text + more + ("" if bus is None else BUS.format(address=bus)))

    async def start(self, arguments: Sequence[str] = SERVE) -> None:
        """Begin another life; ``-c`` and the configuration follow ``arguments``."""
        await self.begin([*arguments, "-c", str(self.config)])


class BotProcess(ChildProcess):
    """A bot with a cursor, that writes down each item it gets: tests/endurance/bot.py."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder / "bot.log", {})
        self.notes = folder / "bot.tsv"
        self._arguments = ("-m", "tests.endurance.bot", address, str(folder / "bot.cursor"), str(self.notes))

    async def start(self) -> None:
        """Begin another life."""
        await self.begin(self._arguments)
