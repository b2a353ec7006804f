"""The address of NATS servers with what a reader needs to know: ``nats://HOST:4222,nats://HOST:4222?prefix=discord.mybot``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from discorder.bot.brokers import parse_fields
from discorder.errors import ConfigError
from discorder.nats_access import ServerAccess, check_names
from discorder.redaction import without_logins

_KEYS = ("prefix", "stream", "credentials_file", "tls_ca_file", "tls_cert_file", "tls_key_file")


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Servers, and where their streams have the events. ``prefix`` and ``stream``: "" = found on the server."""

    access: ServerAccess
    prefix: str
    stream: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse an address. Raises ValueError, which names what is wrong; it opens no file."""
        servers, _, query = address.partition("?")
        fields, insecure = parse_fields(query, _KEYS, "NATS")
        prefix, stream = fields.pop("prefix"), fields.pop("stream")
        access = ServerAccess("", tuple(servers.split(",")), **fields, insecure=insecure)
        try:
            check_names("", prefix, stream)
            access.check()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return cls(access, prefix, stream)

    @property
    def shown(self) -> str:
        """The servers without logins, for messages."""
        return ", ".join(str(without_logins(server)) for server in self.access.servers)
