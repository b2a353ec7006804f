"""Check the keys of a connection to a server: their names in messages, loopback or not, TLS files."""

from __future__ import annotations

import ipaddress
import ssl

from discorder.errors import ConfigError
from discorder.paths import resolve_path


def named(table: str, key: str = "") -> str:
    """Return ``key`` as it is written where it is set. ``table``: the publisher's, "" in a reader."""
    return ".".join(filter(None, (table, key))) or "the address"


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, by name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_certificate_keys(table: str, tls_cert_file: str, tls_key_file: str) -> None:
    """Raise ConfigError if only one of the two is set."""
    if bool(tls_cert_file) != bool(tls_key_file):
        msg = f"{named(table, 'tls_cert_file')} and {named(table, 'tls_key_file')} belong together; set both or neither"
        raise ConfigError(msg)


def tls_context(table: str, tls_ca_file: str, tls_cert_file: str, tls_key_file: str) -> ssl.SSLContext:
    """Return the TLS context that the three keys define. Raises ConfigError for a file that cannot be used."""
    name, files = "tls_ca_file", tls_ca_file
    try:
        context = ssl.create_default_context(cafile=str(resolve_path(tls_ca_file)) if tls_ca_file else None)
        if tls_cert_file:
            name, files = "tls_cert_file", f"{tls_cert_file} with {tls_key_file}"
            context.load_cert_chain(resolve_path(tls_cert_file), resolve_path(tls_key_file))
    except (OSError, ValueError) as error:
        msg = f"{named(table, name)}: {files}: {error}; name a PEM file that can be read"
        raise ConfigError(msg) from error
    return context
