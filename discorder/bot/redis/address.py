"""The address of a Redis server with what a reader needs to know: ``redis://HOST:PORT/DB?prefix=discord:mybot``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

from discorder.errors import ConfigError
from discorder.redis_access import ServerAccess, check_prefix

_FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file")
_KEYS = ("prefix", *_FILES, "insecure")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server, and where its streams have the events. ``prefix``: "" = found on the server."""

    access: ServerAccess
    prefix: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse an address. Raises ValueError, which names what is wrong; it opens no file."""
        url, _, query = address.partition("?")
        fields = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(fields.keys() - set(_KEYS))
        if unknown:
            msg = f"{unknown[0]} is no key of a Redis address; allowed behind the ?: {', '.join(_KEYS)}"
            raise ValueError(msg)
        insecure = fields.get("insecure", "false")
        if insecure not in {"true", "false"}:
            msg = f"insecure is {insecure!r} in the address, and must be true or false"
            raise ValueError(msg)
        access = ServerAccess("", url, **{name: fields.get(name, "") for name in _FILES}, insecure=insecure == "true")
        prefix = fields.get("prefix", "")
        try:
            check_prefix("the address", prefix)
            access.check()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return cls(access, prefix)

    @property
    def shown(self) -> str:
        """The URL without the login, for messages."""
        return self.access.address().shown
