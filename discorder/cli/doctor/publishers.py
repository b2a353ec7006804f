"""Check the publishers: their files and keys, and whether their servers would be accepted at a start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from discorder.cli.doctor.facts import DoctorFacts
from discorder.cli.doctor.finding import Finding, fail, failed, not_checked, ok, warn
from discorder.cli.doctor.local import unwritable
from discorder.curve import load_pair
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import ConfigError, DiscorderError
from discorder.facade.clients import bot_id_of
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import BotAwarePublisher, ExaminedPublisher, Publisher

CHECK = "publishers"
ANSWER_WITHIN = 5.0  # seconds for each server, also if the checks may take longer


async def check_publishers(facts: DoctorFacts) -> list[Finding]:
    """Check that each publisher can be opened. Those that have a server connect to it and change nothing there."""
    built = await in_daemon_thread(facts.config.build_publishers, "build-publishers")
    if not built:
        text = "there is none: events are received, and go nowhere"
        return [warn(CHECK, text, "add a table [publishers.NAME]")]
    found = await asyncio.gather(*(_check(facts, publisher, options) for publisher, options in built))
    return [finding for findings in found for finding in findings]


async def _check(facts: DoctorFacts, publisher: Publisher, options: DeliveryOptions) -> Sequence[Finding]:
    if isinstance(publisher, ExaminedPublisher):
        return await _check_server(facts, publisher, options)
    return [await in_daemon_thread(lambda: _check_files(publisher, options), "check-publishers")]


def _check_files(publisher: Publisher, options: DeliveryOptions) -> Finding:
    key = f"publishers.{publisher.name}"
    path = getattr(publisher, "path", None)
    secret = getattr(options, "curve_secret_file", "")
    reason = unwritable(path) if isinstance(path, Path) else None
    if reason is not None:
        return fail(CHECK, f"{key}.path: {path} cannot be written: {reason}", "name a file that you can write")
    try:
        if secret:
            load_pair(secret, f"{key}.curve_secret_file")
    except ConfigError as error:
        return failed(CHECK, error)
    where = f", {path} can be written" if isinstance(path, Path) else ""
    return ok(CHECK, f"{key}: {type(publisher).__name__}{where}")


async def _check_server(facts: DoctorFacts, publisher: ExaminedPublisher, options: DeliveryOptions) -> list[Finding]:
    key = f"publishers.{publisher.name}"
    if isinstance(publisher, BotAwarePublisher) and not getattr(options, "prefix", ""):
        if facts.token is None:
            return [
                not_checked(CHECK, f"{key}: its prefix is made of the bot token", "repair the line about the token")
            ]
        publisher.belongs_to(bot_id_of(facts.token))
    seconds = min(facts.limit / 2, ANSWER_WITHIN)
    try:
        async with asyncio.timeout(seconds):
            concerns = await publisher.examine()
    except TimeoutError:
        return [fail(CHECK, f"{key}: no answer of its server within {seconds:g} s", "start it, or correct its address")]
    except DiscorderError as error:
        return [failed(CHECK, error)]
    found = ok(CHECK, f"{key}: {type(publisher).__name__}, its server answers and can be used")
    return [warn(CHECK, f"{key}: {text}", remedy) for text, remedy in concerns] or [found]
