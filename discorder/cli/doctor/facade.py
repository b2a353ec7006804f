"""Check what the façade needs: the token of each bot, the socket of a service manager, and the directory of the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from discorder.cli.doctor.facts import DoctorFacts
from discorder.cli.doctor.finding import Finding, fail, failed, not_checked, ok, warn
from discorder.cli.journal import is_empty, journal_directory
from discorder.cli.wording import counted
from discorder.config import Config
from discorder.config.facade import SYSTEMD
from discorder.config.http import AUTO
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import ConfigError, DiscorderError, UnusableFile
from discorder.facade.clients import check_clients, read_client_token

_ONCE = "nothing is to be done: it happens once, as soon as the budget allows it"


async def check_facade(facts: DoctorFacts) -> list[Finding]:
    """Check the tokens of the bots, then the journal."""
    config, token = facts.config, facts.token
    if not config.facade.keeps_journal:
        return [ok("facade", 'off (facade.bind = "", and no [facade.clients.NAME])')]
    findings = await in_daemon_thread(lambda: list(_bots(config, token)), "check-bots")
    if token is None:
        text = "the directory of the journal: its name depends on the bot"
        return [*findings, not_checked("facade", text, "see the line token")]
    try:
        directory = journal_directory(config, token)
    except (ConfigError, UnusableFile) as error:
        return [*findings, failed("facade", error)]
    if directory is not None:
        findings += await _journal(facts, directory)
    return findings


def _bots(config: Config, token: str | None) -> Iterator[Finding]:
    facade, wrong = config.facade, False
    for name, settings in facade.clients.items():
        try:
            _, is_open = read_client_token(name, settings)
        except ConfigError as error:
            wrong = True
            yield failed("facade", error)
        else:
            if is_open:
                text = f"facade.clients.{name}.token_file: {settings.token_file} can be read by others"
                yield warn("facade", text, f"chmod 600 {settings.token_file}")
    if wrong:
        return
    try:
        check_clients(facade.clients, token or "")
    except ConfigError as error:
        yield failed("facade", error)
        return
    where = f"at {facade.bind}" if facade.bind else "in a process of its own (discorder facade)"
    if facade.bind == SYSTEMD:
        where = "at the socket of its systemd unit, which is not checked"
    real = " and each with the real token" if facade.tokens == "real" else ""  # a setting
    yield ok("facade", f"{counted(len(facade.clients), 'bot')}{real} may connect, {where}")


async def _journal(facts: DoctorFacts, directory: Path) -> list[Finding]:
    beside_store = facts.config.facade.journal == AUTO
    reason = await in_daemon_thread(lambda: _unusable(directory, beside_store=beside_store), "check-journal")
    if reason is not None:
        text = f"facade.journal: {directory} cannot be used: {reason}"
        return [fail("facade", text, "name a directory that this user can make or write to")]
    if not await in_daemon_thread(lambda: is_empty(directory), "look-at-journal"):
        return [ok("facade", f"journal {directory}")]
    try:
        found = await facts.survey()
        resumed = len(found.layout[0]) - len(found.to_identify)
    except DiscorderError:  # the line about the budget reports it
        resumed = 0
    if not resumed:
        return [ok("facade", f"journal {directory}, which the first start fills")]
    shards = counted(resumed, "shard")
    text = f"the journal {directory} has no guilds yet: a start resumes {shards}, and then identifies to get the guilds"
    return [warn("facade", text, _ONCE)]


def _unusable(directory: Path, *, beside_store: bool) -> str | None:
    """Return why no journal can be kept in ``directory``; None if one can. Blocks."""
    try:
        if directory.is_dir():
            return None if os.access(directory, os.R_OK | os.W_OK | os.X_OK) else "permission denied"
        if directory.exists():
            return "it is no directory"
    except OSError as error:
        return error.strerror or str(error)
    parent = directory.parent
    if beside_store or (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        return None  # the line about the store checks the folder of the store
    return f"the folder {parent} is not writable" if parent.is_dir() else f"the folder {parent} does not exist"
