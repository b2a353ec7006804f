"""Define and check the configuration keys of the ``redis`` publisher. Connects to nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from discorder.errors import ConfigError
from discorder.publishers.network import check_certificate_keys, is_loopback
from discorder.publishers.options import MAX_COUNT, DeliveryOptions, Overflow
from discorder.redaction import without_logins

DEFAULT_URL = "redis://127.0.0.1:6379"
DEFAULT_PORT = 6379
SCHEMES = ("redis", "rediss")
FORMS = "redis://HOST:PORT/DB or rediss://HOST:PORT/DB, if needed with USER:PASSWORD@"

_PREFIX = re.compile(r"[\w-]+(:[\w-]+)*", re.ASCII)


class RedisOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``redis`` publisher's table."""

    maxlen: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="an integer from 1 to 2**50")]
    required: Annotated[bool, Meta(description="true or false")] = True
    url: Annotated[str, Meta(description=FORMS)] = DEFAULT_URL
    prefix: Annotated[
        str, Meta(description='words of A-Z, a-z, 0-9, "_" and "-" with colons between, or "" (by the bot)')
    ] = ""
    tls_ca_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_cert_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_key_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    insecure: Annotated[bool, Meta(description="true or false")] = False

    @classmethod
    def completed(cls, table: Mapping[str, object]) -> Mapping[str, object]:
        """See `DeliveryOptions.completed`: required unless events may be dropped."""
        keeps_all = table.get("overflow", Overflow.BLOCK) == Overflow.BLOCK
        return table if keeps_all else {"required": False, **table}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how to log in. ``shown``: the URL without the login, for messages."""

    shown: str
    is_encrypted: bool
    host: str
    port: int
    db: int
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Hold the keys that say how to reach the server. ``key``: of the publisher's table, for messages."""

    key: str
    url: str
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    insecure: bool = False

    def check(self) -> None:
        """Raise ConfigError for a URL that is none, or one that sends the events unencrypted to another host."""
        check_certificate_keys(self.key, self.tls_cert_file, self.tls_key_file)
        address = self.address()
        if (self.tls_ca_file or self.tls_cert_file) and not address.is_encrypted:
            msg = f"{self.key}.url: {address.shown} is not encrypted, so no TLS file is used; write rediss://, or leave them out"
            raise ConfigError(msg)
        if not (address.is_encrypted or self.insecure or is_loopback(address.host)):
            msg = (
                f"{self.key}.url: {address.shown} would get every event unencrypted over the network; use rediss://, or set "
                f"{self.key}.insecure = true"
            )
            raise ConfigError(msg)

    def address(self) -> Address:
        """Return the parts of the URL. Raises ConfigError if it has another form."""
        try:
            parts = urlsplit(self.url)
            database = parts.path.strip("/")
            if (
                parts.scheme in SCHEMES
                and parts.hostname
                and parts.port != 0
                and not (parts.query or parts.fragment)
                and (not database or (database.isascii() and database.isdecimal()))
            ):
                return Address(
                    without_logins_of(self.url),
                    parts.scheme == "rediss",
                    parts.hostname,
                    parts.port or DEFAULT_PORT,
                    int(database or 0),
                    unquote(parts.username) if parts.username else None,
                    unquote(parts.password) if parts.password else None,
                )
        except ValueError:  # a port that is none
            pass
        msg = f"{self.key}.url: {without_logins_of(self.url)!r} is no URL of a Redis server; allowed: {FORMS}"
        raise ConfigError(msg)


def without_logins_of(url: str) -> str:
    """Return ``url`` without user name and password."""
    return str(without_logins(url))


def check_prefix(key: str, prefix: str) -> None:
    """Raise ConfigError if ``prefix`` is set and is not made of words with colons between."""
    if prefix and not _PREFIX.fullmatch(prefix):
        msg = (
            f'{key}.prefix: {prefix!r} is not allowed; use A-Z, a-z, 0-9, "_" and "-": words with colons between, such as '
            "discord:mybot"
        )
        raise ConfigError(msg)
