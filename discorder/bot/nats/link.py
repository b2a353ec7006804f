"""One connection to a NATS server, and requests to its JetStream API.

A connection is never repaired: after a failure its owner makes a new one, so that no buffer of the library acknowledges or
requests anything late.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError

from discorder.errors import ConfigError, PublisherUnreachable
from discorder.nats_access import ServerAccess
from discorder.nats_client import CONNECT_TIMEOUT, FAILURES, open_client

ANSWER_TIMEOUT = 5.0  # seconds
CLOSE_TIMEOUT = 1.0  # seconds


class ApiError(Exception):
    """JetStream refused a request. ``code`` is its own, of four to five digits, 0 if there is none."""

    def __init__(self, description: str, code: int) -> None:
        super().__init__(description)
        self.code = code


class _Refusal(msgspec.Struct):
    description: str = ""
    err_code: int = 0


class _Answer(msgspec.Struct):
    error: _Refusal | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class Link:
    """A connection. ``lost`` is called when it ends."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.client = Client()
        self.error: Exception | None = None
        self._lost = lost

    async def open(
        self, access: ServerAccess, server: str, credentials: str | None, tls: ssl.SSLContext | None
    ) -> None:
        """Connect and log in. Raises one of `FAILURES`; call `close` then."""
        await open_client(
            self.client,
            access,
            server,
            tls=tls,
            failed=self._note_error,
            closed=self._note_end,
            name="discorder reader",
            user_credentials=credentials,
        )

    async def ask(self, subject: str, **fields: Any) -> bytes:
        """Send a request to ``$JS.API.`` + ``subject`` and return the answer.

        Raises `ApiError`, and one of `FAILURES` without an answer.
        """
        payload = msgspec.json.encode(fields) if fields else b""
        try:
            answer = await self.client.request(f"$JS.API.{subject}", payload, timeout=ANSWER_TIMEOUT)
        except NoRespondersError:
            msg = "JetStream is off on this server or in this account; start nats-server with -js"
            raise ApiError(msg, 0) from None
        refusal = _decode_answer(answer.data).error
        if refusal is not None:
            raise ApiError(refusal.description, refusal.err_code)
        return answer.data

    async def close(self) -> None:
        """Close the connection in bounded time. Idempotent."""
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.client.close()

    def _note_error(self, error: Exception) -> None:
        self.error = error

    async def _note_end(self) -> None:
        self._lost()


async def dial(access: ServerAccess, lost: Callable[[], None]) -> Link:
    """Return a connection to the first server that can be reached, in the order of the address.

    Raises `PublisherUnreachable`, or ConfigError for a refused login, a certificate that is not trusted, or a file that cannot be
    used.
    """
    credentials, tls = access.credentials(), access.tls()
    failures: list[tuple[str, Exception]] = []
    for server in access.servers:
        link = Link(lost)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await link.open(access, server, credentials, tls)
        except FAILURES as error:
            await link.close()
            failures.append((server, error))
        except BaseException:
            await link.close()
            raise
        else:
            return link
    raise access.failure(failures)


__all__ = ["FAILURES", "ApiError", "ConfigError", "Link", "PublisherUnreachable", "dial"]
