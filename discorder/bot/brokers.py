"""Chooses what reads the addresses of a broker, by their scheme. Its client library is imported when an address names it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

from discorder.bot.cursor import Cursor
from discorder.bot.sockets import ENDPOINTS
from discorder.bot.subscription import Subscription
from discorder.errors import ConfigError

Broker = Literal["nats", "redis"]
_SCHEMES: Mapping[str, Broker] = {"nats": "nats", "tls": "nats", "redis": "redis", "rediss": "redis"}
COMMAND_ADDRESSES = f"{ENDPOINTS}, for a bus of ZeroMQ; nats:// and tls:// for NATS"
EVENT_ADDRESSES = f"{COMMAND_ADDRESSES}; redis:// and rediss:// for Redis or Valkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRequest:
    """What `subscribe` was asked for. ``types`` and ``group`` None: all, and a reader of its own.

    ``of_the_bus``: arguments that mean something for ZeroMQ only.
    """

    addresses: tuple[str, ...]
    types: frozenset[str] | None
    decode: Any
    cursor: Cursor | None
    oldest: bool
    live_only: bool
    state: bool
    group: str | None
    of_the_bus: Mapping[str, object]

    @property
    def address(self) -> str:
        """The only address. Raises ValueError if there are several."""
        first, *others = self.addresses
        if others:
            msg = "a list of addresses is for buses of ZeroMQ; name one broker"
            if any(broker_of(one) == "nats" for one in self.addresses):
                msg += ", and the servers of a NATS cluster in one address: nats://HOST:4222,nats://HOST:4222"
            raise ValueError(msg)
        return with_small_schemes(first)


def broker_of(address: str) -> Broker | None:
    """Return which broker has this address; None: none, it is the bus of a control plane."""
    return _SCHEMES.get(address.partition("://")[0].lower())


def with_small_schemes(address: str) -> str:
    """Return ``address`` with the schemes of its servers in lower case: not every library takes another."""
    servers, mark, query = address.partition("?")
    parts = (server.partition("://") for server in servers.split(","))
    return ",".join(scheme.lower() + rest + tail if rest else scheme for scheme, rest, tail in parts) + mark + query


def parse_fields(query: str, keys: Sequence[str], broker: str) -> tuple[dict[str, str], bool]:
    """Return what stands behind the ``?`` of an address, with "" for each of ``keys`` that is absent, and ``insecure``.

    Raises ValueError for another key, and for an ``insecure`` that is neither true nor false.
    """
    fields = dict(parse_qsl(query, keep_blank_values=True))
    insecure = fields.pop("insecure", "false")
    unknown = sorted(fields.keys() - set(keys))
    if unknown:
        msg = f"{unknown[0]} is no key of a {broker} address; allowed behind the ?: {', '.join((*keys, 'insecure'))}"
        raise ValueError(msg)
    if insecure not in {"true", "false"}:
        msg = f"insecure is {insecure!r} in the address, and must be true or false"
        raise ValueError(msg)
    return {key: fields.get(key, "") for key in keys}, insecure == "true"


class Requests(Protocol):
    """Sends requests to a control plane, one at a time."""

    async def ask(self, op: str, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return the fields of the answer. Raises `CommandRefused` with no_answer if none comes within ``seconds``."""
        ...

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        ...


def open_requests(address: str, router: object, keys: object) -> Requests:
    """Return what sends requests over a broker. Raises ValueError for what it cannot do, and ConfigError without its library."""
    if broker_of(address) == "redis":
        msg = f"Redis carries no commands; {COMMAND_ADDRESSES}"
        raise ValueError(msg)
    for name, value in (("router", router), ("keys", keys)):
        if value is not None:
            msg = f"{name} is for a bus of ZeroMQ; leave it out for {address.partition('://')[0]}://"
            raise ValueError(msg)
    try:
        from discorder.bot.nats.commands import NatsRequests  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing_library(error, "nats") from None
    return NatsRequests(with_small_schemes(address))


def open_reader(request: BrokerRequest) -> Subscription[Any]:
    """Return the subscription to a broker. Raises ValueError for what it cannot do, and ConfigError without its library."""
    for name, value in request.of_the_bus.items():
        if value is not None:
            msg = f"{name} is for a bus of ZeroMQ; leave it out for {request.address.partition('://')[0]}://"
            raise ValueError(msg)
    if request.state:
        msg = (
            "state: only the control plane itself knows its guilds; subscribe to its bus of ZeroMQ, or leave out state"
        )
        raise ValueError(msg)
    if request.group is not None:
        _check_group(request, request.group)
    match broker_of(request.address):
        case "nats":
            try:
                from discorder.bot.nats.subscription import open_nats  # noqa: PLC0415
            except ModuleNotFoundError as error:
                raise missing_library(error, "nats") from None
            return open_nats(request)
        case "redis":
            try:
                from discorder.bot.redis.subscription import open_redis  # noqa: PLC0415
            except ModuleNotFoundError as error:
                raise missing_library(error, "redis") from None
            return open_redis(request)
        case None:
            msg = f"{request.address} is not the address of a broker"
            raise ValueError(msg)


def missing_library(error: ModuleNotFoundError, extra: Broker) -> Exception:
    """Return the error for an address whose client library is not installed; another missing module is a mistake of ours."""
    if error.name is None or error.name.startswith("discorder"):
        return error
    package = error.name.partition(".")[0]
    return ConfigError(
        f"{extra}:// needs the package {package}: pip install 'discorder[{extra}]', or in a checkout: pip install '.[{extra}]'"
    )


def _check_group(request: BrokerRequest, group: str) -> None:
    if not re.fullmatch(r"[\w-]{1,64}", group, re.ASCII):
        msg = f'group is {group!r}, and must be 1 to 64 characters of A-Z, a-z, 0-9, "_" and "-"'
        raise ValueError(msg)
    if request.cursor is not None:
        msg = "cursor: the server keeps the position of a group; leave out cursor"
        raise ValueError(msg)
    if request.live_only:
        msg = "live_only: a group gets every event; leave out live_only, or group"
        raise ValueError(msg)
