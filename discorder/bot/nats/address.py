"""The address of NATS servers with what a reader needs to know: ``nats://HOST:4222,nats://HOST:4222?prefix=discord.mybot``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

from discorder.errors import ConfigError
from discorder.nats_access import ServerAccess, check_names
from discorder.redaction import without_logins

_FILES = ("credentials_file", "tls_ca_file", "tls_cert_file", "tls_key_file")
_KEYS = ("prefix", "stream", *_FILES, "insecure")


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
        fields = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(fields.keys() - set(_KEYS))
        if unknown:
            msg = f"{unknown[0]} is no key of a NATS address; allowed behind the ?: {', '.join(_KEYS)}"
            raise ValueError(msg)
        insecure = fields.get("insecure", "false")
        if insecure not in {"true", "false"}:
            msg = f"insecure is {insecure!r} in the address, and must be true or false"
            raise ValueError(msg)
        files = {name: fields.get(name, "") for name in _FILES}
        access = ServerAccess("", tuple(servers.split(",")), **files, insecure=insecure == "true")
        prefix, stream = fields.get("prefix", ""), fields.get("stream", "")
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
