"""Looking up a host name without the event loop's thread pool; nothing here dials.

The loop's default executor is joined when the loop and the interpreter end, so one look-up that hangs holds up every
shutdown. Here each look-up has a daemon thread of its own: cancelling stops the waiting at once, and the thread dies with the
look-up or with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult


class DaemonResolver(AbstractResolver):
    """aiohttp's resolver seam over ``socket.getaddrinfo``. Stateless: one instance serves any number of look-ups."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises OSError (``socket.gaierror``) as the system's resolver does."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def deliver(result: list[ResolveResult] | Exception) -> None:
            if answer.done():  # the dial was cancelled while the look-up ran
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def look_up() -> None:
            result: list[ResolveResult] | Exception
            try:
                result = _addresses(host, port, family)
            except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA cannot encode
                result = error if isinstance(error, OSError) else OSError(f"not a host name: {host!r}")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits for this answer
                loop.call_soon_threadsafe(deliver, result)

        threading.Thread(target=look_up, name="discorder-dns", daemon=True).start()
        return await answer

    async def close(self) -> None:
        """Nothing is held."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """Blocking. Numeric addresses, in the system's order of preference."""
    results: list[ResolveResult] = []
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    for address_family, _, protocol, _, address in found:
        # getnameinfo keeps the scope of a link-local IPv6 address, which the address tuple carries only as a number
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
