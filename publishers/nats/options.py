"""Define and check the configuration keys of the ``nats`` publisher. Connects to nothing."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from discorder.errors import ConfigError
from discorder.paths import resolve_path
from discorder.publishers.options import MAX_COUNT, DeliveryOptions, Overflow
from discorder.redaction import without_logins

Mode = Literal["jetstream", "core"]

DEFAULT_SERVER = "nats://127.0.0.1:4222"
SCHEMES = ("nats", "tls")
CREDENTIALS = ("NATS USER JWT", "USER NKEY SEED")  # the parts of a .creds file
STREAM_BYTES = 1_073_741_824
STREAM_SECONDS = 86_400.0
MAX_STREAM_SECONDS = 315_360_000.0  # ten years
DUPLICATE_WINDOW = 120.0  # seconds; NATS' own default
MAX_REPLICAS = 5  # the most that NATS allows

_PREFIX = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
_STREAM = re.compile(r"[\w-]+", re.ASCII)
_Seconds = Annotated[
    float, Meta(gt=0, le=MAX_STREAM_SECONDS, description="seconds, more than 0, at most 315360000 (ten years)")
]


class NatsOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``nats`` publisher's table."""

    required: Annotated[bool, Meta(description="true or false")] = True
    servers: Annotated[
        str | tuple[str, ...], Meta(description="a URL, nats://HOST:PORT or tls://HOST:PORT, or a list")
    ] = DEFAULT_SERVER
    mode: Annotated[Mode, Meta(description='"jetstream" or "core"')] = "jetstream"
    prefix: Annotated[
        str, Meta(description='words of A-Z, a-z, 0-9, "_" and "-" with dots between, or "" (by the bot)')
    ] = ""
    stream: Annotated[str, Meta(description='A-Z, a-z, 0-9, "_" and "-", or "" (by the prefix)')] = ""
    stream_bytes: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="bytes, 1 to 2**50")] = STREAM_BYTES
    stream_seconds: _Seconds = STREAM_SECONDS
    duplicate_window: _Seconds = DUPLICATE_WINDOW
    replicas: Annotated[int, Meta(ge=1, le=MAX_REPLICAS, description=f"1 to {MAX_REPLICAS}")] = 1
    credentials_file: Annotated[str, Meta(description="the path of a .creds file, or none")] = ""
    tls_ca_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_cert_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_key_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    insecure: Annotated[bool, Meta(description="true or false")] = False

    @classmethod
    def completed(cls, table: Mapping[str, object]) -> Mapping[str, object]:
        """See `DeliveryOptions.completed`: required only where a stream keeps the events and none may be dropped."""
        keeps_all = (
            table.get("mode", "jetstream") == "jetstream" and table.get("overflow", Overflow.BLOCK) == Overflow.BLOCK
        )
        return table if keeps_all else {"required": False, **table}


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Where the servers are and how to log in. ``key``: of the publisher's table, for messages."""

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
            msg = f"{self.key}.servers: no server is named; set it to a URL such as {DEFAULT_SERVER}"
            raise ConfigError(msg)
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            msg = f"{self.key}.tls_cert_file and {self.key}.tls_key_file belong together; set both or neither"
            raise ConfigError(msg)
        for server in self.servers:
            parts = self._split(server)
            if not (parts.scheme == "tls" or self._has_tls or self.insecure or _is_loopback(parts.hostname or "")):
                msg = (
                    f"{self.key}.servers: {without_logins(server)} would get every event unencrypted over the network; use "
                    f"tls://, name the server's certificate authority in tls_ca_file, or set {self.key}.insecure = true"
                )
                raise ConfigError(msg)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that the keys define; None if they define none. Raises ConfigError for an unusable file."""
        if not self._has_tls and not any(self._split(server).scheme == "tls" for server in self.servers):
            return None
        name = "tls_ca_file"
        try:
            context = ssl.create_default_context(
                cafile=str(resolve_path(self.tls_ca_file)) if self.tls_ca_file else None
            )
            if self.tls_cert_file:
                name = "tls_cert_file"
                context.load_cert_chain(resolve_path(self.tls_cert_file), resolve_path(self.tls_key_file))
        except (OSError, ValueError) as error:
            msg = f"{self.key}.{name}: {error}; name a PEM file that can be read"
            raise ConfigError(msg) from error
        return context

    def credentials(self) -> str | None:
        """Return the path of the file of credentials, None without one. Raises ConfigError for a file that has none."""
        if not self.credentials_file:
            return None
        try:
            path = resolve_path(self.credentials_file)
            text = path.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            msg = f"{self.key}.credentials_file: {error}; name a .creds file that can be read"
            raise ConfigError(msg) from error
        if not all(f"BEGIN {part}" in text for part in CREDENTIALS):  # the library would look for them without end
            msg = f"{self.key}.credentials_file: {path} has no {' and '.join(CREDENTIALS)}; name the .creds file of a user"
            raise ConfigError(msg)
        return str(path)

    @property
    def _has_tls(self) -> bool:
        return bool(self.tls_ca_file or self.tls_cert_file)

    def _split(self, server: str) -> SplitResult:
        try:
            parts = urlsplit(server)
            if parts.scheme in SCHEMES and parts.hostname and parts.port != 0:
                return parts
        except ValueError:  # a port that is none
            pass
        msg = f"{self.key}.servers: {without_logins(server)!r} is no URL of a NATS server; allowed: nats://HOST:PORT or tls://HOST:PORT"
        raise ConfigError(msg)


def check_names(key: str, prefix: str, stream: str) -> None:
    """Raise ConfigError if ``prefix`` or ``stream`` is set and NATS does not allow it as a subject or as a name."""
    for name, value, form in (("prefix", prefix, _PREFIX), ("stream", stream, _STREAM)):
        if value and not form.fullmatch(value):
            words = "words with dots between, such as discord.mybot" if name == "prefix" else "a word such as DISCORD"
            msg = f'{key}.{name}: {value!r} is not allowed; use A-Z, a-z, 0-9, "_" and "-": {words}'
            raise ConfigError(msg)


def listed(servers: str | Sequence[str]) -> tuple[str, ...]:
    """Return one URL or several as a tuple."""
    return (servers,) if isinstance(servers, str) else tuple(servers)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
