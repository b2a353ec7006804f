"""The configuration: loaded, checked, explained; and the bot token, which never stands in it.

`load_config` reads one TOML file and the ``--set`` overrides and returns a `Config` in which every value is valid, or raises
one `ConfigError` that lists all that is wrong. It opens nothing but that file: what a value names is opened by its user.
The keys: schema.py. TOML and overrides: source.py. The text of ``check-config``: report.py.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

import msgspec

from discorder.config.report import describe
from discorder.config.schema import (
    TOKEN_VARIABLE,
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
from discorder.publishers import registry
from discorder.redaction import Redactor

__all__ = [
    "Compress",
    "Config",
    "Gateway",
    "Log",
    "LogFormat",
    "LogLevel",
    "Session",
    "ShardSet",
    "describe",
    "load_config",
    "read_token",
    "sample_config",
]

MAX_TOKEN_BYTES = 4096  # of a token file; Discord's tokens have about 72

_log = logging.getLogger(__name__)
S = TypeVar("S", bound=msgspec.Struct)


def load_config(path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``path`` (None: the defaults), with ``KEY=VALUE`` overrides applied in order.

    Raises `ConfigError`, which for each problem names the key, the file or ``--set``, the value and what is allowed.
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
        publishers=_publishers(source.tree.get("publishers"), report),
    )
    if problems:
        raise ConfigError(_explain(problems, source))
    return config


def read_token(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """The bot token: ``DISCORD_BOT_TOKEN``, or else what stands in ``gateway.token_file``.

    Raises `TokenMissing` when neither gives one, `ConfigError` when the file is unreadable or holds something else.
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
    if not token.isascii() or not token.isprintable() or any(sign in token for sign in " \"'`"):
        msg = f"{origin}: not a bot token: it holds quotes, spaces or letters outside ASCII; write the token alone"
        raise ConfigError(msg)
    return token


def sample_config(name: Literal["dev", "prod", "demo"]) -> str:
    """The text of one of the commented configurations that ship with Discorder."""
    return (importlib.resources.files("discorder") / "etc" / f"{name}.toml").read_text(encoding="utf-8")


def _section(name: str, cls: type[S], source: Source, report: Report) -> S:
    checked = check_section(name, cls, source.tree.get(name, {}), report)
    return cls() if checked is None else checked


def _publishers(tables: object, report: Report) -> Mapping[str, Table]:
    """The tables, each tried on its publisher. Building one opens nothing."""
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
    """One line for one problem, a list for more."""
    redact = Redactor()
    lines = []
    for key, text in problems:
        named = text if text.startswith(key) else f"{key}: {text}"
        lines.append(redact(f"{source.place(key)}: {named}"))
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} problems in the configuration:\n" + "\n".join(f"  {line}" for line in lines)


def _read_token_file(path: str, origin: str) -> str:
    """What stands in the file, without white space around it."""
    try:
        with Path(path).expanduser().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_TOKEN_BYTES + 1)
            token = content.decode("ascii").strip()
    except UnicodeDecodeError:
        msg = f"{origin}: the file holds something else than a bot token"
        raise ConfigError(msg) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory for ~
        reason = error.strerror if isinstance(error, OSError) else str(error)
        msg = Redactor()(f"{origin}: cannot be read: {reason}; it must be the path of a file that holds the bot token")
        raise ConfigError(msg) from None
    if not token or len(content) > MAX_TOKEN_BYTES:
        msg = f"{origin}: the file is {'empty' if not token else 'too long'}; it must hold the bot token alone"
        raise ConfigError(msg)
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning(
            "The token file can be read by others; chmod 600 it", extra={"path": path, "mode": f"{mode & 0o777:04o}"}
        )
    return token
