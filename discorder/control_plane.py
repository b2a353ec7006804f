"""The calls that start and stop a control plane: `serve`, `run`, `serve_in_background`, `shutdown`.

`serve` is a guest in its caller's process: it installs no signal handler and touches no log sink but its own. `run` owns the
process: a loop of its own, SIGINT and SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from discorder.config import Config, load_config, read_token
from discorder.errors import NotRunning
from discorder.logs import configure_logs
from discorder.plane import ControlPlane, Surroundings
from discorder.plane.keeping import NO_CLAIM, Claim
from discorder.rest import BotClient
from discorder.runtime.loops import on_loop
from discorder.runtime.open_files import raise_open_file_limit
from discorder.tracking.tracker import GatewayTracker
from discorder.tracking.tracker_ref import TrackerRef
from discorder.transport import SessionRecorder

__all__ = ["BackgroundPlane", "TrackerRef", "run", "serve", "serve_in_background", "shutdown"]

T = TypeVar("T")
ConfigPath = str | os.PathLike[str]
Started = Callable[[ControlPlane], None]


async def serve(
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    config_file_path: ConfigPath | None = None,
    take_over: bool = False,
    wait: float = 0.0,
) -> None:
    """Run the control plane until `shutdown`.

    ``client``: made from ``DISCORD_BOT_TOKEN`` or ``gateway.token_file`` when None; its HTTP session is closed at the end.
    ``tracker_ref``: filled once config, log and publishers are open, before the first dial. ``config_file_path``: None for
    the built-in defaults. ``take_over``: ask another process that holds the shards of this store to hand them over (SIGTERM),
    and give it 30 s; ``wait``: seconds to wait for it to leave by itself. The sessions are resumed then.

    Returns normally only after `shutdown`. Raises `ConfigError` (with `TokenMissing`, `AddressInUse`, `StoreLocked`),
    `UnusableFile`, `AuthenticationFailed`, `FatalCloseError`, `AttemptsExhausted`, and under ``gateway.fail_on_error`` the
    failure itself.
    Cancelling is a graceful stop, after which CancelledError is raised.
    """
    await serve_config(
        lambda: load_config(config_file_path),
        client=client,
        tracker_ref=tracker_ref,
        claim=Claim(take_over, wait),
    )


async def serve_config(
    load: Callable[[], Config],
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    claim: Claim = NO_CLAIM,
    surroundings: Surroundings | None = None,
    record: Path | None = None,
    record_raw: bool = False,
    started: Started | None = None,
) -> None:
    """`serve` with everything in the caller's hands.

    ``load`` gives the configuration; ``record`` is a file for the recorded session; ``started`` gets the plane before it runs.
    """
    ref = TrackerRef() if tracker_ref is None else tracker_ref
    error: BaseException | None = None
    try:
        config = load()
        around = surroundings or Surroundings()
        with configure_logs(config.log, console=True) as log:
            client = client or BotClient(read_token(config))
            log.redact(client.token.reveal())
            client.api = client.api or config.gateway.api
            async with client:
                with _recording(record, record_raw, config, client, around) as recorded:
                    plane = ControlPlane(config, client, recorded, claim=claim)
                    if started is not None:
                        started(plane)
                    await plane.run(ref.fill)
    except BaseException as caught:
        error = caught
        raise
    finally:
        ref.end(error)


@contextlib.contextmanager
def _recording(
    path: Path | None, raw: bool, config: Config, client: BotClient, around: Surroundings
) -> Iterator[Surroundings]:
    if path is None:
        yield around
        return
    with SessionRecorder(
        path, clock=around.clock, api_url=config.gateway.api, raw=raw, secrets=[client.token.reveal()]
    ) as recorder:
        yield replace(around, wrap=recorder.wrap)


def run(
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    config_file_path: ConfigPath | None = None,
    take_over: bool = False,
    wait: float = 0.0,
) -> None:
    """`serve` for a script: blocking, in a loop of its own. SIGINT and SIGTERM stop gracefully, a second one at once.

    Arguments and errors are those of `serve`. Call it from the main thread.
    """
    run_config(
        lambda: load_config(config_file_path),
        client=client,
        tracker_ref=tracker_ref,
        claim=Claim(take_over, wait),
    )


def run_config(
    load: Callable[[], Config],
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    claim: Claim = NO_CLAIM,
    record: Path | None = None,
    record_raw: bool = False,
) -> None:
    """`run` with everything in the caller's hands; see `serve_config`."""

    async def main() -> None:
        with _signals() as watch:
            await serve_config(
                load,
                client=client,
                tracker_ref=tracker_ref,
                claim=claim,
                record=record,
                record_raw=record_raw,
                started=watch,
            )

    raise_open_file_limit()
    asyncio.run(main())


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals() -> Iterator[Started]:
    """Gives a function that learns which plane the signals are for; before there is one, a signal cancels the start."""
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    planes: list[ControlPlane] = []
    asked = 0

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        if not planes:
            if starting is not None:
                starting.cancel()
            return
        with contextlib.suppress(NotRunning):  # it has just ended by itself
            if asked == 1:
                planes[-1].stop(goodbye=False)
            else:
                planes[-1].hurry()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield planes.append
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def shutdown(tracker: GatewayTracker, *, goodbye: bool = False) -> None:
    """Stop the control plane behind ``tracker``, in whatever state it is, and return when it has ended.

    The Discord session is kept, so that the next start resumes it; with ``goodbye`` it ends and the bot goes offline. Works
    from any loop; a plane that has ended already is fine.
    """
    plane = tracker.plane
    with contextlib.suppress(NotRunning):
        plane.stop(goodbye=goodbye)
        await on_loop(plane.loop, plane.wait_ended())


class BackgroundPlane:
    """A control plane in a thread with a loop of its own; every method may be called from any thread."""

    def __init__(self, load: Callable[[], Config], client: BotClient | None, claim: Claim) -> None:
        self._ref = TrackerRef()
        self._exception: BaseException | None = None
        self._plane: ControlPlane | None = None
        self._begun = threading.Event()  # there is a plane, or there will be none
        self._load = load
        self._client = client
        self._claim = claim
        self._thread = threading.Thread(target=self._run, name="discorder", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(
                serve_config(
                    self._load,
                    client=self._client,
                    tracker_ref=self._ref,
                    claim=self._claim,
                    started=self._started,
                )
            )
        except BaseException as error:  # noqa: BLE001  # the thread's end; the caller reads it in `exception` or `tracker`
            self._exception = error
        finally:
            self._begun.set()

    def _started(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._begun.set()

    def start(self) -> None:
        """Start the thread; `serve_in_background` does it."""
        self._thread.start()

    @property
    def tracker(self) -> GatewayTracker:
        """The tracker; waits until config, log and publishers are open. Raises what ended the start instead."""
        return self._ref.wait()

    @property
    def exception(self) -> BaseException | None:
        """What ended the control plane, None while it runs and after a `shutdown`."""
        return self._exception

    def shutdown(self, goodbye: bool = False, timeout: float = 1.0) -> None:
        """Stop gracefully and wait ``timeout`` seconds for the end, then at once. Does nothing when it has ended."""
        self._begun.wait()
        if self._plane is not None:
            with contextlib.suppress(NotRunning):  # it has just ended by itself
                self._plane.stop(goodbye=goodbye)
                self._thread.join(timeout)
                if self._thread.is_alive():
                    self._plane.hurry()
        self._thread.join()

    def call(self, wanted: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Await one of the tracker's coroutines on the plane's loop and return what it gives, from a thread without a loop.

        ``handle.call(handle.tracker.set_presence(status="idle"))``. Raises what it raises, `NotRunning` when the plane has ended,
        and TimeoutError after ``timeout`` seconds, having cancelled it.
        """
        loop = self.tracker.plane.loop
        if not self._thread.is_alive() or loop.is_closed():
            wanted.close()
            msg = "the control plane has ended"
            raise NotRunning(msg)
        future = asyncio.run_coroutine_threadsafe(wanted, loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; True when it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        state = "running" if self._thread.is_alive() else "ended"
        return f"BackgroundPlane({state}, {self._ref!r})"


def serve_in_background(
    *,
    client: BotClient | None = None,
    config_file_path: ConfigPath | None = None,
    take_over: bool = False,
    wait: float = 0.0,
) -> BackgroundPlane:
    """`serve` in a thread with a loop of its own, for the plain REPL, IPython and notebooks.

    Returns at once. A start that fails shows in the handle: ``.tracker`` raises it, ``.exception`` is it.
    """
    handle = BackgroundPlane(lambda: load_config(config_file_path), client, Claim(take_over, wait))
    handle.start()
    return handle
