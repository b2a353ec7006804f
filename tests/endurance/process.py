"""`discorder serve` as a process of its own, with a store and a required file, to be stopped, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
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
level = "{level}"

[session]
store = "{folder}/sessions.sqlite3"

[publishers.audit]
kind = "delimited_file"
required = true
path = "{folder}/audit.tsv"
rotate_bytes = {rotate_bytes}
keep = 100000
"""


class PlaneProcess:
    """One control plane over many lives: the same store, the same file. ``folder`` must exist."""

    def __init__(
        self,
        folder: Path,
        sim: Simulator,
        *,
        shards: int = 1,
        compress: str = "auto",
        rotate_bytes: int = 0,
        api: str | None = None,
        level: str = "warning",
        more: str = "",
    ) -> None:
        self.audit = folder / "audit.tsv"
        self.store = folder / "sessions.sqlite3"
        self.log = folder / "plane.log"
        self.lives = 0
        self._config = folder / "plane.toml"
        self._token = sim.token
        self._process: asyncio.subprocess.Process | None = None
        settings = {"api": api or sim.api_url, "shards": shards, "compress": compress, "rotate_bytes": rotate_bytes}
        self._config.write_text(CONFIG.format(folder=folder, level=level, **settings) + more)

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The one that was started last."""
        assert self._process is not None, "it was not started"
        return self._process

    async def start(self, arguments: Sequence[str] = SERVE) -> None:
        """Begin another life; ``arguments`` for Python, ``-c`` and the configuration follow."""
        assert self._process is None or self._process.returncode is not None, "it runs"
        self.lives += 1
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *arguments, "-c", str(self._config)),
                cwd=ROOT,
                env={**os.environ, "DISCORD_BOT_TOKEN": self._token, "NO_COLOR": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ended(self, within: float) -> int:
        """Its exit code, negative for a signal. Raises TimeoutError."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> int:
        """SIGKILL, now; the exit code tells whether it had ended before."""
        if self.process.returncode is None:
            self.process.kill()
        return await self.process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)

    async def stop(self, within: float = 15.0) -> int:
        """A graceful stop. Raises TimeoutError."""
        self.ask_to_stop()
        return await self.ended(within)

    async def clean_up(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None:
            await self.kill()

    def said(self, lines: int = 15) -> str:
        """The end of what all lives wrote to their console."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
