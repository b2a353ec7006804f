"""The address of a Redis server with what a reader needs to know: ``redis://HOST:PORT/DB?prefix=discord:mybot``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from discorder.bot.brokers import parse_fields
from discorder.errors import ConfigError
from discorder.redis_access import ServerAccess, check_prefix

_KEYS = ("prefix", "tls_ca_file", "tls_cert_file", "tls_key_file")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server, and where its streams have the events. ``prefix``: "" = found on the server."""

    access: ServerAccess
    prefix: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse an address. Raises ValueError, which names what is wrong; it opens no file."""
        url, _, query = address.partition("?")
        fields, insecure = parse_fields(query, _KEYS, "Redis")
        prefix = fields.pop("prefix")
        access = ServerAccess("", url, **fields, insecure=insecure)
        try:
            check_prefix("", prefix)
            access.check()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return cls(access, prefix)

    @property
    def shown(self) -> str:
        """The URL without the login, for messages."""
        return self.access.address().shown
