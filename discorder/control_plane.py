"""Start and stop a control plane: `serve`, `run`, `shutdown`.

`serve` installs no signal handler and changes no log sink but its own. `run` has its own event loop and a `Service`: signals, and
systemd's notifications.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from discorder.config import Config, load_config, read_token
from discorder.errors import NotRunning
from discorder.exits import end_quietly
from discorder.logs import LogSetup, configure_logs
from discorder.plane import ControlPlane, PlaneDependencies
from discorder.plane.session_persistence import NO_CLAIM, Claim
from discorder.plane.shard_factory import Wrap
from discorder.rest import BotClient
from discorder.runtime.loops import on_loop
from discorder.runtime.moderation import moderate, run_moderated
from discorder.runtime.open_files import raise_open_file_limit
from discorder.service import Service
from discorder.tracking.tracker import GatewayTracker
from discorder.tracking.tracker_ref import TrackerRef
from discorder.transport.fault_grammar import Fault
from discorder.transport.proxies import DIRECT

__all__ = ["TrackerRef", "run", "serve", "shutdown"]

ConfigPath = str | os.PathLike[str]
Started = Callable[[ControlPlane], None]
LogOpened = Callable[[LogSetup, Config], None]


async def serve(
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    config_file_path: ConfigPath | None = None,
    take_over: bool = False,
    wait: float = 0.0,
) -> None:
    """Run the control plane until `shutdown`.

    ``client``: None creates one from ``DISCORD_BOT_TOKEN`` or ``gateway.token_file``; its HTTP session is closed at the end.
    ``tracker_ref``: filled once config, log and publishers are open, before the first dial. ``config_file_path``: None for
    the built-in defaults. ``take_over``: stop another process that holds the shards of this store (SIGTERM, then up to
    30 s); ``wait``: seconds to wait until it ends by itself. Its sessions are then resumed.

    Returns normally only after `shutdown`. Raises `ConfigError` (with `TokenMissing`, `AddressInUse`, `StoreLocked`),
    `UnusableFile`, `AuthenticationFailed`, `FatalCloseError`, `AttemptsExhausted`, and under ``gateway.fail_on_error`` the
    failure itself.
    Cancelling stops gracefully and then raises CancelledError.
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
    dependencies: PlaneDependencies | None = None,
    record: Path | None = None,
    record_raw: bool = False,
    faults: Sequence[Fault] = (),
    started: Started | None = None,
    log_opened: LogOpened | None = None,
) -> None:
    """Run the control plane like `serve`, with its dependencies as arguments.

    ``load`` returns the configuration; ``record``: the file for a recorded session; ``faults`` are injected into the connections;
    ``started`` is called with the plane before it runs, ``log_opened`` with the log as soon as it is open.
    """
    ref = TrackerRef() if tracker_ref is None else tracker_ref
    error: BaseException | None = None
    try:
        config = load()
        moderate(config.gateway.moderation_ms)
        around = dependencies or PlaneDependencies()
        with configure_logs(config.log, console=True) as log:
            if log_opened is not None:
                log_opened(log, config)
            client = client or BotClient(read_token(config))
            log.redact(client.token.reveal(), *config.gateway.proxies.secrets)
            client.api = client.api or config.gateway.api
            if client.proxies == DIRECT:
                client.proxies = config.gateway.proxies
            async with client:
                with (
                    _injecting(faults, around) as faulty,
                    _recording(record, record_raw, config, client, faulty) as recorded,
                ):
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
def _injecting(faults: Sequence[Fault], around: PlaneDependencies) -> Iterator[PlaneDependencies]:
    if not faults:
        yield around
        return
    from discorder.transport.faulty import FaultInjector  # noqa: PLC0415  # for staging only

    with FaultInjector(faults, around.clock) as injector:
        yield replace(around, wrap=_wrap_twice(around.wrap, injector.wrap))


def _wrap_twice(inner: Wrap | None, outer: Wrap) -> Wrap:
    if inner is None:
        return outer
    return lambda transport, shard: outer(inner(transport, shard), shard)


@contextlib.contextmanager
def _recording(
    path: Path | None, raw: bool, config: Config, client: BotClient, around: PlaneDependencies
) -> Iterator[PlaneDependencies]:
    if path is None:
        yield around
        return
    from discorder.transport.recording import SessionRecorder  # noqa: PLC0415  # only a recording needs it

    with SessionRecorder(
        path, clock=around.clock, api_url=config.gateway.api, raw=raw, secrets=[client.token.reveal()]
    ) as recorder:
        yield replace(around, wrap=_wrap_twice(around.wrap, recorder.wrap))


def run(
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    config_file_path: ConfigPath | None = None,
    take_over: bool = False,
    wait: float = 0.0,
) -> None:
    """Run `serve` in an event loop of its own, and block. SIGINT and SIGTERM stop gracefully, a second signal at once.

    SIGHUP reopens the log file and reloads ``[log]`` from the configuration. Arguments and errors are those of `serve`; an error
    that the program does not catch ends it like `discorder serve`: one line on stderr, and the exit code of the error.
    Raises RuntimeError outside the main thread; use `serve_in_background` there.
    """
    try:
        run_config(
            lambda: load_config(config_file_path),
            client=client,
            tracker_ref=tracker_ref,
            claim=Claim(take_over, wait),
        )
    except Exception as error:
        end_quietly(error)
        raise


def run_config(
    load: Callable[[], Config],
    *,
    client: BotClient | None = None,
    tracker_ref: TrackerRef | None = None,
    claim: Claim = NO_CLAIM,
    record: Path | None = None,
    record_raw: bool = False,
    faults: Sequence[Fault] = (),
    until_eof: bool = False,
) -> None:
    """Run the control plane like `run`, with its dependencies as arguments; see `serve_config`.

    ``until_eof``: also stop when standard input ends.
    """

    async def main() -> None:
        with Service(load, until_eof=until_eof) as service:
            await serve_config(
                load,
                client=client,
                tracker_ref=tracker_ref,
                claim=claim,
                record=record,
                record_raw=record_raw,
                started=service.plane_made,
                log_opened=service.log_opened,
                faults=faults,
            )

    if threading.current_thread() is not threading.main_thread():
        msg = "run() handles signals, so it works in the main thread only; in another thread call serve_in_background()"
        error = RuntimeError(msg)
        if tracker_ref is not None:
            tracker_ref.end(error)
        raise error
    raise_open_file_limit()
    run_moderated(main())


async def shutdown(tracker: GatewayTracker, *, goodbye: bool = False) -> None:
    """Stop the control plane of ``tracker``, in any state, and return when it has ended.

    The Discord sessions are kept, so that the next start resumes them; with ``goodbye`` they end and the bot goes offline. Works
    on any event loop, and does nothing after the end.
    """
    plane = tracker.plane
    with contextlib.suppress(NotRunning):
        plane.stop(goodbye=goodbye)
        await on_loop(plane.loop, plane.wait_ended())
