"""Check the session store: place, rights, owner of the shards, and whether the stored sessions can be resumed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from discorder.cli.doctor.facts import DoctorFacts, NoToken
from discorder.cli.doctor.finding import Finding, fail, failed, not_checked, ok, warn
from discorder.cli.wording import counted
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import DiscorderError, StoreLocked, StoreUnavailable, UnusableFile
from discorder.plane.session_persistence import Layout, why_unfit
from discorder.rest.hosts import Hosts
from discorder.rest.http import RequestFailed
from discorder.sessions import Reading, StoredSession, bot_key, fitting, read_store, token_key
from discorder.sessions.integrity import check_owner

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


async def check_store(facts: DoctorFacts) -> list[Finding]:
    """Check the file, then what it holds."""
    try:
        path = facts.store
    except NoToken as error:
        return [not_checked("store", f"{error}, and its name depends on the bot", "see the line token")]
    except UnusableFile as error:
        return [failed("store", error)]
    if path is None:
        text = 'in memory (session.store = ""): a restart identifies anew, and the budget is not kept'
        return [warn("store", text, 'set session.store to "auto" or to a path')]
    findings = await in_daemon_thread(lambda: list(_file(path)), "check-store")
    if any(finding.status == "fail" for finding in findings) or facts.token is None:
        return findings
    findings += await _owners(facts)
    if path.exists():
        findings += await _contents(facts, path, facts.token)
    return findings


def _file(path: Path) -> Iterator[Finding]:
    """Check place, owner and rights. Blocks."""
    if not path.exists():
        folder = next(one for one in path.parents if one.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            yield fail("store", f"{path} cannot be made: {folder} is not writable", "choose another [session] store")
        else:
            yield ok("store", f"{path} is not there yet; the first start makes it")
        return
    try:
        check_owner(path)
    except UnusableFile as error:
        yield failed("store", error)
        return
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        text = f"{path} or its folder cannot be written by user {os.geteuid()}: sessions and budget would not be stored"
        yield fail("store", text, "chown the folder and what is in it, or choose another [session] store")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        text = f"{path} can be read by others (mode {mode:04o}); its session ids let their reader act as the bot"
        yield warn("store", text, f"chmod 600 {path}")


async def _owners(facts: DoctorFacts) -> list[Finding]:
    """Report the processes that hold the shards."""
    try:
        holders = await facts.holders()
    except StoreLocked as error:
        return [warn("store", str(error))]
    except OSError as error:
        text = f"the locks of the shards cannot be read: {error.strerror or error}"
        return [fail("store", text, "chown the folder .locks beside the store to the user of the service")]
    now = facts.clock.now()
    unique = {(holder.pid, holder.shards): holder for holder in holders}
    refused = "a second start is refused with exit code 73"
    return [ok("store", f"in use: {holder.describe(now)}; {refused}") for holder in unique.values()]


async def _contents(facts: DoctorFacts, path: Path, token: str) -> list[Finding]:
    """Report the stored sessions that a start could not resume."""
    bot = bot_key(token)
    try:
        found = await in_daemon_thread(lambda: read_store(path, bot), "read-store")
    except StoreUnavailable as error:
        return [fail("store", str(error), "a damaged store is set aside at the next start, which identifies anew")]
    sessions, findings = found.sessions, list[Finding]()
    layout = await facts.layout()
    if layout is not None:
        findings += list(_paused(found, layout))
        findings += list(_misfits(sessions, layout, facts.config.gateway.intents_value, token_key(token)))
    findings += list(_strangers(facts, sessions, await _main_host(facts)))
    if findings:
        return findings
    return [ok("store", f"{path} holds {counted(len(sessions), 'session')} to resume")]


def _paused(found: Reading, layout: Layout) -> Iterator[Finding]:
    ids, count = layout
    for (shard, of), since in sorted(found.pauses.items()):
        if of == count and shard in ids:
            text = f"an operator paused shard {shard}/{of} on {since:%Y-%m-%d %H:%M} UTC: it stays without a connection"
            yield warn(
                "store", text, f"once it may connect again, and a control plane runs: discorder shards unpause {shard}"
            )


def _misfits(sessions: Sequence[StoredSession], layout: Layout, intents: int, key: str) -> Iterator[Finding]:
    ids, count = layout
    fit = set(fitting(sessions, count, intents, key).values()) if sessions else set()
    causes: dict[str, list[str]] = {}
    for session in sessions:
        ours = session.shard_count != count or session.shard_id in ids
        if session not in fit and ours:
            cause = why_unfit(session, (session.shard_id, count), intents, key)
            causes.setdefault(cause, []).append(f"{session.shard_id}/{session.shard_count}")
    for cause, shards in causes.items():
        names = " ".join(shards)
        text = f"the stored sessions of shard {', '.join(shards)} cannot be resumed: {cause}; a start identifies anew"
        yield warn("store", text, f"change it back, or drop them: discorder sessions drop {names}")


def _strangers(facts: DoctorFacts, sessions: Sequence[StoredSession], main: str | None) -> Iterator[Finding]:
    gateway = facts.config.gateway
    hosts = Hosts(gateway.api, insecure=gateway.insecure_api)
    for session in sessions:
        if main is None and not hosts.is_decidable(session.resume_url):
            continue
        objection = hosts.objection_to(session.resume_url, main)
        if objection is not None:
            name = f"{session.shard_id}/{session.shard_count}"
            text = f"the stored session of shard {name} belongs to another host: {objection}"
            yield warn("store", text, f"if that host is not meant any more: discorder sessions drop {name}")


async def _main_host(facts: DoctorFacts) -> str | None:
    try:
        return (await facts.api_answer()).gateway_url
    except (RequestFailed, DiscorderError):
        return None
