"""Check this machine: ports, status page, log file, open files. Blocking work runs in a thread."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from discorder.cli.doctor.facts import DoctorFacts
from discorder.cli.doctor.finding import Finding, Status, fail, failed, ok, warn
from discorder.cli.doctor.listeners import find_listener, objection
from discorder.cli.wording import counted
from discorder.config import Config
from discorder.config.http import AUTO
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import ConfigError, DiscorderError, UnusableFile
from discorder.http.operator_token import TokenFile, token_file
from discorder.http.tls import Certificate
from discorder.paths import IPC, resolve_path
from discorder.publishers.zeromq.endpoints import check_ipc_path
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.runtime.open_files import ENOUGH
from discorder.sessions.holder import Holder

FILES_PER_SHARD = 2  # its socket and its lock
OTHER_FILES = 64  # log, store, loop, publishers, some subscribers

_NEW_ADDRESS = "stop that process, or choose another address"


async def check_ports(facts: DoctorFacts) -> list[Finding]:
    """Try to bind each address that a start listens on."""
    try:
        holders = await facts.holders()
    except (DiscorderError, OSError):  # the line about the store reports it
        holders = []
    return await in_daemon_thread(lambda: list(_ports(facts.config, holders)), "check-ports")


def _ports(config: Config, holders: Sequence[Holder]) -> Iterator[Finding]:
    addresses = [
        (f"publishers.{publisher.name}.{key}", address)
        for publisher, _ in config.build_publishers()
        if isinstance(publisher, ZmqPublisher)
        for key, address in publisher.addresses
    ]
    for key, address in addresses:
        yield _ipc(key, address, holders) if address.startswith(IPC) else _tcp(key, address, holders)
    facade, page = config.facade.address, config.http.address
    if facade is not None and facade.port:
        yield _tcp("facade.bind", f"http://{facade}", holders)
    if page is not None and page.port:
        found = _tcp("http.bind", f"{config.http.scheme}://{page}", holders)
        if found.status is Status.FAIL and not config.http_bind_set:
            found = warn("ports", f"{found.text}; a start would run without the status page", _NEW_ADDRESS)
        yield found
    if not addresses and page is None and facade is None:
        yield ok("ports", "none is named by the configuration")


def _tcp(key: str, address: str, holders: Sequence[Holder]) -> Finding:
    host, _, port = address.partition("://")[2].rpartition(":")
    reason = objection(host.strip("[]"), int(port))
    if reason is None:
        return ok("ports", f"{key}: {address} is free")
    listener = find_listener(int(port))
    if listener is not None and listener.pid in {holder.pid for holder in holders}:
        return ok("ports", f"{key}: {address} is used by the control plane that runs now, {listener}")
    whose = "" if listener is None else f", by {listener}"
    return fail("ports", f"{key}: {address} cannot be used: {reason}{whose}", _NEW_ADDRESS)


def _ipc(key: str, address: str, holders: Sequence[Holder]) -> Finding:
    path = Path(address.removeprefix(IPC))
    try:
        check_ipc_path(key, address)
    except ConfigError as error:
        if holders:
            return warn("ports", f"{key}: {address} is in use; a control plane of this store runs now", _NEW_ADDRESS)
        return failed("ports", error)
    if not str(path).startswith("@") and (reason := unwritable(path)) is not None:
        return fail("ports", f"{key}: no socket can be made at {address}: {reason}", "choose a folder of your own")
    return ok("ports", f"{key}: {address} is free")


async def check_http(facts: DoctorFacts) -> list[Finding]:
    """Check the TLS files of the status page, and the file of the operator token."""
    return await in_daemon_thread(lambda: list(_http(facts.config)), "check-http")


def _http(config: Config) -> Iterator[Finding]:
    http = config.http
    if http.address is None:
        yield ok("http", 'off (http.bind = "")')
        return
    try:
        if http.tls_cert_file:
            Certificate(resolve_path(http.tls_cert_file), resolve_path(http.tls_key_file))
    except ConfigError as error:
        yield failed("http", error)
        return
    try:
        token = token_file(config)
        made = _read_operator_token(token)
    except UnusableFile as error:
        chosen = http.operator_token_file != AUTO
        state = fail if chosen else warn  # without "auto" a start runs without operator commands
        yield state("http", str(error), "name another file, or remove it to have one made")
        return
    commands = "operator commands are off" if token is None else f"operator token {token.path}{made}"
    yield ok("http", f"{http.scheme}://{http.address}/, {commands}")


def _read_operator_token(token: TokenFile | None) -> str:
    """Return what to say of the file. Raises UnusableFile for one that a start refuses."""
    try:
        if token is not None:
            token.read()
    except FileNotFoundError:
        return ", which the first start makes"
    return ""


async def check_log(facts: DoctorFacts) -> list[Finding]:
    """Check that the log file can be written."""
    setting = facts.config.log.file
    if not setting:
        return [ok("log", f"console, {facts.config.log.level} and above")]
    path = resolve_path(setting)
    reason = await in_daemon_thread(lambda: unwritable(path), "check-log")
    if reason is not None:
        return [fail("log", f"log.file: {path} cannot be written: {reason}", "make its folder, or name another file")]
    return [ok("log", f"{path} can be written")]


async def check_open_files(facts: DoctorFacts) -> list[Finding]:
    """Compare the limit of open files with what the shards need."""
    layout = await facts.layout()
    shards = 1 if layout is None else len(layout[0])
    needed = FILES_PER_SHARD * shards + OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    text = f"{granted:,} may be open, about {needed:,} are needed for {counted(shards, 'shard')}"
    if granted < needed:
        return [fail("files", text, "raise the hard limit (ulimit -Hn; LimitNOFILE= of a systemd unit)")]
    return [ok("files", text)]


def unwritable(path: Path) -> str | None:
    """Return why ``path`` cannot be written or made, in a few words; None if it can. Opens nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist"
        return None if os.access(path.parent, os.W_OK | os.X_OK) else f"the folder {path.parent} is not writable"
    except OSError as error:
        return error.strerror or str(error)
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)):
        return "it is no regular file"
    return None if os.access(path, os.W_OK) else "permission denied"
