"""Stream the parts of the status document as server-sent events, to a bounded number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from discorder.http.answers import RequestRefused
from discorder.http.connection import HttpConnection
from discorder.status.listener import Listener

MOST_STREAMS = 20
STALLED_SECONDS = 15.0  # that a write may wait for a reader; the board has replaced its parts by then
CLOSE_SECONDS = 0.05  # for a reader to take the end of the stream
RETRY_MS = 1000  # after which a browser connects again


class EventStreams:
    """The open streams of one server. `close` ends all of them and refuses further ones."""

    def __init__(self, listen: Callable[[], Listener]) -> None:
        """``listen`` returns the events of one reader."""
        self._listen = listen
        self._tasks: set[asyncio.Task[object]] = set()
        self._closing = False

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client or the server goes. Raises `RequestRefused` beyond the bound."""
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})  # nginx would collect the events
        response.content_type = "text/event-stream"
        if request.method == hdrs.METH_HEAD:
            return response
        if self._closing or len(self._tasks) >= MOST_STREAMS:
            raise RequestRefused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_STREAMS} event streams are open, and no more are allowed; close a status page, or poll /status.json",
                {"Retry-After": "5"},
            )
        task: asyncio.Task[object] | None = asyncio.current_task()
        assert task is not None  # noqa: S101  # a handler runs in a task
        self._tasks.add(task)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.streams = True
        try:
            await self._send(request, response)
        except (ConnectionError, TimeoutError):  # the reader has gone, or takes nothing
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._tasks.discard(task)
        return response

    async def close(self) -> None:
        """End every stream, after its events have ended: properly where the reader takes what is sent, else at once."""
        self._closing = True
        tasks = list(self._tasks)
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, request: web.Request, response: web.StreamResponse) -> None:
        listener = self._listen()
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            async for name, data in listener:
                async with asyncio.timeout(STALLED_SECONDS):
                    await response.write(b"event: %s\ndata: %s\n\n" % (name.encode(), data))
        finally:
            listener.close()
