"""Check and build what a publisher needs for a connection to a server: loopback or not, TLS files."""

from __future__ import annotations

import ipaddress
import ssl

from discorder.errors import ConfigError
from discorder.paths import resolve_path


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, by name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_certificate_keys(key: str, tls_cert_file: str, tls_key_file: str) -> None:
    """Raise ConfigError if only one of the two is set. ``key``: of the publisher's table."""
    if bool(tls_cert_file) != bool(tls_key_file):
        msg = f"{key}.tls_cert_file and {key}.tls_key_file belong together; set both or neither"
        raise ConfigError(msg)


def tls_context(key: str, tls_ca_file: str, tls_cert_file: str, tls_key_file: str) -> ssl.SSLContext:
    """Return the TLS context that the keys of a publisher's table define. Raises ConfigError for an unusable file."""
    name = "tls_ca_file"
    try:
        context = ssl.create_default_context(cafile=str(resolve_path(tls_ca_file)) if tls_ca_file else None)
        if tls_cert_file:
            name = "tls_cert_file"
            context.load_cert_chain(resolve_path(tls_cert_file), resolve_path(tls_key_file))
    except (OSError, ValueError) as error:
        msg = f"{key}.{name}: {error}; name a PEM file that can be read"
        raise ConfigError(msg) from error
    return context
