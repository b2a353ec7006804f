"""Handle what the supervisor of a process wants: signals, a log that is reopened, and the notifications of systemd.

The control plane itself knows of none of them; an embedding program that awaits `serve` keeps its own signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable

from discorder.clock import SystemClock
from discorder.config import Config
from discorder.errors import DiscorderError, NotRunning
from discorder.logs import LogSetup, logger
from discorder.plane import ControlPlane
from discorder.runtime.hangup import on_hangup
from discorder.runtime.notify import READY, STOPPING, WATCHDOG, Notifier
from discorder.statemachine import State
from discorder.tracking.overdue import find_overdue
from discorder.tracking.tracker import GatewayTracker

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDIN = 0
GOODBYE_LINE = b"goodbye\n"  # on standard input, before its end: end the sessions
NOTIFY_EVERY = 1.0  # seconds between two looks at the shards, or half the watchdog's time if that is less


class Service:
    """Stop, reload and notify for one run of a control plane. Make and enter it on its loop, in the main thread.

    SIGINT and SIGTERM stop gracefully, a second one at once; before there is a plane, they cancel the start. SIGHUP reloads the
    log. ``until_eof``: the end of standard input stops too, but does not count as a signal: the first one after it is the first;
    a line ``goodbye`` before it ends the sessions.
    """

    def __init__(self, load: Callable[[], Config], *, until_eof: bool = False) -> None:
        self._load = load
        self._until_eof = until_eof
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        self._stops = 0  # signals
        self._plane: ControlPlane | None = None
        self._notifier = Notifier.of()
        self._hangup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watching = contextlib.ExitStack()

    def __enter__(self) -> Service:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._on_stop_signal)
        self._watching.enter_context(on_hangup(self._hangup.set))
        if self._until_eof:
            self._loop.add_reader(STDIN, self._on_input)
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for number in STOP_SIGNALS:
            self._loop.remove_signal_handler(number)
        self._watching.close()
        self._loop.remove_reader(STDIN)

    # ---------------------------------------------------------------- called by serve_config

    def log_opened(self, log: LogSetup, config: Config) -> None:
        """Reload ``log`` at each SIGHUP from now on, and at once if one came during the start."""
        self._tasks.append(asyncio.create_task(self._reload_at_hangups(log, config), name="reload-log"))

    def plane_made(self, plane: ControlPlane) -> None:
        """Stop this plane at a signal, and notify the service manager of its state."""
        self._plane = plane
        if self._notifier is not None:
            self._tasks.append(asyncio.create_task(self._notify(plane, self._notifier), name="notify"))

    # ---------------------------------------------------------------- stop

    def _on_stop_signal(self) -> None:
        self._stops += 1
        if self._stops == 1 or self._plane is None:
            self._stop()
        else:
            with contextlib.suppress(NotRunning):  # it has just ended
                self._plane.hurry()

    def _stop(self, *, goodbye: bool = False) -> None:
        if self._plane is not None:
            with contextlib.suppress(NotRunning):
                self._plane.stop(goodbye=goodbye)
        elif self._starting is not None:
            self._starting.cancel()

    def _on_input(self) -> None:
        line = os.read(STDIN, 4096)
        if not line:
            self._loop.remove_reader(STDIN)
        if not line or line.endswith(GOODBYE_LINE):
            self._stop(goodbye=bool(line))

    # ---------------------------------------------------------------- reload

    async def _reload_at_hangups(self, log: LogSetup, config: Config) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            notifier = self._notifier if self._plane is not None and self._plane.is_open else None
            if notifier is not None:
                notifier.reloading()
            try:
                config = await self._reload(log, config)
                if self._plane is not None:
                    self._plane.use_log(config.log)
            except Exception as error:  # noqa: BLE001  # the next SIGHUP must find this task alive, and a manager waits for READY
                reason = str(error) if isinstance(error, DiscorderError) else error
                logger.error("The configuration cannot be reloaded, the settings stay as they are", error=reason)
            if notifier is not None:
                notifier.send(READY)

    async def _reload(self, log: LogSetup, config: Config) -> Config:
        """Read the configuration again, and use its ``[log]`` section. Return the configuration that holds then.

        Raises `DiscorderError` if the new one is wrong or its log file cannot be written; the old one holds then.
        """
        new = await asyncio.to_thread(self._load)  # a file may be slow
        if new.log == config.log and not new.log.file:
            logger.info(
                "SIGHUP is ignored, there is no log file to reopen and [log] is unchanged", **_left(config, new)
            )
            return config
        log.apply(new.log)
        logger.info("Reloaded the log's settings", level=str(new.log.level), file=new.log.file, **_left(config, new))
        return config.with_log(new.log)

    # ---------------------------------------------------------------- notify

    async def _notify(self, plane: ControlPlane, notifier: Notifier) -> None:
        """Send READY when the plane runs, whatever Discord does, and its state from then on.

        The watchdog is fed while this loop turns and no state is past its deadline: an outage never stops the feeding.
        """
        notifier.send("STATUS=Starting")
        tracker = await plane.wait_open()
        notifier.send(READY, f"STATUS={_status(tracker)}")
        every = min(NOTIFY_EVERY, NOTIFY_EVERY if notifier.watchdog is None else notifier.watchdog / 2)
        stopping = asyncio.create_task(plane.wait_stopping())
        stopping.add_done_callback(
            lambda ended: None if ended.cancelled() else notifier.send(STOPPING, "STATUS=Stopping")
        )
        self._tasks.append(stopping)
        shown, overdue = "", list[str]()
        while True:
            before, overdue = overdue, find_overdue(tracker.shards, SystemClock())
            if overdue and not before:
                logger.error("A state is past its deadline, the watchdog is not fed", shards=overdue)
            if notifier.watchdog is not None and not overdue:
                notifier.send(WATCHDOG)
            if not stopping.done() and (status := _status(tracker)) != shown:
                notifier.send(f"STATUS={status}")
                shown = status
            await asyncio.sleep(every)


def _left(config: Config, new: Config) -> dict[str, list[str]]:
    """Return the changed keys that only a restart applies, as a field for the log."""
    keys = config.with_log(new.log).keys_that_differ(new)
    return {"needs_restart": keys} if keys else {}


def _status(tracker: GatewayTracker) -> str:
    """Return the states of the shards in a few words, the most frequent first."""
    states = Counter(f"{shard.state}{'' if shard.paused_since is None else ' (paused)'}" for shard in tracker.shards)
    if not states:
        return "No shard is here"
    if len(tracker.shards) == 1:
        return next(iter(states))
    others = "".join(f", {count} {state}" for state, count in states.most_common() if state != State.READY)
    return f"{states[State.READY]} of {len(tracker.shards)} shards Ready{others}"
