"""Serve the status page of a document that a test has made, with a stream that the test writes to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from discorder.http.page import render_page

Document = dict[str, Any]


class PageServer:
    """A server in a thread of its own. ``send`` writes an event to every stream; ``hold`` keeps the streams open but silent."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.url = ""
        self.streams_opened = 0
        self.holds = False
        self._loop = asyncio.new_event_loop()
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page server")

    def send(self, kind: str, part: Document) -> None:
        """Write one event to every stream that is open."""
        self._put(f"event: {kind}\ndata: {json.dumps(part)}\n\n".encode())

    def cut(self) -> None:
        """Close every stream; browsers connect again."""
        self._put(None)

    def _put(self, item: bytes | None) -> None:
        def put() -> None:
            for queue in self._queues:
                queue.put_nowait(item)

        self._loop.call_soon_threadsafe(put)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/", self._page), web.get("/events", self._events)])
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        self._stopped = asyncio.Event()
        self._ready.set()
        await self._stopped.wait()
        await runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        page = render_page(json.dumps(self.document).encode())
        return web.Response(
            body=page.body,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": page.policy},
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.streams_opened += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            await response.write(f"retry: 100\nevent: status\ndata: {json.dumps(self.document)}\n\n".encode())
            while True:
                try:
                    item = await asyncio.wait_for(queue.get(), 1.0)
                except TimeoutError:
                    item = f"event: beat\ndata: {json.dumps({'at': self.document['at']})}\n\n".encode()
                    if self.holds:
                        continue
                if item is None:
                    return response
                await response.write(item)
        except ConnectionError:  # the browser has gone
            return response
        finally:
            self._queues.discard(queue)

    def __enter__(self) -> PageServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._put(None)
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)


@contextmanager
def page_server(document: Document) -> Iterator[PageServer]:
    """Serve ``document`` until the block ends."""
    with PageServer(document) as server:
        yield server
