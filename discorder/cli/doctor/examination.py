"""Make all checks side by side, each with a time limit, and report them in a fixed order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from discorder.cli.doctor import account, facade, local, network, publishers, store
from discorder.cli.doctor.facts import DoctorFacts
from discorder.cli.doctor.finding import Finding, fail, failed, ok, warn
from discorder.config import Config, load_config, read_token
from discorder.config.report import warnings
from discorder.errors import ConfigError, TokenMissing

PORTAL_KEY = "gateway.intents: "  # its warnings are left to the check that asks the portal


class Check(NamedTuple):
    """One check, its name in the report, and the remedy if it has no result in time."""

    name: str
    run: Callable[[DoctorFacts], Awaitable[list[Finding]]]
    when_late: str


_NETWORK = "check the network, the firewall, the resolver and the proxy"
_DISK = "check the file system: a mount that hangs?"

CHECKS = (
    Check("token", account.check_token, _NETWORK),
    Check("intents", account.check_intents, _NETWORK),
    Check("shards", account.check_shards, _NETWORK),
    Check("budget", account.check_budget, _NETWORK),
    Check("proxy", network.check_proxy, _NETWORK),
    Check("dns", network.check_dns, "check the resolver (/etc/resolv.conf)"),
    Check("api", network.check_api, _NETWORK),
    Check("gateway", network.check_gateway, _NETWORK),
    Check("clock", network.check_clock, _NETWORK),
    Check("ports", local.check_ports, _DISK),
    Check("http", local.check_http, _DISK),
    Check("store", store.check_store, _DISK),
    Check("facade", facade.check_facade, _DISK),
    Check("publishers", publishers.check_publishers, _DISK),
    Check("log", local.check_log, _DISK),
    Check("files", local.check_open_files, _NETWORK),
)
"""The checks, in the order of the report."""


class Start(NamedTuple):
    """What can be read before any request: the findings so far, the configuration and the token. None where it is unusable."""

    findings: tuple[Finding, ...]
    config: Config | None
    token: str | None


def read_start(path: Path | None, overrides: Sequence[str]) -> Start:
    """Read configuration and token. Never raises `ConfigError`."""
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        rest = "the other checks were not made: they need a valid configuration"
        remedy = f"repair it, and run this again; {rest}"
        head, *below = str(error).splitlines()  # several problems stand below their number
        *others, last = [line.strip() for line in below] or [head]
        broken = [*(fail("config", one) for one in others), fail("config", last, remedy)]
        return Start(tuple(broken), None, None)
    shown = "built-in defaults" if path is None else str(path)
    findings = [ok("config", shown + (f" with {len(overrides)} --set" if overrides else ""))]
    findings += [warn("config", text) for text in warnings(config) if not text.startswith(PORTAL_KEY)]
    token = None
    with _warnings_of_readers() as records:
        try:
            token = read_token(config)
        except TokenMissing as error:
            text, _, remedy = str(error).partition(": ")
            findings.append(fail("token", text, remedy))
        except ConfigError as error:
            findings.append(failed("token", error))
    findings += [warn("token", f"{record.getMessage()} ({config.gateway.token_file})") for record in records]
    return Start(tuple(findings), config, token)


async def examine(config: Config, token: str | None, limit: float) -> AsyncIterator[list[Finding]]:
    """Make all checks at once; yield the findings of each, in order. ``limit``: seconds for each."""
    async with DoctorFacts(config, token, limit) as facts:
        running = [asyncio.create_task(_within(check, facts), name=check.name) for check in CHECKS]
        try:
            for task in running:
                yield await task
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _within(check: Check, facts: DoctorFacts) -> list[Finding]:
    try:
        async with asyncio.timeout(facts.limit):
            return await check.run(facts)
    except TimeoutError:
        return [fail(check.name, f"no result within {facts.limit:g} s", check.when_late)]


@contextmanager
def _warnings_of_readers() -> Iterator[list[logging.LogRecord]]:
    """Collect what the readers of the configuration log, and keep it off the console."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    log, collector = logging.getLogger("discorder"), Collector(logging.WARNING)
    log.addHandler(collector)
    propagates, log.propagate = log.propagate, False
    try:
        yield records
    finally:
        log.removeHandler(collector)
        log.propagate = propagates
