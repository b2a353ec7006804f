"""Run a control plane in a thread with its own event loop: `serve_in_background`, for a REPL, IPython and notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from discorder.config import Config, load_config
from discorder.control_plane import ConfigPath, TrackerRef, serve_config
from discorder.errors import NotRunning
from discorder.plane import ControlPlane
from discorder.plane.session_persistence import Claim
from discorder.rest import BotClient
from discorder.runtime.moderation import run_moderated
from discorder.tracking.tracker import GatewayTracker

T = TypeVar("T")


class BackgroundPlane:
    """A control plane in a thread with its own event loop. Every method is thread-safe."""

    def __init__(self, load: Callable[[], Config], client: BotClient | None, claim: Claim) -> None:
        self._ref = TrackerRef()
        self._exception: BaseException | None = None
        self._plane: ControlPlane | None = None
        self._begun = threading.Event()  # set when there is a plane, and at the end of a failed start
        self._load = load
        self._client = client
        self._claim = claim
        self._thread = threading.Thread(target=self._run, name="discorder", daemon=True)

    def _run(self) -> None:
        try:
            run_moderated(
                serve_config(
                    self._load,
                    client=self._client,
                    tracker_ref=self._ref,
                    claim=self._claim,
                    started=self._started,
                )
            )
        except BaseException as error:  # noqa: BLE001  # the caller reads it in `exception` or `tracker`
            self._exception = error
        finally:
            self._begun.set()

    def _started(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._begun.set()

    def start(self) -> None:
        """Start the thread. `serve_in_background` calls it."""
        self._thread.start()

    @property
    def tracker(self) -> GatewayTracker:
        """The tracker. Blocks until config, log and publishers are open. Raises the error of a failed start."""
        return self._ref.wait()

    @property
    def exception(self) -> BaseException | None:
        """The error that ended the control plane; None while it runs and after a `shutdown`."""
        return self._exception

    def shutdown(self, goodbye: bool = False, timeout: float = 1.0) -> None:
        """Stop gracefully; after ``timeout`` seconds stop at once. Does nothing after the end."""
        self._begun.wait()
        if self._plane is not None:
            with contextlib.suppress(NotRunning):  # it has just ended
                self._plane.stop(goodbye=goodbye)
                self._thread.join(timeout)
                if self._thread.is_alive():
                    self._plane.hurry()
        self._thread.join()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run one of the tracker's coroutines on the plane's event loop and return its result, from a thread without a loop.

        ``handle.call(handle.tracker.set_presence(status="idle"))``. Raises its errors, `NotRunning` if the plane has ended,
        and TimeoutError after ``timeout`` seconds; the coroutine is then cancelled.
        """
        loop = self.tracker.plane.loop
        if not self._thread.is_alive() or loop.is_closed():
            coroutine.close()
            msg = "the control plane has ended"
            raise NotRunning(msg)
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds. Return whether it has ended."""
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
    """Run `serve` in a thread with its own event loop, for the plain REPL, IPython and notebooks.

    Returns at once. After a failed start ``.tracker`` of the handle raises the error, and ``.exception`` returns it.
    """
    handle = BackgroundPlane(lambda: load_config(config_file_path), client, Claim(take_over, wait))
    handle.start()
    return handle
