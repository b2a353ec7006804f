"""Run the façade in a process of its own: `discorder facade`. A control plane feeds it over the bus, and sends its commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from discorder.bot.bus_link import BusLink
from discorder.bot.sockets import CurveKeys, check_address
from discorder.clock import SystemClock
from discorder.config import Config, read_token
from discorder.errors import ConfigError
from discorder.facade.bus_commands import BusCommands
from discorder.facade.follower import Follower
from discorder.facade.journal_setup import make_copy
from discorder.facade.opening import Facade
from discorder.facade.reporter import Reporter
from discorder.logs import configure_logs, logger
from discorder.rest import BotClient
from discorder.runtime.hangup import on_hangup
from discorder.runtime.moderation import moderate, run_moderated
from discorder.runtime.notify import READY, STOPPING, WATCHDOG, Notifier
from discorder.runtime.open_files import raise_open_file_limit
from discorder.transport.proxies import DIRECT
from discorder.wire import replay_address

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTIFY_SECONDS = 1.0  # or half the watchdog's time if that is less


def run_facade(load: Callable[[], Config], bus: str, keys: CurveKeys | None) -> None:
    """Serve bots until SIGINT or SIGTERM; a second signal stops at once. ``bus``: where the control plane publishes.

    Raises `ConfigError` (with `AddressInUse`, `JournalInUse` and `TokenMissing`), `UnusableFile`, and `GuildsNotKept` for a
    control plane without a journal.
    """
    raise_open_file_limit()
    run_moderated(_main(load, bus, keys))


async def _main(load: Callable[[], Config], bus: str, keys: CurveKeys | None) -> None:
    config = load()
    moderate(config.gateway.moderation_ms)
    with configure_logs(config.log.for_console, console=True) as log:
        client = BotClient(read_token(config))
        log.redact(client.token.reveal(), *config.gateway.proxies.secrets)
        client.api = client.api or config.gateway.api
        if client.proxies == DIRECT:
            client.proxies = config.gateway.proxies
        process = _Process(config, client, bus, keys)
        with process.handle_signals():
            await process.run()
        logger.info("Shut down completely")


class _Process:
    """The façade, what it is fed by, and the signals."""

    def __init__(self, config: Config, client: BotClient, bus: str, keys: CurveKeys | None) -> None:
        try:
            check_address(bus)
            router = replay_address(bus)
            loaded = None if keys is None else keys.load()
        except ValueError as error:
            msg = f"--bus: {error}"
            raise ConfigError(msg) from None
        clock = SystemClock()
        self._journal = make_copy(config, client.token, clock)
        self._feed_link = BusLink(router, loaded)
        self._command_link = BusLink(router, loaded)
        self._facade = Facade(config, self._journal, client, BusCommands(self._command_link, clock), clock)
        self._follower = Follower(self._feed_link, self._journal, clock, self._on_new_instance)
        self._reporter = Reporter(self._command_link, clock, self._facade.status)
        self._stopping = asyncio.Event()
        self._hurried = False

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Stop at a signal while the body runs."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop_signal)
        with on_hangup(lambda: logger.info("SIGHUP is ignored, the façade has no log file")):
            yield
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)

    async def run(self) -> None:
        """Serve bots until `_stopping` is set."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._facade.bind()
            await self._journal.open()
            await self._facade.start()
            stop = asyncio.create_task(self._wait_stopping(), name="facade-stop")
            tasks = [
                stop,
                asyncio.create_task(self._follower.run(), name="facade-follower"),
                asyncio.create_task(self._reporter.run(), name="facade-reporter"),
                asyncio.create_task(self._notify(), name="facade-notify"),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except Exception as error:
            logger.error("The façade ends", pid=os.getpid(), error=str(error))
            raise
        finally:
            await self._facade.close(hurried=self._hurried)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._journal.close()
            await self._feed_link.close()
            await self._command_link.close()

    def _on_stop_signal(self) -> None:
        self._hurried = self._stopping.is_set()
        self._stopping.set()

    async def _wait_stopping(self) -> None:
        await self._stopping.wait()

    def _on_new_instance(self) -> None:
        logger.info("The control plane was started again")
        if self._facade.server is not None:
            self._facade.server.services.commands.repeat_presences()

    async def _notify(self) -> None:
        """Notify the service manager that the façade listens, and from then on that its event loop runs."""
        notifier = Notifier.of()
        if notifier is None:
            await asyncio.Event().wait()
            return
        try:
            notifier.send(READY, "STATUS=Serving bots")
            every = NOTIFY_SECONDS if notifier.watchdog is None else min(NOTIFY_SECONDS, notifier.watchdog / 2)
            while True:
                if notifier.watchdog is not None:
                    notifier.send(WATCHDOG)
                await asyncio.sleep(every)
        finally:
            notifier.send(STOPPING, "STATUS=Stopping")
