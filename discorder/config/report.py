"""Describe a configuration for ``discorder check-config``: what would run, and warnings. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from discorder.config.http import AUTO
from discorder.config.intents import DEFAULT, PRIVILEGED, WITH_MESSAGES, Intent, intent_names
from discorder.config.schema import Config, LogLevel, ShardSet, show
from discorder.publishers.options import DeliveryOptions, EventSelection, Overflow
from discorder.redaction import TOKEN_VARIABLE, without_logins
from discorder.transport.address import keeps_token_private

_COMMON_KEYS = frozenset(msgspec.structs.asdict(DeliveryOptions()))
_WIDTH = 11
_WHEN_BLOCKED = (
    "if it takes no more for {0.block_timeout:g} s, connections pause, and open again after at most {0.hold_off:g} s"
)


def describe(config: Config) -> str:
    """Return what would run, one topic per line, then the warnings."""
    rows: list[tuple[str, str]] = [
        *_gateway(config),
        *_log(config),
        *_session(config),
        *_http(config),
        *_facade(config),
        *_publishers(config),
    ]
    lines = [f"{title:<{_WIDTH}} {text}" for title, text in rows]
    notes = warnings(config)
    return "\n".join([*lines, *([""] if notes else []), *(f"warning: {note}" for note in notes)])


def warnings(config: Config) -> list[str]:
    """Return a warning with its reason for each setting that is allowed but risky."""
    return [
        *_gateway_warnings(config),
        *_log_warnings(config),
        *_http_warnings(config),
        *_facade_warnings(config),
        *_publisher_warnings(config),
    ]


def _gateway(config: Config) -> Iterator[tuple[str, str]]:
    gateway = config.gateway
    names, unnamed = intent_names(gateway.intents_value)
    intents = ", ".join([*names, *([f"undocumented bits {unnamed}"] if unnamed else [])]) or "none"
    token = f", else from {show(gateway.token_file)}" if gateway.token_file else ""
    yield "gateway", f"{gateway.api}, over aiohttp, compression {gateway.compress}"
    if gateway.proxy or gateway.trust_env:
        yield "proxy", gateway.proxies.describe()
    yield "token", f"from {TOKEN_VARIABLE}{token}"
    yield "intents", f"{gateway.intents_value} = {intents}"
    if gateway.intents_value & WITH_MESSAGES and not gateway.intents_value & Intent.MESSAGE_CONTENT:
        yield (
            "contents",
            (
                "of messages in guilds are empty, unless they mention the bot: message_content is not among the intents; "
                f'write intents = ["{DEFAULT}", "message_content"]'
            ),
        )
    yield "shards", _shards(gateway.shards)
    if gateway.fail_on_error:
        yield "failures", "the first one ends the run (fail_on_error)"
    elif gateway.max_attempts:
        yield "failures", f"recovered from; given up after {gateway.max_attempts} in a row"
    else:
        yield "failures", "recovered from, without limit"


def _shards(shards: str | int | ShardSet) -> str:
    if isinstance(shards, ShardSet):
        ids = ", ".join(map(str, shards.ids))
        return f"{ids} of {shards.of}; the others run elsewhere" if ids else f"none of {shards.of} until one is started"
    return "as many as Discord recommends" if shards == "auto" else f"{shards}, all in this process"


def _log(config: Config) -> Iterator[tuple[str, str]]:
    log = config.log
    extras = "".join([", every heartbeat" if log.heartbeat else "", ", every event" if log.events else ""])
    if not log.file:
        yield "log", f"console, {log.level} and above{extras}"
        return
    size = f"rotated at {log.rotate_bytes:,} bytes, {log.keep} kept" if log.rotate_bytes else "never rotated"
    yield "log", f"{log.file} ({log.format}), {log.level} and above{extras}; {size}"


def _session(config: Config) -> Iterator[tuple[str, str]]:
    store = config.session.store
    place = {"auto": "the user's state directory", "": "in memory only"}.get(store, store)
    yield "sessions", f"{place}; at a stop {config.session.drain_timeout:g} s to drain"


def _http(config: Config) -> Iterator[tuple[str, str]]:
    http, address = config.http, config.http.address
    if address is None:
        yield "http", "off: no status page, no metrics, no health checks, no operator commands"
        return
    readers = "this machine only" if address.is_loopback else "other hosts after a login"
    taken = "a taken port is an error" if config.http_bind_set else "without it if the port is taken"
    yield "http", f"{http.scheme}://{address}/, for {readers}; {taken}"
    where = {AUTO: "beside the session store", "": "none: no operator commands"}
    yield "operator", f"token {where.get(http.operator_token_file, show(http.operator_token_file))}"


def _facade(config: Config) -> Iterator[tuple[str, str]]:
    facade = config.facade
    if facade.bind or facade.clients:
        names = ", ".join(facade.clients) or "none"
        yield "facade", f"{facade.bind or 'not in this process'}; clients {names}; REST {facade.rest}"
    if facade.keeps_journal:
        where = {AUTO: "beside the session store"}
        size = f"{facade.ring_bytes:,} bytes, {facade.ring_seconds:g} s"
        yield (
            "journal",
            f"{where.get(facade.journal, facade.journal)}, {size}{'' if facade.presences else ', no presences'}",
        )


def _publishers(config: Config) -> Iterator[tuple[str, str]]:
    tables = config.publisher_tables()
    if not tables:
        yield "publisher", "none: events are received and counted, and go nowhere"
    for publisher, options in config.build_publishers():
        kind = str(tables[publisher.name].get("kind") or publisher.name)
        policy = "required, " if options.required else ""
        facts = [
            f"{policy}{options.policy}, up to {options.max_events:,} events or {options.max_bytes:,} bytes waiting"
        ]
        if options.events != EventSelection():
            facts.append(
                f"events {', '.join(options.events.include)} but {', '.join(options.events.exclude) or 'none'}"
            )
        own = msgspec.structs.asdict(options).items()
        facts += [f"{key} = {show(without_logins(value))}" for key, value in own if key not in _COMMON_KEYS]
        yield "publisher", f"{publisher.name} ({kind}): {'; '.join(facts)}"


def _gateway_warnings(config: Config) -> Iterator[str]:
    gateway = config.gateway
    names, _ = intent_names(gateway.intents_value & int(PRIVILEGED))
    if names:
        yield f"gateway.intents: {', '.join(names)} must be switched on for the bot in Discord's portal, else it closes with 4014"
    _, unnamed = intent_names(gateway.intents_value)
    if unnamed:
        yield f"gateway.intents: bits {unnamed} are not documented; Discord may close with 4013"
    if not keeps_token_private(gateway.api):
        yield "gateway.api: http sends the token unencrypted to another host, which gateway.insecure_api allows; use https"
    if gateway.fail_on_error:
        yield "gateway.fail_on_error = true: meant for development; nothing is recovered from"


def _log_warnings(config: Config) -> Iterator[str]:
    log = config.log
    if log.level is LogLevel.DEBUG:
        yield "log.level = debug: meant for development; the log grows fast"
    if log.events and log.level in {LogLevel.DEBUG, LogLevel.INFO}:
        yield "log.events = true: the log will hold what users write"
    elif log.events:
        yield f'log.events = true: events are logged at level info, which log.level = "{log.level}" leaves out'


def _http_warnings(config: Config) -> Iterator[str]:
    address = config.http.address
    if address is not None and config.http.insecure and not address.is_loopback:
        yield "http.insecure = true: the status, and the operator token of a login, cross the network unencrypted"


def _facade_warnings(config: Config) -> Iterator[str]:
    if config.facade.tokens == "real":  # a setting
        yield 'facade.tokens = "real": meant for a first try; bots should hold a token of their own, not that of Discord'


def _publisher_warnings(config: Config) -> Iterator[str]:
    if not config.publishers:
        yield "publishers: there is none; nobody will get an event"
    for publisher, options in config.build_publishers():
        key = f"publishers.{publisher.name}"
        if options.policy is Overflow.BLOCK:
            yield f"{key}: overflow = block: back-pressure can hold up your control plane: {_WHEN_BLOCKED.format(options)}"
        if getattr(options, "insecure", False):
            yield f"{key}: insecure = true: other hosts can read every event, interaction tokens included"
