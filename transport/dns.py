"""Resolve host names in daemon threads, so that a look-up that hangs does not delay the shutdown."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from discorder.daemon_thread import in_daemon_thread


class DaemonResolver(AbstractResolver):
    """Implement aiohttp's resolver with ``socket.getaddrinfo``. Stateless: one instance serves any number of look-ups."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``. Raises OSError (``socket.gaierror``) as the system's resolver does."""
        return await in_daemon_thread(lambda: _addresses(host, port, family), "discorder-dns")

    async def close(self) -> None:
        """Do nothing: the resolver holds no resources."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """Return numeric addresses, in the system's order of preference. Blocks."""
    results: list[ResolveResult] = []
    try:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:  # a label that IDNA cannot encode
        msg = f"not a host name: {host!r}"
        raise OSError(msg) from None
    for address_family, _, protocol, _, address in found:
        # getnameinfo keeps the scope of a link-local IPv6 address, which the address tuple has only as a number
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        results.append(
            ResolveResult(
                hostname=host,
                host=numeric,
                port=port,
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return results
