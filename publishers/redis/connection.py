"""Hold one connection to a Redis server and send commands over it.

A connection is never repaired: after a failure the publisher closes it and makes a new one. The library's pipeline is not used,
because its errors contain the whole command, which is an event here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Connection as TcpConnection
from redis.asyncio import SSLConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from discorder.redis_access import CONNECT_TIMEOUT, ServerAccess

ANSWER_TIMEOUT = 5.0  # seconds for the answers to a batch
UNSENT_TIMEOUT = 10_000  # milliseconds after which the system gives up a closed connection whose peer reads nothing

FAILURES = (RedisError, OSError, TimeoutError)  # of the client library

Command = Sequence[bytes | str | int]


class Connection:
    """A connection to one server. All answers are bytes, integers, None, lists of them, or a ResponseError."""

    def __init__(self, access: ServerAccess) -> None:
        self._connection = _connection_to(access)

    @property
    def is_lost(self) -> bool:
        """Return whether nothing more can be sent; also after a batch was cancelled."""
        return not self._connection.is_connected

    async def open(self) -> None:
        """Connect and log in. Raises one of `FAILURES`; call `close` then."""
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await self._connection.connect()  # type: ignore[no-untyped-call]

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send ``commands`` at once and return the answer to each, which may be a ResponseError. Raises one of `FAILURES`."""
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await self._send(commands)
            return [await self._answer() for _ in commands]

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Let the server carry out ``commands`` as one transaction, and return as `ask` does.

        Raises one of `FAILURES`; a ResponseError if the server refused the transaction as a whole.
        """
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await self._send([["MULTI"], *commands, ["EXEC"]])
            queued = [await self._answer() for _ in range(len(commands) + 1)]
            answers = await self._answer()
        if isinstance(answers, list):
            return answers
        refusal = next((one for one in [*queued, answers] if isinstance(one, ResponseError)), None)
        raise refusal or ResponseError("the transaction was discarded")

    async def close(self) -> None:
        """Close the connection without waiting for the server."""
        await self._connection.disconnect(nowait=True)

    async def _send(self, commands: Sequence[Command]) -> None:
        packed = self._connection.pack_commands(commands)
        await self._connection.send_packed_command(packed, check_health=False)

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response()  # the caller limits the time
        except ResponseError as error:
            return error


def _connection_to(access: ServerAccess) -> TcpConnection:
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux only
    settings = {
        **access.settings(),
        "socket_timeout": None,  # its own limits swallow cancellations on Python 3.11, and cost a task for each batch
        "socket_keepalive_options": {} if user_timeout is None else {user_timeout: UNSENT_TIMEOUT},
    }
    return SSLConnection(**settings) if access.address().is_encrypted else TcpConnection(**settings)


async def connect(access: ServerAccess) -> Connection:
    """Return a connection to the server.

    Raises PublisherUnreachable, or ConfigError if the server refused the login or has a certificate that is not trusted, and
    for a file that cannot be used.
    """
    connection = Connection(access)
    try:
        await connection.open()
    except FAILURES as error:
        await connection.close()
        raise access.failure(error, refused=isinstance(error, AuthenticationError)) from error
    except BaseException:
        await connection.close()
        raise
    return connection
