"""Check the URL of a gateway, which comes from the look-up, from READY or from the session store."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from yarl import URL

MAX_URL = 2048  # characters; Discord's have about 40, and this one goes into the store and the log
MAX_HOST = 253  # characters of a host name (RFC 1035 §2.3.4)
UNENCRYPTED = (
    "would send the bot token unencrypted over a network; use https or an address of this machine, "
    "or set gateway.insecure_api = true if every machine between is trusted"
)
_PRINTABLE = re.compile(r"[!-~]+")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")  # 63 characters at most (RFC 1035 §2.3.4)


@dataclass(frozen=True, slots=True)
class Address:
    """Hold a valid gateway URL. ``host`` is in lower case, without the brackets of an IPv6 address."""

    url: str
    host: str
    encrypted: bool


def parse_address(text: str) -> Address:
    """Check a ``ws://`` or ``wss://`` URL. Raises ValueError, whose text contains no part of the URL."""
    if len(text) > MAX_URL or not _PRINTABLE.fullmatch(text):
        msg = f"not a URL: empty, longer than {MAX_URL:,} characters, or with characters that a URL cannot hold"
        raise ValueError(msg)
    try:
        url = URL(text)
        host, port = url.host, url.port
        readable = not (url.user or url.password or url.fragment)
    except ValueError as error:  # also UnicodeError, for an IDNA label that cannot be decoded
        msg = "not a URL: its host or port cannot be read"
        raise ValueError(msg) from error
    if url.scheme not in ("ws", "wss"):
        msg = "not a ws:// or wss:// URL"
    elif not host or not is_host(url.raw_host or ""):
        msg = "not a URL with a host name or an address"
    elif port == 0 or not readable:
        msg = "a URL with a user, a fragment or port 0"
    else:
        return Address(text, host.lower().rstrip("."), url.scheme == "wss")
    raise ValueError(msg)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine: ``localhost``, a name below it (RFC 6761 §6.3), or a loopback address."""
    name = host.lower().rstrip(".")
    address = ip_address(name)
    if address is not None:
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def keeps_token_private(api: str) -> bool:
    """Return whether requests to the REST API at ``api`` never send the token unencrypted over a network: https, or loopback."""
    parts = urlsplit(api)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return ``host`` as an IP address, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_host(host: str) -> bool:
    """Return whether ``host`` has the form of a host name or of an IP address, without brackets."""
    if ip_address(host) is not None:
        return True
    labels = host.removesuffix(".").split(".")
    return len(host) <= MAX_HOST and all(_LABEL.fullmatch(label) for label in labels)
