"""Build a publisher, not open yet, from a ``[publishers.NAME]`` table. Does not bind, connect or open a file.

A kind is a class: one of those below, or one that another package announces as an entry point in the group
``discorder.publishers``. The class may have

- ``Options``: a subclass of `DeliveryOptions` with keys of its own (default: no further keys);
- ``from_options(name, options)``: a class method that creates it. Without one the class is called with its own keys and ``name``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

import msgspec
from msgspec import Meta

from discorder.errors import ConfigError, DiscorderError
from discorder.publishers.delivery.isolation import describe
from discorder.publishers.options import DeliveryOptions, EventSelection, Overflow
from discorder.publishers.protocol import Publisher
from discorder.redaction import without_logins

ENTRY_POINT_GROUP = "discorder.publishers"

# By name, so that a library is imported only if it is used. A library that is not installed comes with the extra of that name.
BUILT_IN = {
    "zmq": EntryPoint("zmq", "discorder.publishers.zeromq.publisher:ZmqPublisher", ENTRY_POINT_GROUP),
    "channel": EntryPoint("channel", "discorder.publishers.channel:ChannelEventPublisher", ENTRY_POINT_GROUP),
    "delimited_file": EntryPoint(
        "delimited_file", "discorder.publishers.delimited_file:DelimitedFileEventPublisher", ENTRY_POINT_GROUP
    ),
    "log": EntryPoint("log", "discorder.publishers.log:LogPublisher", ENTRY_POINT_GROUP),
    "nats": EntryPoint("nats", "discorder.publishers.nats.publisher:NatsPublisher", ENTRY_POINT_GROUP),
    "redis": EntryPoint("redis", "discorder.publishers.redis.publisher:RedisPublisher", ENTRY_POINT_GROUP),
}


def build(name: str, table: Mapping[str, object]) -> tuple[Publisher, DeliveryOptions]:
    """Return the publisher that ``[publishers.<name>]`` describes, not opened, and its delivery options.

    Raises ConfigError, which names the key ``publishers.<name>.<key>`` and the allowed values.
    """
    cls = _publisher_class(name, table.get("kind", name))
    options = _options(name, getattr(cls, "Options", DeliveryOptions), table)
    try:
        publisher = _make(cls, name, options)
    except (DiscorderError, KeyboardInterrupt):  # the user interrupts: no control plane runs yet
        raise
    except BaseException as error:
        msg = f"publishers.{name}: {cls.__module__}.{cls.__qualname__} cannot be made: {describe(error)}"
        raise ConfigError(msg) from error
    check_delivery(publisher, options, f"publishers.{name}")
    return publisher, options


def _make(cls: Any, name: str, options: DeliveryOptions) -> Publisher:
    if hasattr(cls, "from_options"):
        publisher: Publisher = cls.from_options(name, options)
        return publisher
    common = DeliveryOptions.__struct_fields__
    made: Publisher = cls(
        name=name, **{key: getattr(options, key) for key in options.__struct_fields__ if key not in common}
    )
    return made


def check_delivery(publisher: Publisher, options: DeliveryOptions, key: str) -> None:
    """Refuse options that the publisher cannot satisfy. Raises ConfigError, which names ``key`` and the alternatives."""
    if options.required and options.policy is not Overflow.BLOCK:
        msg = f'{key}.overflow: "{options.policy}" contradicts required = true, which implies "block"; leave out one of the two'
        raise ConfigError(msg)
    if options.required and not publisher.durable:
        msg = (
            f"{key}.required: what {type(publisher).__name__} accepted does not survive this process, so nothing can wait "
            "for it; use kind delimited_file or another durable publisher, or leave out required"
        )
        raise ConfigError(msg)


def _publisher_class(name: str, kind: object) -> Any:
    if not isinstance(kind, str):
        msg = f"publishers.{name}.kind: {kind!r} is not a string; allowed: {_listed(BUILT_IN)}"
        raise ConfigError(msg)
    if kind in BUILT_IN:
        return _load_built_in(name, kind)
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if kind not in others:
        msg = f"publishers.{name}.kind: there is no publisher {kind!r}; allowed: {_listed([*BUILT_IN, *others])}"
        raise ConfigError(msg)
    try:
        return others[kind].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the module of another package may raise any error, and may call sys.exit
        msg = f"publishers.{name}.kind: {kind!r} ({others[kind].value}) cannot be imported: {describe(error)}"
        raise ConfigError(msg) from error


def _load_built_in(name: str, kind: str) -> Any:
    try:
        return BUILT_IN[kind].load()
    except ModuleNotFoundError as error:
        msg = (
            f"publishers.{name}.kind: {kind!r} needs the package {error.name}; install it with: pip install 'discorder[{kind}]', "
            f"or in a checkout: pip install '.[{kind}]'"
        )
        raise ConfigError(msg) from error


def _options(name: str, cls: type[DeliveryOptions], table: Mapping[str, object]) -> DeliveryOptions:
    prefix = f"publishers.{name}"
    _refuse_unknown(prefix, table, cls.__struct_fields__)
    events = table.get("events")
    if isinstance(events, Mapping):
        _refuse_unknown(f"{prefix}.events", events, EventSelection.__struct_fields__)
    for field in msgspec.structs.fields(cls):
        if field.required and field.name not in table:
            msg = f"{prefix}.{field.name} is missing; it must be {_allowed(cls, field.name)}"
            raise ConfigError(msg)
    try:
        return msgspec.convert(cls.completed(table), cls)
    except msgspec.ValidationError as error:
        where = re.search(r" - at `\$\.(.+)`$", str(error))
        path = where[1] if where else "kind"
        text = str(error).partition(" - at ")[0]
        key = re.split(r"[.[]", path)[0]
        msg = f"{prefix}.{path}: {text}, got {without_logins(table.get(key))!r}; allowed: {_allowed(cls, key)}"
        raise ConfigError(msg) from error


def _refuse_unknown(prefix: str, table: Mapping[str, object], allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    for key in table:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            msg = f"{prefix}.{key} is not a key; {hint}allowed: {', '.join(sorted(allowed))}"
            raise ConfigError(msg)


def _allowed(cls: type[DeliveryOptions], key: str) -> str:
    """Return the description in the field's annotation."""
    hint = get_type_hints(cls, include_extras=True)[key]
    described = [
        meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta) and meta.description
    ]
    return described[-1] if described else str(hint)


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds))
