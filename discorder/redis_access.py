"""Where a Redis server is, how to log in, and the keys: for the publisher and for its readers. Connects to nothing."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from discorder.errors import ConfigError, PublisherUnreachable
from discorder.network import check_certificate_keys, is_loopback, named, tls_context
from discorder.paths import resolve_path
from discorder.redaction import without_logins

DEFAULT_URL = "redis://127.0.0.1:6379"
DEFAULT_PORT = 6379
CONNECT_TIMEOUT = 2.0  # seconds
SCHEMES = ("redis", "rediss")
NO_SUCH_DATABASE = "DB index is out of range"  # in the words of the server, the others in those of the libraries
NO_TLS = "WRONG_VERSION_NUMBER"
NO_REDIS = "Protocol Error"
HUNG_UP = "Connection closed by server"
FORMS = "redis://HOST:PORT/DB or rediss://HOST:PORT/DB, if needed with USER:PASSWORD@"

_PREFIX = re.compile(r"[\w-]+(:[\w-]+)*", re.ASCII)


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
    """Where the server is and how to log in. ``key``: the publisher's table, for messages; "" in a reader."""

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
            msg = (
                f"{self._url}: {address.shown} is not encrypted, so no TLS file would be used; write rediss://, or "
                "leave out the files"
            )
            raise ConfigError(msg)
        if not (address.is_encrypted or self.insecure or is_loopback(address.host)):
            msg = (
                f"{self._url}: the connection to {address.shown} would carry every event unencrypted over the network; use "
                f"rediss://, or {self._allow}"
            )
            raise ConfigError(msg)

    def settings(self) -> dict[str, Any]:
        """Return the arguments for a connection of the library. Raises ConfigError for a TLS file that cannot be used."""
        address = self.address()
        settings: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "client_name": "discorder",
            "protocol": 2,  # the answers are the same on every version of the server
            "socket_connect_timeout": CONNECT_TIMEOUT,
        }
        if address.is_encrypted:
            tls_context(self.key, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)  # checks the files
            paths = {
                "ssl_ca_certs": self.tls_ca_file,
                "ssl_certfile": self.tls_cert_file,
                "ssl_keyfile": self.tls_key_file,
            }
            settings |= {name: str(resolve_path(path)) for name, path in paths.items() if path}
        return settings

    def failure(self, error: BaseException, *, refused: bool) -> ConfigError | PublisherUnreachable:
        """Return the error for a server that could not be reached: ConfigError if a key is wrong. ``refused``: the login."""
        address, text = self.address(), str(error) or "no answer in time"
        reason, url = f"({address.shown}: {text})", self._url
        if refused:
            return ConfigError(f"{url}: Redis refused the login {reason}; check user and password in it")
        if NO_SUCH_DATABASE in text:
            return ConfigError(
                f"{url}: the server has no database {address.db} {reason}; choose one from 0 on, below its setting databases"
            )
        if NO_TLS in text:
            return ConfigError(
                f"{url}: what answers at {address.shown} does not speak TLS; write redis://, or correct the address"
            )
        if isinstance(error.__context__, ssl.SSLError):
            return ConfigError(
                f"{named(self.key)}: no TLS connection {reason}; check tls_ca_file, and the host name in the URL"
            )
        if text.startswith(NO_REDIS):  # followed by what it sent
            return PublisherUnreachable(
                f"{url}: what answers at {address.shown} does not speak Redis; correct the address"
            )
        hint = ""
        if isinstance(error, TimeoutError) and address.is_encrypted:
            hint = ". If it has no TLS, write redis://"
        elif text.startswith(HUNG_UP) and not address.is_encrypted:
            hint = ". If it has TLS, write rediss://"
        return PublisherUnreachable(
            f"{url}: the Redis server cannot be reached {reason}; start it, or correct the address{hint}"
        )

    @property
    def _url(self) -> str:
        """What the URL is called in messages: for a reader it is in the address."""
        return named(self.key, "url") if self.key else named("")

    @property
    def _allow(self) -> str:
        """How to allow an unencrypted connection to another host."""
        return f"set {self.key}.insecure = true" if self.key else "add insecure=true behind a ? in the address"

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
                    _without_login(self.url),
                    parts.scheme == "rediss",
                    parts.hostname,
                    parts.port or DEFAULT_PORT,
                    int(database or 0),
                    unquote(parts.username) if parts.username else None,
                    unquote(parts.password) if parts.password else None,
                )
        except ValueError:  # a port that is none
            pass
        msg = f"{self._url}: {_without_login(self.url)!r} is no URL of a Redis server; allowed: {FORMS}"
        raise ConfigError(msg)


def _without_login(url: str) -> str:
    """Return ``url`` without user name and password."""
    return str(without_logins(url))


def check_prefix(key: str, prefix: str) -> None:
    """Raise ConfigError if ``prefix`` is set and is not made of words with colons between. ``key``: of the publisher, or ""."""
    if prefix and not _PREFIX.fullmatch(prefix):
        place = f"{key}.prefix" if key else "prefix"
        msg = (
            f'{place}: {prefix!r} is not allowed; use A-Z, a-z, 0-9, "_" and "-": words with colons between, such as '
            "discord:mybot"
        )
        raise ConfigError(msg)


def events_key(prefix: str, place: str) -> str:
    """Return the key of the stream of a shard's events. ``place``: ``COUNT:SHARD``."""
    return f"{prefix}:{place}"


def records_key(prefix: str, place: str) -> str:
    """Return the key of the stream of the control plane's records about a shard."""
    return f"{prefix}:record:{place}"


def session_key(prefix: str, place: str) -> str:
    """Return the key of the hash with the session whose events are written, and its start."""
    return f"{prefix}:session:{place}"


def shards_key(prefix: str = "*") -> str:
    """Return the key of the set of the places of all shards, or the pattern that finds it."""
    return f"{prefix}:shards"
