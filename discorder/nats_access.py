"""Where the NATS servers are, how to log in, and the subjects: for the publisher and for its readers. Connects to nothing."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from discorder.errors import ConfigError, PublisherUnreachable
from discorder.network import check_certificate_keys, is_loopback, named, tls_context
from discorder.paths import resolve_path
from discorder.redaction import without_logins

DEFAULT_SERVER = "nats://127.0.0.1:4222"
SCHEMES = ("nats", "tls")
REFUSED_LOGIN = (
    "Authorization|Authentication"  # in the server's own words: the library has a class for one of them only
)
CREDENTIALS = ("NATS USER JWT", "USER NKEY SEED")  # the parts of a .creds file

NAMELESS = "NAMELESS"  # the last word of the subject of an event without a name
REMEMBERED_NAMES = 1_024  # Discord has about 80; the bound is for a peer that invents names
MAX_NAME = 128  # characters of a name in a subject; NATS bounds the length of a protocol line

_PREFIX = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
_STREAM = re.compile(r"[\w-]+", re.ASCII)


class NoEncryption(ConnectionError):
    """A connection that must be encrypted is not; nothing was sent over it."""


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Where the servers are and how to log in. ``key``: the publisher's table, for messages; "" in a reader."""

    key: str
    servers: tuple[str, ...]
    credentials_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    insecure: bool = False

    def check(self) -> None:
        """Raise ConfigError for a URL that is none, or one that sends the events unencrypted to another host."""
        if not self.servers:
            msg = f"{self._place}no server is named; set it to a URL such as {DEFAULT_SERVER}"
            raise ConfigError(msg)
        check_certificate_keys(self.key, self.tls_cert_file, self.tls_key_file)
        for server in self.servers:
            if self._is_exposed(self._split(server)):
                msg = (
                    f"{self._place}the connection to {without_logins(server)} would carry every event unencrypted over the "
                    "network; use tls://, name the server's certificate authority in tls_ca_file, or "
                    f"{self._allow_unencrypted}"
                )
                raise ConfigError(msg)

    def must_encrypt(self, server: str) -> bool:
        """Return whether nothing may be sent to ``server`` before the connection is encrypted."""
        parts = self._split(server)
        return parts.scheme == "tls" or self._has_tls or self._is_exposed(parts)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that the keys define; None if they define none. Raises ConfigError for an unusable file."""
        if not self._has_tls and not any(self._split(server).scheme == "tls" for server in self.servers):
            return None
        return tls_context(self.key, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)

    def credentials(self) -> str | None:
        """Return the path of the file of credentials, None without one. Raises ConfigError for a file that has none."""
        if not self.credentials_file:
            return None
        try:
            path = resolve_path(self.credentials_file)
            text = path.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            msg = f"{named(self.key, 'credentials_file')}: {error}; name a .creds file that can be read"
            raise ConfigError(msg) from error
        if not all(f"BEGIN {part}" in text for part in CREDENTIALS):  # the library would look for them without end
            msg = (
                f"{named(self.key, 'credentials_file')}: {path} has no {' and '.join(CREDENTIALS)}; name the .creds file of a "
                "user"
            )
            raise ConfigError(msg)
        return str(path)

    def failure(self, failures: Sequence[tuple[str, Exception]]) -> ConfigError | PublisherUnreachable:
        """Return the error for servers that could not be reached, each with the reason: ConfigError if a key is wrong."""
        reasons = "; ".join(
            f"{without_logins(server)}: {str(error) or 'no answer in time'}" for server, error in failures
        )
        if any(re.search(REFUSED_LOGIN, str(error)) for _, error in failures):
            return ConfigError(
                f"{self._table}NATS refused the login ({reasons}); check credentials_file, or user and password in "
                f"{self._servers}"
            )
        if any(isinstance(error, NoEncryption) for _, error in failures):
            return ConfigError(
                f"{self._place}no encrypted connection ({reasons}); switch TLS on in the server's configuration, or, for a "
                f"server without it, write nats:// and no tls_ca_file, and for another host {self._allow_unencrypted}"
            )
        if any(isinstance(error, ssl.SSLError) for _, error in failures):
            return ConfigError(
                f"{self._table}no TLS connection ({reasons}); check tls_ca_file, and the host name in {self._servers}"
            )
        return PublisherUnreachable(
            f"{self._place}no NATS server can be reached ({reasons}); start one, or correct the address"
        )

    @property
    def _has_tls(self) -> bool:
        return bool(self.tls_ca_file or self.tls_cert_file)

    @property
    def _table(self) -> str:
        """How a message about the whole table begins; one to a reader, which has no table, begins with what happened."""
        return f"{self.key}: " if self.key else ""

    @property
    def _place(self) -> str:
        return f"{self.key}.servers: " if self.key else ""

    @property
    def _servers(self) -> str:
        return "servers" if self.key else "the address"

    @property
    def _allow_unencrypted(self) -> str:
        return f"set {self.key}.insecure = true" if self.key else "add ?insecure=true to the address"

    def _is_exposed(self, parts: SplitResult) -> bool:
        """Return whether the connection would be unencrypted, to another host, and that is not allowed."""
        return not (parts.scheme == "tls" or self._has_tls or self.insecure or is_loopback(parts.hostname or ""))

    def _split(self, server: str) -> SplitResult:
        try:
            parts = urlsplit(server)
            if parts.scheme in SCHEMES and parts.hostname and parts.port != 0:
                return parts
        except ValueError:  # a port that is none
            pass
        msg = f"{self._place}{without_logins(server)!r} is no URL of a NATS server; allowed: nats://HOST:PORT or tls://HOST:PORT"
        raise ConfigError(msg) from None


def check_names(key: str, prefix: str, stream: str) -> None:
    """Raise ConfigError if ``prefix`` or ``stream`` is set and NATS does not allow it as a subject or as a name."""
    for name, value, form in (("prefix", prefix, _PREFIX), ("stream", stream, _STREAM)):
        if value and not form.fullmatch(value):
            words = "words with dots between, such as discord.mybot" if name == "prefix" else "a word such as DISCORD"
            msg = f'{named(key, name)}: {value!r} is not allowed; use A-Z, a-z, 0-9, "_" and "-": {words}'
            raise ConfigError(msg)


def exact(number: float) -> str:
    """Return ``number`` with all its digits, as it can be written in the configuration."""
    return str(int(number)) if number == int(number) else repr(number)


def listed(servers: str | Sequence[str]) -> tuple[str, ...]:
    """Return one URL or several as a tuple."""
    return (servers,) if isinstance(servers, str) else tuple(servers)


def event_subjects(prefix: str, shard: tuple[int, int] | None = None) -> str:
    """Return the pattern that matches the subjects of all events of ``shard`` (id, count), None for all shards."""
    return f"{prefix}.*.*.*" if shard is None else f"{prefix}.{shard[1]}.{shard[0]}.*"


def record_subjects(prefix: str, shard: tuple[int, int] | None = None) -> str:
    """Return the pattern that matches the subjects of all records of the control plane, or of those of ``shard`` (id, count)."""
    return f"{prefix}.record.*.*.*" if shard is None else f"{prefix}.record.{shard[1]}.{shard[0]}.*"


def command_subject(prefix: str) -> str:
    """Return the subject of commands to Discord. It has too few words for a stream of events to keep it."""
    return f"{prefix}.command"


@lru_cache(REMEMBERED_NAMES)
def subject_word(name: str) -> str:
    """Return ``name`` as one word of a subject: a dot, a space, ``*`` or ``>`` has a meaning there."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name[:MAX_NAME]) or NAMELESS
