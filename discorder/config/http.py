"""Define the section ``[http]`` and check it: where the status page listens, and which other hosts may reach it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from discorder.paths import resolve_path
from discorder.transport import is_loopback
from discorder.transport.address import ip_address, is_host
from discorder.wire import MAX_PORT

DEFAULT_BIND = "127.0.0.1:6080"
AUTO = "auto"
ALL_INTERFACES = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, not bound

_BIND = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>[0-9]{1,5})")
_EXAMPLES = '"127.0.0.1:6080" or "[::1]:6080"'
_FILE = "a path as a string"


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the status page, the metrics and the health checks are served, and to whom."""

    bind: Annotated[str, Meta(description=f'HOST:PORT such as {_EXAMPLES}; port 0 = any free one; "" = off')] = (
        DEFAULT_BIND
    )
    hosts: Annotated[
        tuple[str, ...], Meta(description='a list of host names without a port, such as ["discorder.example.org"]')
    ] = ()
    insecure: Annotated[
        bool, Meta(description="true (other hosts may be served without TLS) or false (TLS, or this machine only)")
    ] = False
    tls_cert_file: Annotated[str, Meta(description=f'{_FILE}; "" = no TLS')] = ""
    tls_key_file: Annotated[str, Meta(description=f'{_FILE}; "" = no TLS')] = ""
    operator_token_file: Annotated[
        str, Meta(description=f'"auto" (beside the session store), {_FILE}, or "" (no commands, no login)')
    ] = AUTO

    @property
    def address(self) -> ListenAddress | None:
        """Where to listen, None if the section is off."""
        return parse_bind(self.bind) if self.bind else None

    @property
    def scheme(self) -> str:
        """The scheme of the URLs: https with TLS files, otherwise http."""
        return "https" if self.tls_cert_file else "http"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host, without the brackets of IPv6, and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether no other host can reach it."""
        return is_loopback(self.host)

    @property
    def serves_all(self) -> bool:
        """Whether it means every interface of this machine."""
        return self.host in ALL_INTERFACES

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(text: str) -> ListenAddress:
    """Return the parts of HOST:PORT. Raises ValueError with a sentence."""
    match = _BIND.fullmatch(text)
    host = "" if match is None else (match["v6"] or match["host"]).lower()
    if match is None or int(match["port"]) > MAX_PORT or not is_host(host) or (":" in host) != bool(match["v6"]):
        msg = "not HOST:PORT; an IPv6 address needs brackets, every interface is 0.0.0.0 or [::]"
        raise ValueError(msg)
    mapped = getattr(ip_address(host), "ipv4_mapped", None)
    if mapped is not None:
        msg = f"no socket listens on an IPv4 address in the notation of IPv6; write {mapped}:{match['port']}"
        raise ValueError(msg)
    return ListenAddress(host, int(match["port"]))


def check_bind(text: str) -> str:
    """Check ``http.bind`` and return it as written."""
    if text:
        parse_bind(text)
    return text


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in lower case. Raises ValueError for one with a port, a scheme or a wildcard."""
    for name in hosts:
        if not is_host(name):
            msg = f"{name!r} is not a host name; write it without scheme, port and wildcard"
            raise ValueError(msg)
    return tuple(name.lower().rstrip(".") for name in hosts)


def check_token_path(path: str) -> str:
    """Check the path unless it is "auto", and return it as written."""
    if path != AUTO:
        resolve_path(path)
    return path


def contradictions(http: Http) -> Iterator[tuple[str, str]]:
    """Yield each key that contradicts another one, with a sentence."""
    if bool(http.tls_cert_file) != bool(http.tls_key_file):
        missing = "tls_key_file" if http.tls_cert_file else "tls_cert_file"
        yield f"http.{missing}", "TLS needs a certificate and its key; set tls_cert_file and tls_key_file, or neither"
    if http.insecure and http.tls_cert_file:
        yield (
            "http.insecure",
            "insecure = true means to serve without TLS, but tls_cert_file is set; remove one of them",
        )
    address = http.address
    if address is None or address.is_loopback:
        return
    if not http.tls_cert_file and not http.insecure:
        yield (
            "http.bind",
            (
                f"other hosts could reach {http.bind} and would send the operator token unencrypted; bind a loopback address, "
                f"such as {_EXAMPLES}, set tls_cert_file and tls_key_file, or set insecure = true if the network is trusted"
            ),
        )
    if not http.operator_token_file:
        yield (
            "http.operator_token_file",
            (
                f'"" leaves no token to log in with, and {http.bind} serves other hosts; '
                'set it to "auto" or to a path, or bind a loopback address'
            ),
        )


FIELD_CHECKS: dict[str, Callable[..., object]] = {
    "http.bind": check_bind,
    "http.hosts": check_hosts,
    "http.operator_token_file": check_token_path,
}
