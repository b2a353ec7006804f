"""Read server-sent events within a time limit for each (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Self

WAITING = 16  # events that were read and not taken yet
LOOK_EVERY = 0.5  # seconds between two looks of a reader whose events nobody takes

Message = tuple[str, bytes]  # the name of the event, its data


class EventReader:
    """Reads the events of ``response`` in a thread: a time limit of the socket would begin anew with each byte that drips."""

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket) -> None:
        self._response = response
        self._socket = sock
        self._read: Queue[Message | Exception | None] = Queue(WAITING)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):  # ends a read of the thread
            self._socket.shutdown(socket.SHUT_RDWR)

    def next(self, seconds: float) -> Message | None:
        """Return the next event, None at the end. Raises TimeoutError after ``seconds``, and the errors of the connection."""
        try:
            found = self._read.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None
        if isinstance(found, Exception):
            raise found
        return found

    def _run(self) -> None:
        try:
            for message in _messages(self._response):
                self._put(message)
            self._put(None)
        except Exception as error:  # noqa: BLE001  # the caller gets every error
            self._put(error)

    def _put(self, found: Message | Exception | None) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(Full):
                self._read.put(found, timeout=LOOK_EVERY)
                return


def _messages(response: http.client.HTTPResponse) -> Iterator[Message]:
    name, data = "", b""
    for line in response:
        field, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field == b"event":
            name = value.decode(errors="replace")
        elif field == b"data":
            data = value
        elif not field and data:
            yield name, data
            name, data = "", b""
