"""Type docs/walkthrough.md into a real ``python -m asyncio`` on a pseudo-terminal, and compare what is printed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from discorder.config import sample_config
from discorder.simulator import Simulator

PAGE = (Path(__file__).parent.parent / "docs" / "walkthrough.md").read_text()
# may be printed in the middle of typed input
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+\d\d:\d\d [^\n]*\n")
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SECONDS = 60.0


def steps(act: str) -> list[tuple[str, str]]:
    """Return (line to type, output shown) for each prompt of one part."""
    (block,) = re.findall(rf"<!-- walk: {act} -->\n```pycon\n(.*?)```", PAGE, re.DOTALL)
    found: list[tuple[str, str]] = []
    for line in str(block).splitlines():
        if line.startswith(">>> "):
            found.append((line[4:], ""))
        else:
            typed, shown = found[-1]
            found[-1] = (typed, shown + line + "\n")
    return found


class Terminal:
    """A Python prompt in a pseudo-terminal."""

    def __init__(self, folder: Path, token: str) -> None:
        self._master, slave = pty.openpty()
        environment = os.environ | {
            "DISCORD_BOT_TOKEN": token,
            "XDG_STATE_HOME": str(folder / "state"),
            "TERM": "dumb",
            "PYTHON_BASIC_REPL": "1",
            "PYTHON_COLORS": "0",
            "COLUMNS": "1000",
        }
        command = [sys.executable, "-m", "asyncio"]
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._text = ""
        self._marks = 0

    def type(self, line: str) -> str:
        """Type ``line``, then a mark, and return what is printed between them, without echo, prompts and log lines.

        Wait for the prompt after the mark, because half of a prompt would be read as output of the next line.
        """
        self._marks += 1
        mark = f"[mark {self._marks}]"
        self._text = ""
        os.write(self._master, f"{line}\nprint('[mark', '{self._marks}]')\n".encode())
        end = time.monotonic() + SECONDS
        done = re.compile(rf"^(?:>>> )*{re.escape(mark)}\r?\n.*>>> ", re.MULTILINE | re.DOTALL)
        while not done.search(self._text):
            assert time.monotonic() < end, f"no answer to {line}: {self._text}"
            with contextlib.suppress(BlockingIOError):
                self._text += os.read(self._master, 65536).decode()
            time.sleep(0.01)  # a real terminal, in real time
        return "".join(f"{printed}\n" for printed in self._lines() if printed != mark)

    def _lines(self) -> Iterator[str]:
        for line in LOG_LINE.sub("", ANSI.sub("", self._text.replace("\r", ""))).splitlines():
            bare = re.sub(r"^(?:(?:>>>|\.\.\.) )+", "", line)
            if bare and "print('[mark'" not in bare and bare not in self._typed:
                yield bare

    @property
    def _typed(self) -> set[str]:
        return {typed for act in ("dev", "prod") for typed, _ in steps(act)}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def matches(shown: str, printed: str) -> bool:
    """Return whether the output matches. ``...`` matches anything, as in doctest; here across lines too."""
    pattern = ".*?".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def write_samples(folder: Path, api: str, port: int) -> None:
    """Write the two samples, changed only in the address of the gateway, and of the bus if the default port is taken."""
    (folder / "etc").mkdir()
    for name in ("dev", "prod"):
        text = sample_config("dev" if name == "dev" else "prod")
        assert text.count("\n[gateway]\n") == 1
        if port != 6000:
            line = '\n# bind = "tcp://127.0.0.1:6000"'
            assert text.count(line) == 1
            text = text.replace(line, f'\nbind = "tcp://127.0.0.1:{port}"')
        (folder / "etc" / f"{name}.toml").write_text(text.replace("\n[gateway]\n", f'\n[gateway]\napi = "{api}"\n'))


def walk(folder: Path, token: str) -> list[str]:
    """Type both parts and return the differences."""
    terminal = Terminal(folder, token)
    differences = []
    try:
        terminal.type("")
        for typed, shown in (*steps("dev"), *steps("prod")):
            printed = terminal.type(typed)
            if not matches(shown, printed):
                differences.append(f"{typed}\nshown:\n{shown}\nprinted:\n{printed}")
    finally:
        terminal.close()
    return differences


@pytest.mark.heavy
@pytest.mark.system
async def test_the_walk_through_runs_as_written(tmp_path: Path, default_port: int) -> None:
    async with Simulator(guilds=1, rate=10) as sim:
        write_samples(tmp_path, sim.api_url, default_port)
        differences = await asyncio.to_thread(walk, tmp_path, sim.token)
    assert not differences, "\n\n".join(differences)
    assert sim.identifies == 1
    assert sim.violations == []
