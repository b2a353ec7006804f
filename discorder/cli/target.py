"""Find the HTTP server of a control plane: its address, from the configuration or ``--url``, and the certificate to expect."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from discorder.config import Config
from discorder.errors import ConfigError
from discorder.paths import resolve_path

_HOST = re.compile(r"[^\x00-\x20\x7f-\xa0/?#@\[\]\\]+")  # a name or an address; IDNA checks its parts


@dataclass(frozen=True, slots=True)
class Target:
    """The address of an HTTP server.

    ``certificate``: that of ``http.tls_cert_file`` in PEM form, or "". ``configured``: the address is the configuration's, so the
    server must show this certificate, whatever its name.
    """

    scheme: str
    host: str
    port: int
    certificate: str = ""
    configured: bool = False

    @property
    def url(self) -> str:
        """The address as a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def target_of_config(config: Config) -> Target:
    """Return the address of ``http.bind``. Raises `ConfigError` if that names none."""
    address = config.http.address
    if address is None:
        msg = 'http.bind is "", so the control plane of this configuration has no HTTP server; set it, or name one with --url'
        raise ConfigError(msg)
    if not address.port:
        msg = "http.bind has port 0, so only the log of the control plane says which one it is; name it with --url"
        raise ConfigError(msg)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # connected to, not bound
    return Target(config.http.scheme, host, address.port, _certificate(config), configured=True)


def target_of_url(url: str, config: Config) -> Target:
    """Return the address of ``--url``. Raises `ConfigError`."""
    parts = _address_parts(url)
    if parts is None:
        msg = f"--url {url}: write the address as the log shows it, such as http://127.0.0.1:6080"
        raise ConfigError(msg)
    scheme, host, port = parts
    return Target(scheme, host, port, _certificate(config))


def _address_parts(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an address, None if it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        return None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    has_more = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
    if default is None or port == 0 or has_more or _HOST.fullmatch(host) is None:
        return None
    return parts.scheme, host, default if port is None else port


def _certificate(config: Config) -> str:
    """Return the certificate of the configuration without its chain, in PEM form; "" for none."""
    if not config.http.tls_cert_file:
        return ""
    try:
        text = resolve_path(config.http.tls_cert_file).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        msg = f"http.tls_cert_file: {Path(config.http.tls_cert_file)} cannot be read: {error}"
        raise ConfigError(msg) from None
    end = "-----END CERTIFICATE-----"
    return text[text.find("-----BEGIN CERTIFICATE-----") : text.find(end) + len(end)]


def tls_context(target: Target) -> ssl.SSLContext:
    """Return the rules for the server's certificate: those of the system, and the configured one is trusted too."""
    if not target.certificate:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if target.configured else ssl.create_default_context()
    context.check_hostname = not target.configured
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may have an issuer that is not trusted here
    context.load_verify_locations(cadata=target.certificate)
    return context
