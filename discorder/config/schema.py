"""Define every key of the configuration with its type, default and range, and check a table against them.

Publishers check their own tables.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, get_type_hints
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from discorder.config import facade, http
from discorder.config.facade import Facade
from discorder.config.http import Http
from discorder.config.intents import DEFAULT, INTENTS, RENAMED, UNPRIVILEGED_NAMES, intents_value
from discorder.paths import resolve_path
from discorder.publishers import registry
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import Publisher
from discorder.transport.proxies import Proxies, checked_proxy

Table = dict[str, object]
Report = Callable[[str, str], None]  # dotted key, problem


class Compress(StrEnum):
    """How the gateway's messages are compressed (docs/protocol.md#compression)."""

    AUTO = "auto"
    ZLIB_STREAM = "zlib-stream"
    ZSTD_STREAM = "zstd-stream"
    PAYLOAD = "payload"
    NONE = "none"


class LogLevel(StrEnum):
    """Records below this level are not written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """How the log file is written; the console is always text."""

    TEXT = "text"
    JSON = "json"


class ShardSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of a bot's shards: ``ids`` out of ``of``. Other processes run the rest."""

    ids: tuple[int, ...]
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.of <= MAX_SHARDS:
            msg = f"of = {self.of} is not between 1 and {MAX_SHARDS}"
        elif outside := [shard for shard in self.ids if not 0 <= shard < self.of]:
            msg = f"shard {outside[0]} does not exist: with of = {self.of} the ids are 0 to {self.of - 1}"
        elif len(set(self.ids)) < len(self.ids):
            msg = "ids holds a shard twice"
        else:
            return
        raise ValueError(msg)


MAX_SHARDS = 100_000  # more than any bot has; a typing error must not start a million state machines
MAX_INTENTS = 2**53 - 1  # the largest integer that every JSON reader keeps exact
MAX_MODERATION_MS = 50  # more would show in the latency of a heartbeat
SHOWN_CHARACTERS = 80  # of a wrong value in an error message
_PATH = "a path as a string, relative to the working directory"


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the gateway is reached and what is asked of it."""

    fail_on_error: Annotated[bool, Meta(description="true (end on a failure) or false (recover from it)")] = False
    api: Annotated[
        str,
        Meta(description='an http or https URL without user, query or fragment, such as "https://discord.com/api/v10"'),
    ] = "https://discord.com/api/v10"
    insecure_api: Annotated[
        bool, Meta(description="true (the token may cross a network unencrypted) or false (https or this machine only)")
    ] = False
    proxy: Annotated[str, Meta(description='an http or https URL such as "http://proxy:3128"; "" = none')] = ""
    trust_env: Annotated[bool, Meta(description="true (the environment's proxy variables count) or false")] = False
    token_file: Annotated[str, Meta(description=f'{_PATH}; "" = the token comes from DISCORD_BOT_TOKEN')] = ""
    intents: Annotated[
        tuple[str, ...] | int,
        Meta(
            description='a list of intent names ("default": all that need no approval), or their sum as a number >= 0'
        ),
    ] = UNPRIVILEGED_NAMES
    shards: Annotated[
        Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_SHARDS)] | ShardSet,
        Meta(description=f'"auto", a number from 1 to {MAX_SHARDS}, or {{ ids = [0, 1], of = 4 }}'),
    ] = "auto"
    compress: Annotated[Compress, Meta(description=", ".join(f'"{way}"' for way in Compress))] = Compress.AUTO
    max_attempts: Annotated[
        int, Meta(ge=0, description="0 (never give up) or a number of consecutive failures >= 1")
    ] = 0
    moderation_ms: Annotated[
        float, Meta(ge=0, le=MAX_MODERATION_MS, description=f"milliseconds, 0 (off) to {MAX_MODERATION_MS}")
    ] = 2.0

    @property
    def proxies(self) -> Proxies:
        """The proxies of ``proxy`` and ``trust_env``."""
        return Proxies(self.proxy, self.trust_env)

    @property
    def intents_value(self) -> int:
        """The intents as the number that IDENTIFY carries."""
        return self.intents if isinstance(self.intents, int) else intents_value(self.intents)


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and where to."""

    level: Annotated[LogLevel, Meta(description=", ".join(f'"{level}"' for level in LogLevel))] = LogLevel.INFO
    file: Annotated[str, Meta(description=f'{_PATH}; "" = console only')] = ""
    format: Annotated[LogFormat, Meta(description='"text" or "json"')] = LogFormat.TEXT
    heartbeat: Annotated[bool, Meta(description="true (one line per beat) or false")] = False
    events: Annotated[bool, Meta(description="true (one line per event) or false")] = False
    rotate_bytes: Annotated[int, Meta(ge=0, le=2**50, description="bytes, 0 (never rotate) to 2**50")] = 10_000_000
    keep: Annotated[int, Meta(ge=1, le=1000, description="1 to 1000 rotated files")] = 5

    @property
    def for_console(self) -> Log:
        """The same without a file, for a process beside the one that writes the file."""
        return msgspec.structs.replace(self, file="")


class Session(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What outlives the process, and how it stops."""

    store: Annotated[
        str, Meta(description='"auto" (the user\'s state directory), "" (in memory only), or a path as a string')
    ] = "auto"
    drain_timeout: Annotated[float, Meta(ge=0, le=60, description="seconds, 0 to 60")] = 0.5


EVENT_LOG = "event_log"  # the publisher that log.events adds; a table of this name replaces it


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration. ``publishers`` maps a name to its table, as written; none means the ZeroMQ defaults."""

    gateway: Gateway = Gateway()
    log: Log = Log()
    session: Session = Session()
    http: Http = Http()
    facade: Facade = Facade()
    http_bind_set: bool = False  # by the file or a --set: a port that is taken is then an error
    publishers: Mapping[str, Table] = msgspec.field(default_factory=lambda: {"zmq": {}})

    def with_log(self, log: Log) -> Config:
        """Return this configuration with another ``[log]``."""
        return msgspec.structs.replace(self, log=log)

    def keys_that_differ(self, other: Config) -> list[str]:
        """Return the keys with another value in ``other``, with dots; of a publisher that only one of them has, its table."""
        keys = [
            f"{section}.{key}"
            for section, kind in SECTIONS.items()
            for key in kind.__struct_fields__
            if getattr(getattr(self, section), key) != getattr(getattr(other, section), key)
        ]
        for name in sorted(self.publishers.keys() | other.publishers.keys()):
            one, two = self.publishers.get(name), other.publishers.get(name)
            if one is None or two is None:
                keys.append(f"publishers.{name}")
            else:
                keys += [
                    f"publishers.{name}.{key}"
                    for key in sorted(one.keys() | two.keys())
                    if one.get(key) != two.get(key)
                ]
        return keys

    def publisher_tables(self) -> dict[str, Table]:
        """Return ``publishers``, plus the log publisher if ``log.events`` is set."""
        tables = dict(self.publishers)
        if self.log.events:
            tables.setdefault(EVENT_LOG, {"kind": "log"})
        return tables

    def build_publishers(self) -> list[tuple[Publisher, DeliveryOptions]]:
        """Create the publishers, not opened, each with its delivery options."""
        return [registry.build(name, table) for name, table in self.publisher_tables().items()]


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "gateway": Gateway,
    "log": Log,
    "session": Session,
    "http": Http,
    "facade": Facade,
}
TOP_LEVEL = (*SECTIONS, "publishers")

_FROM_ELSEWHERE = {  # keys of Discorder.jl and likely guesses, each with its own hint
    "token": "the token is never read from a configuration; set DISCORD_BOT_TOKEN, or gateway.token_file to a file that holds it",
    "debug": 'write level = "debug" under [log]',
    "log_heartbeat": "write heartbeat = true under [log]",
    "log_file_path": "write file = … under [log]",
    "throttle_seconds_between_restart": "there is no fixed throttle; the back-off is part of the life cycle",
    "zmq": 'write [publishers.zmq], with bind = "tcp://127.0.0.1:6000" instead of a port',
}
_FROM_ELSEWHERE |= dict.fromkeys(("bot_token", "discord_bot_token", "discord_token"), _FROM_ELSEWHERE["token"])

S = TypeVar("S", bound=msgspec.Struct)


def check_section(section: str, cls: type[S], table: object, report: Report) -> S | None:
    """Convert ``table`` to an instance of ``cls``. Passes each problem to ``report``; returns None if there is one."""
    if not isinstance(table, dict):
        report(section, f"{show(table)} is not a table; write [{section}] and the keys below it")
        return None
    types = _types_of(cls)
    values: Table = {}
    for key, value in table.items():
        dotted = f"{section}.{key}"
        if key not in types:
            report(dotted, unknown_key(key, section, types))
            continue
        try:
            values[key] = _CHECKS.get(dotted, _unchanged)(msgspec.convert(value, types[key]))
        except ValueError as error:  # msgspec's ValidationError is one
            shown = "" if _has_credentials(value) else f"{show(value)}: "
            report(dotted, f"{shown}{_lower_first(str(error))}; allowed: {_allowed(types[key])}")
    return cls(**values) if values.keys() == table.keys() else None


def unknown_key(key: str, section: str, allowed: Iterable[str]) -> str:
    """Return the message for a key that is not in ``allowed``; ``section`` is "" at the top level."""
    if key.lower() in _FROM_ELSEWHERE:
        return f"unknown key; {_FROM_ELSEWHERE[key.lower()]}"
    prefix = f"{section}." if section else ""
    close = [f"{prefix}{name}" for name in difflib.get_close_matches(key, list(allowed), n=2)]
    homes = [f"{name}.{key}" for name, cls in SECTIONS.items() if key in _types_of(cls) and name != section]
    hint = f"; did you mean {' or '.join(close or homes)}?" if close or homes else ";"
    place = f"in [{section}]" if section else "at the top level"
    return f"unknown key{hint} allowed {place}: {', '.join(allowed)}"


def show(value: object) -> str:
    """Return a value in TOML notation, shortened. Never raises."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = msgspec.json.encode(value).decode() if value.isprintable() else ascii(value)
    else:
        text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _types_of(cls: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _allowed(annotated: Any) -> str:
    return next(str(meta.description) for meta in annotated.__metadata__ if meta.description)


def _lower_first(text: str) -> str:
    return (text[:1].lower() + text[1:]).replace("`", "")


def _unchanged(value: Any) -> Any:
    return value


def _has_credentials(value: object) -> bool:
    return isinstance(value, str) and "://" in value and "@" in value


def _check_api(url: str) -> str:
    """Check the URL and return it without its trailing slash."""
    if not url.isascii() or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        msg = "not a URL: it holds a space, a control character, a backslash or a letter outside ASCII"
        raise ValueError(msg)
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        msg = "must not hold a user or a password"
    elif parts.scheme not in {"http", "https"}:
        msg = "not an http or https URL"
    elif not parts.hostname:
        msg = "has no host"
    elif "?" in url or "#" in url:
        msg = "must not hold a query or a fragment"
    elif not _has_good_port(parts):
        msg = "the port is not a number from 1 to 65535"
    else:
        return url.rstrip("/")
    raise ValueError(msg)


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False


def _check_intents(intents: tuple[str, ...] | int) -> tuple[str, ...] | int:
    if isinstance(intents, int):
        if not 0 <= intents <= MAX_INTENTS:
            msg = "not a sum of intents"
            raise ValueError(msg)
        return intents
    unknown = list(dict.fromkeys(name for name in intents if name not in {*INTENTS, DEFAULT}))
    if unknown:
        msg = f"unknown intent {', '.join(_describe_unknown_intent(name) for name in unknown)}"
        raise ValueError(msg + f"; the names are {', '.join([DEFAULT, *INTENTS])}")
    groups = [UNPRIVILEGED_NAMES if name == DEFAULT else (name,) for name in intents]
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _describe_unknown_intent(name: str) -> str:
    plain = name.lower().replace("-", "_").replace(" ", "_")
    close = [RENAMED[plain]] if plain in RENAMED else difflib.get_close_matches(plain, INTENTS, n=3)
    return f"{show(name)} (did you mean {' or '.join(close)}?)" if close else show(name)


def _check_proxy(url: str) -> str:
    """Check the URL and return it as written."""
    if url:
        checked_proxy(url)
    return url


def _check_path(path: str) -> str:
    """Check the path and return it as written."""
    resolve_path(path)
    return path


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "gateway.api": _check_api,
    "gateway.intents": _check_intents,
    "gateway.proxy": _check_proxy,
    "gateway.token_file": _check_path,
    "log.file": _check_path,
    "session.store": _check_path,
    "http.tls_cert_file": _check_path,
    "http.tls_key_file": _check_path,
    **http.FIELD_CHECKS,
    **facade.FIELD_CHECKS,
}
