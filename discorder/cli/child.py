"""Run one process of `discorder serve --processes N`, and the one after it when it crashes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from discorder.cli.process_watch import ProcessWatch
from discorder.config.division import Share
from discorder.group.member import Member
from discorder.http.inherited import listen_for_child, variables
from discorder.logs import logger
from discorder.runtime.hangup import hangups_wait
from discorder.service import GOODBYE_LINE

# exit codes of an internal error, and of an interpreter that could not flush; and every signal
CRASHES = frozenset({1, 120})
SHORTEST_PAUSE = 1.0  # seconds before a child is started again; doubled with each crash
LONGEST_PAUSE = 60.0
STABLE_SECONDS = 60.0  # a child that has run for so long begins with the shortest pause again
READ_BYTES = 65_536


class Child:
    """One control plane: a process, and the one after it when it crashes."""

    def __init__(
        self,
        number: int,
        share: Share,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        watch: ProcessWatch,
        *,
        serves_http: bool,
    ) -> None:
        """``serves_http``: pass it a socket for its HTTP server."""
        self.number = number
        self.shards = f"{share.shards[0]}-{share.shards[-1]} of {share.of}"
        self.member = Member(number, share.shards, lambda: not watch.ready)
        self._arguments = arguments
        self._serves_http = serves_http
        self.watch = watch
        self._environment = {**environment, **watch.environment}
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._goodbye = False

    def stop(self, *, goodbye: bool) -> None:
        """End the process gracefully, and start it no more: it stops when its standard input ends."""
        self._stopping.set()
        self.member.stops = True
        self._goodbye = goodbye
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            if goodbye:
                self._process.stdin.write(GOODBYE_LINE)
            self._process.stdin.close()

    def send(self, *signals: signal.Signals) -> None:
        """Send signals to the process, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                for number in signals:
                    self._process.send_signal(number)

    async def run(self) -> int:
        """Run the process, again after each crash, until it ends otherwise or `stop` is called.

        Return its exit code, 0 if it was not running when `stop` was called.
        """
        pause = SHORTEST_PAUSE
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set() or not is_crash(code):
                return code
            if time.monotonic() - started >= STABLE_SECONDS:
                pause = SHORTEST_PAUSE
            logger.error("A process crashed and will be started again", process=self.number, code=code, seconds=pause)
            self.member.waits(pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return 0
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self) -> int:
        self.watch.restart()
        with contextlib.ExitStack() as passing:
            passed = [passing.enter_context(listen_for_child())] if self._serves_http else []
            passing.enter_context(hangups_wait())
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "discorder", "serve", "--until-eof", *self._arguments),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(self._environment) | {name: value for one in passed for name, value in variables(one).items()},
                pass_fds=[one.fileno() for one in passed],
                process_group=0,  # Ctrl-C in a terminal reaches the parent alone
            )
            url = "".join(f"http://127.0.0.1:{one.getsockname()[1]}" for one in passed)
        self.member.started(url, process.pid)
        if self._stopping.is_set():
            self.stop(goodbye=self._goodbye)
        logger.info("Started a process", process=self.number, pid=process.pid, shards=self.shards)
        if process.stderr is not None:
            await _relay(process.stderr, f"[{self.number}] ".encode())
        code = await process.wait()
        self.member.ended(f"exit code {code}")
        return code


async def _relay(stream: asyncio.StreamReader, prefix: bytes) -> None:
    """Copy a child's lines to the console, each behind ``prefix``, until the stream ends."""
    rest = b""
    while chunk := await stream.read(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        _print(lines, prefix)
    if rest:
        _print([rest], prefix)


def _print(lines: Sequence[bytes], prefix: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # a console that is gone must not end the control planes
        sys.stderr.buffer.write(b"".join(prefix + line + b"\n" for line in lines))
        sys.stderr.buffer.flush()


def is_crash(code: int) -> bool:
    """Return whether a process that ended with ``code`` is started again."""
    return code < 0 or code in CRASHES
