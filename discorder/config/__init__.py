"""Load and check the configuration, and read the bot token, which is never part of it.

`load_config` reads one TOML file and the ``--set`` overrides, and returns a valid `Config` or raises one `ConfigError` that
lists every problem. Keys: schema.py. TOML and overrides: source.py. Output of ``check-config``: report.py.
"""

from __future__ import annotations

import codecs
import errno
import importlib.resources
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

import msgspec

from discorder.config import facade, http
from discorder.config.facade import Facade, FacadeClient
from discorder.config.http import AUTO, Http
from discorder.config.report import describe
from discorder.config.schema import (
    TOP_LEVEL,
    Compress,
    Config,
    Gateway,
    Log,
    LogFormat,
    LogLevel,
    Report,
    Session,
    ShardSet,
    Table,
    check_section,
    show,
    unknown_key,
)
from discorder.config.source import Source, read_source
from discorder.errors import ConfigError, TokenMissing
from discorder.paths import IPC, FileUse, find_clash, is_open_to_others, read_small_file, resolve_endpoint, resolve_path
from discorder.publishers import registry
from discorder.redaction import TOKEN_VARIABLE, Redactor
from discorder.transport.address import UNENCRYPTED, keeps_token_private

__all__ = [
    "Compress",
    "Config",
    "Facade",
    "FacadeClient",
    "Gateway",
    "Http",
    "Log",
    "LogFormat",
    "LogLevel",
    "Session",
    "ShardSet",
    "describe",
    "load_config",
    "read_token",
    "refuse_shared_files",
    "sample_config",
]

# endings of the files beside a session store
STORE_FILES = (
    "-wal",
    "-shm",
    "-journal",
    ".locks",
    ".operator-token",
    ".journal",
)
MAX_TOKEN_BYTES = 4096  # of a token or its file; Discord's tokens have about 72

_log = logging.getLogger(__name__)
S = TypeVar("S", bound=msgspec.Struct)


def load_config(
    path: str | os.PathLike[str] | None, overrides: Sequence[str] = (), *, publishers: bool = True
) -> Config:
    """Return the configuration in ``path`` (None: the defaults), with ``KEY=VALUE`` overrides applied in order.

    ``publishers``: False leaves those tables out, unchecked: loading publishers takes time, and some may be installed elsewhere.

    Raises `ConfigError`, which for each problem names the key, the file or ``--set``, the value and the allowed values.
    """
    source = read_source(path, overrides)
    problems: list[tuple[str, str]] = []

    def report(key: str, text: str) -> None:
        problems.append((key, text))

    for key in [key for key in source.tree if key not in TOP_LEVEL]:
        report(key, unknown_key(key, "", TOP_LEVEL))
    config = Config(
        gateway=_section("gateway", Gateway, source, report),
        log=_section("log", Log, source, report),
        session=_section("session", Session, source, report),
        http=_section("http", Http, source, report),
        facade=_facade(source, report),
        http_bind_set=source.sets("http", "bind"),
        publishers=_publishers(source.tree.get("publishers"), report) if publishers else {},
    )
    if not config.gateway.insecure_api and not keeps_token_private(config.gateway.api):
        report("gateway.api", f"{show(config.gateway.api)} {UNENCRYPTED}")
    for key, text in (
        *http.contradictions(config.http),
        *facade.contradictions(config.facade, config.http, config.session.store, config.publishers),
    ):
        report(key, text)
    if problems:
        raise ConfigError(_explain(problems, source))
    refuse_shared_files(config, [FileUse("the configuration file", Path(path))] if path is not None else [])
    return config


def read_token(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Return the bot token from ``DISCORD_BOT_TOKEN``, or else from ``gateway.token_file``.

    Raises `TokenMissing` when neither is set, `ConfigError` when the file is unreadable or contains no token.
    """
    token = environ.get(TOKEN_VARIABLE, "").strip()
    origin = TOKEN_VARIABLE
    if not token and config.gateway.token_file:
        origin = f"gateway.token_file = {show(config.gateway.token_file)}"
        token = _read_token_file(config.gateway.token_file, origin)
    if not token:
        msg = (
            f"no bot token: set the environment variable {TOKEN_VARIABLE}, "
            "or set gateway.token_file to the path of a file that holds the token"
        )
        raise TokenMissing(msg)
    if token.startswith(("Bot ", "Bearer ")):
        msg = f"{origin}: write the token alone, without the word in front of it"
        raise ConfigError(msg)
    if len(token) > MAX_TOKEN_BYTES:
        msg = f"{origin}: not a bot token: it has {len(token)} characters; write the token alone"
        raise ConfigError(msg)
    if not token.isascii() or not token.isprintable() or any(sign in token for sign in " \"'`"):
        msg = f"{origin}: not a bot token: it holds quotes, spaces or letters outside ASCII; write the token alone"
        raise ConfigError(msg)
    return token


def refuse_shared_files(config: Config, more: Iterable[FileUse] = ()) -> None:
    """Raise ConfigError if two keys name one file, over links too, or if a path cannot be used.

    ``more``: files that the command line names.
    """
    uses = [use for use in (*more, *_uses(config)) if not _is_device(use)]
    clash = find_clash(uses)
    if clash is not None:
        one, other, path = clash
        msg = f"{one} and {other} name the same file, {path}; give each a file of its own"
        raise ConfigError(msg)


def _is_device(use: FileUse) -> bool:
    try:
        return use.path.is_char_device()
    except OSError as error:  # a name that is too long, a directory that this user may not search
        msg = f"{use.key}: {show(str(use.path))} cannot be used: {error.strerror or error}; {_remedy(error)}"
        raise ConfigError(Redactor()(msg)) from None


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return "write a shorter path"
    return "write the path of a file that this user can reach, or let this user search its directories"


def sample_config(name: Literal["dev", "prod", "demo"]) -> str:
    """Return the text of one of the commented configurations that ship with Discorder."""
    return (importlib.resources.files("discorder") / "etc" / f"{name}.toml").read_text(encoding="utf-8")


def _section(name: str, cls: type[S], source: Source, report: Report) -> S:
    checked = check_section(name, cls, source.tree.get(name, {}), report)
    return cls() if checked is None else checked


def _facade(source: Source, report: Report) -> Facade:
    table = source.tree.get("facade", {})
    if not isinstance(table, dict):
        return _section("facade", Facade, source, report)
    own = check_section("facade", Facade, {key: value for key, value in table.items() if key != "clients"}, report)
    clients = facade.check_clients(
        table.get("clients", {}), lambda section, cls, one: check_section(section, cls, one, report), report
    )
    return msgspec.structs.replace(own or Facade(), clients=clients)


def _publishers(tables: object, report: Report) -> Mapping[str, Table]:
    """Check each table by building its publisher, which opens nothing."""
    if tables is None:
        return Config().publishers
    if not isinstance(tables, dict):
        report("publishers", f"{show(tables)} is not a table; write [publishers.NAME] for each publisher")
        return {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            report(f"publishers.{name}", f"{show(table)} is not a table; write [publishers.NAME] for each publisher")
            continue
        try:
            registry.build(name, table)
        except ConfigError as error:
            text = str(error)  # starts with the key that is wrong
            named = re.match(rf"{re.escape(f'publishers.{name}')}[\w.]*", text)
            report(named[0].rstrip(".") if named else f"publishers.{name}", text)
    return cast("Mapping[str, Table]", tables)


def _explain(problems: list[tuple[str, str]], source: Source) -> str:
    """Return one line for one problem, a list for several."""
    redact = Redactor()
    lines = []
    for key, text in problems:
        named = text if text.startswith(key) else f"{key}: {text}"
        lines.append(redact(f"{source.place(key)}: {named}"))
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} problems in the configuration:\n" + "\n".join(f"  {line}" for line in lines)


def _read_token_file(path: str, origin: str) -> str:
    """Return the content of the token file, without white space around it."""
    try:
        place = resolve_path(path)
        found = place.stat()
        content = read_small_file(place, MAX_TOKEN_BYTES + 1)
        token = content.removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except UnicodeDecodeError:
        msg = f"{origin}: the file holds something else than a bot token"
        raise ConfigError(msg) from None
    except (OSError, ValueError) as error:  # ValueError: no home directory for ~
        reason = error.strerror if isinstance(error, OSError) else str(error)
        msg = Redactor()(f"{origin}: cannot be read: {reason}; it must be the path of a file that holds the bot token")
        raise ConfigError(msg) from None
    if not token or len(content) > MAX_TOKEN_BYTES:
        msg = f"{origin}: the file is {'empty' if not token else 'too long'}; it must hold the bot token alone"
        raise ConfigError(msg)
    if stat.S_ISREG(found.st_mode) and is_open_to_others(found):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        _log.warning("The token file can be read by others; chmod 600 it", extra={"path": path, "mode": mode})
    return token


def _uses_of_http(own: Http) -> Iterator[FileUse]:
    if own.tls_cert_file:
        yield FileUse("http.tls_cert_file", resolve_path(own.tls_cert_file))
    if own.tls_key_file not in {"", own.tls_cert_file}:  # one file may hold both
        yield FileUse("http.tls_key_file", resolve_path(own.tls_key_file))
    if own.operator_token_file not in {"", AUTO}:
        yield FileUse("http.operator_token_file", resolve_path(own.operator_token_file))


def _uses_of_facade(own: Facade) -> Iterator[FileUse]:
    if own.journal not in {"", AUTO}:
        yield FileUse("facade.journal", resolve_path(own.journal))
    for name, client in own.clients.items():
        yield FileUse(f"facade.clients.{name}.token_file", resolve_path(client.token_file))


def _uses(config: Config) -> Iterator[FileUse]:
    if config.gateway.token_file:
        yield FileUse("gateway.token_file", resolve_path(config.gateway.token_file))
    if config.log.file:
        yield FileUse("log.file", resolve_path(config.log.file), rotates=True)
    if config.session.store not in {"", "auto"}:
        yield FileUse("session.store", resolve_path(config.session.store), beside=STORE_FILES)
    yield from _uses_of_http(config.http)
    yield from _uses_of_facade(config.facade)
    for publisher, _ in config.build_publishers():
        path = getattr(publisher, "path", None)
        if isinstance(path, Path):
            yield FileUse(f"publishers.{publisher.name}.path", resolve_path(path), rotates=True)
    for name, table in config.publisher_tables().items():
        for key, value in table.items():
            endpoints = value if isinstance(value, list | tuple) else [value]
            for endpoint in endpoints:
                if isinstance(endpoint, str) and endpoint.startswith(IPC):
                    socket = Path(resolve_endpoint(endpoint).removeprefix(IPC)).absolute()
                    yield FileUse(f"publishers.{name}.{key}", socket, beside=(".replay",))
