"""Run several control planes as child processes: `discorder serve --processes N`.

The parent owns the console, the signals and the exit code. A child that crashes is started again; a child that ends otherwise,
with an exit code of its own or because it was asked to stop, ends all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path

from discorder.cli.child import Child, is_crash
from discorder.cli.process_watch import ProcessWatch
from discorder.clock import SystemClock
from discorder.config import Config, load_config, read_token
from discorder.config.division import SocketFolder, divide, socket_folders
from discorder.errors import ConfigError, DiscorderError
from discorder.group.site import GroupSite
from discorder.http.answers import RequestRefused
from discorder.http.server import HttpServer
from discorder.logs import LogSetup, configure_logs, logger
from discorder.redaction import TOKEN_VARIABLE
from discorder.runtime.hangup import on_hangup
from discorder.runtime.notify import READY, STOPPING, WATCHDOG, Notifier, without_notifications
from discorder.runtime.watchdog import LoopLag
from discorder.service import STOP_SIGNALS
from discorder.status.document import ProcessPart
from discorder.status.process import ProcessState

WATCH_EVERY = 1.0  # seconds between two looks at the processes


def serve_processes(config_file: Path | None, overrides: Sequence[str], processes: int, options: Sequence[str]) -> int:
    """Run the control planes until a signal or until one of them ends for good; return the exit code.

    ``options`` are passed on to each `discorder serve`. Raises `ConfigError` and `TokenMissing` before anything is started.
    """
    config = load_config(config_file, overrides)
    shares = divide(config, processes)
    token = read_token(config)
    for folder in socket_folders(config):
        _prepare(folder, processes)
    common = [*(("--config", str(config_file)) if config_file else ()), *_sets(overrides), *options]
    # a token file may be a pipe, which gives it once
    environment = without_notifications(os.environ) | {TOKEN_VARIABLE: token}
    notifier = Notifier.of()
    watchdog = None if notifier is None else notifier.watchdog
    children = [
        Child(
            number,
            share,
            [*common, *_sets(share.overrides)],
            environment,
            ProcessWatch(watchdog),
            serves_http=config.http.address is not None,
        )
        for number, share in enumerate(shares)
    ]

    with configure_logs(config.log.for_console, console=True) as log:
        log.redact(token)
        reload = partial(_reload, log, config_file, overrides)
        return asyncio.run(_serve(config, children, notifier, reload))


async def _serve(
    config: Config, children: Sequence[Child], notifier: Notifier | None, reload: Callable[[], None]
) -> int:
    """Serve the HTTP server of all children, and run them. Raises what `HttpServer.start` raises before any is started."""
    supervisor = _Supervisor(children, notifier, reload)
    own = ProcessState(SystemClock())

    def describe() -> ProcessPart:
        own.sample()
        return own.describe("", LoopLag())

    site = GroupSite([child.member for child in children], describe, supervisor.stop_all)
    server = HttpServer(config, site)
    await server.start()
    try:
        return await supervisor.run()
    finally:
        await server.close()


def _reload(log: LogSetup, config_file: Path | None, overrides: Sequence[str]) -> None:
    """Use the settings of the file for the console."""
    with contextlib.suppress(DiscorderError):  # each process logs it
        log.apply(load_config(config_file, overrides).log.for_console)


class _Supervisor:
    """Runs all children on one loop. ``reload`` reads the settings of the console's log again."""

    def __init__(self, children: Sequence[Child], notifier: Notifier | None, reload: Callable[[], None]) -> None:
        self._children = children
        self._notifier = notifier
        self._reload = reload
        self._signals = 0
        self._stopping = False
        self._goodbye = False
        self._hangup = asyncio.Event()

    async def run(self) -> int:
        """Run the children until all have ended; return the exit code of the whole.

        It is that of the first child that ended with another code than 0 without being asked, otherwise 0; 1 if a child had to
        be killed on the way to the end. A child that ends with 0 was asked to stop, by an operator or a signal: so are all.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        with on_hangup(self._hangup.set):
            helpers = [asyncio.create_task(self._pass_on_hangups()), asyncio.create_task(self._watch())]
            try:
                return await self._run_children()
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _run_children(self) -> int:
        tasks = {asyncio.create_task(child.run()): child for child in self._children}
        final = 0
        async for task in _as_they_end(tasks):
            code, child = task.result(), tasks[task]
            if code:
                logger.error("A process ended for good, which ends all of them", process=child.number, code=code)
                final = final or (1 if is_crash(code) else code)
                self._stop()
            elif self._stopping:
                logger.info("A process ended", process=child.number)
            else:
                logger.info("A process was asked to stop, which stops all of them", process=child.number)
                self._stop()
        return final

    async def _pass_on_hangups(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            logger.info("SIGHUP is passed on to all processes")
            for child in self._children:
                child.send(signal.SIGHUP)
            await asyncio.to_thread(self._reload)

    async def _watch(self) -> None:
        """Notify the service manager when all processes are ready, and then while this loop turns. Kill a process that hangs."""
        for child in self._children:
            child.watch.start()
        ready, every = False, WATCH_EVERY
        if self._notifier is not None and self._notifier.watchdog is not None:
            every = min(every, self._notifier.watchdog / 2)
        while True:
            for child in self._children:
                if child.watch.is_hung:
                    logger.error("A process does not answer and is killed", process=child.number)
                    child.send(signal.SIGKILL)
                    child.watch.restart()
            if self._notifier is not None:
                if not ready and all(child.watch.ready for child in self._children):
                    ready = True
                    self._notifier.send(READY, f"STATUS={len(self._children)} processes")
                if self._notifier.watchdog is not None:
                    self._notifier.send(WATCHDOG)
            await asyncio.sleep(every)

    def stop_all(self, goodbye: bool) -> None:
        """Stop all processes, as an operator wants. Raises `RequestRefused` if they stop already, in another way."""
        if self._stopping and self._goodbye != goodbye:
            what = "its sessions end" if self._goodbye else "the next start resumes its sessions"
            raise RequestRefused(
                HTTPStatus.CONFLICT,
                f"the control plane shuts down already; {what}, and that cannot be changed any more",
            )
        self._stop(goodbye=goodbye)

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._stop()
        else:
            for child in self._children:
                child.send(signal.SIGINT, signal.SIGTERM)  # two, which cannot be taken for one: it ends at once

    def _stop(self, *, goodbye: bool = False) -> None:
        if self._notifier is not None and not self._stopping:
            self._notifier.send(STOPPING)
        self._goodbye = goodbye if not self._stopping else self._goodbye
        self._stopping = True
        for child in self._children:
            child.stop(goodbye=goodbye)


async def _as_they_end(tasks: Iterable[asyncio.Task[int]]) -> AsyncIterator[asyncio.Task[int]]:
    waiting = set(tasks)
    while waiting:
        ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            yield task


def _sets(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _prepare(folder: SocketFolder, processes: int) -> None:
    """Make the folder, and remove the sockets of processes that there are no more."""
    readers = (folder.mode | folder.mode >> 1 | folder.mode >> 2) & 0o111  # every user of a socket may list the folder
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.group:
            os.chown(folder.path, -1, grp.getgrnam(folder.group).gr_gid)
        folder.path.chmod(readers * 5)
        for entry in folder.path.iterdir():
            number = entry.name.removesuffix(".replay")
            if number.isdecimal() and int(number) >= processes and stat.S_ISSOCK(entry.stat().st_mode):
                entry.unlink()
    except (OSError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"there is no group {folder.group!r}"
        msg = f"ipc://{folder.path}: the folder for the sockets cannot be made: {reason}; choose another path"
        raise ConfigError(msg) from error
