"""Record a session while it runs: the recorder of the file, and a transport that records one connection.

The format is JSON Lines, version 1: a header, then one entry per dial, message and close; `discorder.transport.recorded` reads
it. A failed write ends the recording, and the session continues.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from discorder.clock import Clock
from discorder.errors import Closed, ConnectFailed, ProtocolBreach, UnusableFile
from discorder.transport.address import is_loopback
from discorder.transport.protocol import Deliver, Transport
from discorder.transport.redact import Redaction, split_url
from discorder.wire import API_VERSION

logger = logging.getLogger(__name__)

FORMAT = "discorder-session"
FORMAT_VERSION = 1


class SessionRecorder:
    """Write the file of one recording, for all shards and connections of a run.

    Unless ``api_url`` is loopback or ``raw`` is set, filler of the same length replaces what users wrote. ``secrets`` (the bot
    token) are never written. A context manager.
    Raises `UnusableFile` if the file exists or cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock,
        api_url: str,
        raw: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._start = clock.monotonic()
        self._connections = 0
        filler = not raw and not is_loopback(urlsplit(api_url).hostname or "")
        self._redaction = Redaction(secrets, filler=filler)
        created = clock.now().isoformat(timespec="seconds")
        # Written with the first entry, because the number of shards may come from a look-up.
        self._header: dict[str, object] | None = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "api": API_VERSION,
            "created": created,
            "shards": 0,
            "filler": filler,
        }
        try:
            self._file: int | None = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            msg = f"the recording {self.path} exists already; remove it or choose another name"
            raise UnusableFile(msg) from None
        except OSError as error:
            msg = f"the recording {self.path} cannot be written: {error.strerror}"
            raise UnusableFile(msg) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def redaction(self) -> Redaction:
        """Return the placeholders of this recording."""
        return self._redaction

    def wrap(self, transport: Transport, shard: tuple[int, int]) -> RecordingTransport:
        """Record ``transport`` as the next connection."""
        self._connections += 1
        return RecordingTransport(transport, self, shard, self._connections)

    def note(self, shard: tuple[int, int], connection: int, kind: str, **facts: str | int | None) -> None:
        """Append one entry. The texts in ``facts`` must be redacted already. Never raises for a failed write."""
        self._write_header(shard[1])
        self._write({"t": self._elapsed_ms(), "c": connection, "shard": list(shard), "k": kind} | facts)

    def close(self) -> None:
        """Append the end mark and close the file. Idempotent."""
        self._write_header(0)
        self._write({"t": self._elapsed_ms(), "c": None, "shard": None, "k": "end"})
        self._release()

    def _elapsed_ms(self) -> int:
        return round((self._clock.monotonic() - self._start) * 1000)

    def _write_header(self, shards: int) -> None:
        header, self._header = self._header, None
        if header is not None:
            self._write(header | {"shards": shards})

    def _write(self, entry: Mapping[str, object]) -> None:
        """Write one line, unbuffered, so that it survives a crash."""
        if self._file is None:
            return
        # ASCII escapes: a message that is not UTF-8 contains lone surrogates, which only an escape can represent
        rest = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            logger.warning("recording to %s stopped, the session goes on: %s", self.path, error.strerror)
            self._release()

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                os.close(file)
            except OSError as error:  # some file systems report a full disk only here
                logger.warning("the end of the recording %s may be missing: %s", self.path, error.strerror)


class RecordingTransport:
    """Record the messages of the transport ``inner`` as connection number ``connection`` of ``shard``.

    The messages are recorded decompressed, as ``inner`` delivers them.
    """

    def __init__(self, inner: Transport, recorder: SessionRecorder, shard: tuple[int, int], connection: int) -> None:
        self._inner = inner
        self._recorder = recorder
        self._redaction = recorder.redaction
        self._shard = shard
        self._connection = connection
        self._dialled = False
        self._opened = False
        self._over = False  # one end is recorded per connection; later ones are part of our clean-up

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str, deliver: Deliver) -> None:
        def note_and_deliver(batch: list[bytes]) -> None:
            for message in batch:
                self._note("in", text=self._text(message))
            deliver(batch)

        self._dialled = True
        shown = self._redaction.url(url)
        self._note("dial", url=shown)
        try:
            await self._inner.connect(url, note_and_deliver)
        except ConnectFailed as failure:
            error = _with_host_of(shown, self._redaction.plain(str(failure)), url)
            self._note_end("fail", error=error, status=failure.status, by="network")
            raise
        except asyncio.CancelledError:
            self._note_end("fail", error="the dial was cancelled", status=None, by="us")
            raise
        self._opened = True
        self._note("open")

    async def wait_closed(self) -> None:
        try:
            await self._inner.wait_closed()
        except Closed as closed:
            self._note_close(closed)
            raise
        except ProtocolBreach as breach:
            self._note_end("fail", error=self._redaction.plain(str(breach)), status=None, by="peer")
            raise

    async def send(self, data: bytes) -> None:
        self._note("out", text=self._text(data))  # before it is sent, so that no answer is recorded ahead of it
        await self._inner.send(data)

    async def close(self, code: int) -> None:
        self._note_our_end(code)
        await self._inner.close(code)

    def abort(self) -> None:
        self._note_our_end(None)
        self._inner.abort()

    def _text(self, message: bytes) -> str:
        return self._redaction.message(message.decode("utf-8", "surrogateescape"))

    def _note_our_end(self, code: int | None) -> None:
        if not self._inner.closed:
            self._note_close(Closed(code, "us"))
        elif not self._opened:
            self._note_end("fail", error="the dial was cancelled", status=None, by="us")

    def _note_close(self, closed: Closed) -> None:
        self._note_end("close", code=closed.code, by=closed.by, reason=self._redaction.plain(closed.reason))

    def _note_end(self, kind: str, **facts: str | int | None) -> None:
        if self._dialled and not self._over:
            self._note(kind, **facts)
            self._over = True

    def _note(self, kind: str, **facts: str | int | None) -> None:
        if not self._over:
            self._recorder.note(self._shard, self._connection, kind, **facts)


def _with_host_of(shown: str, text: str, url: str) -> str:
    """Replace the host and port of ``url`` in ``text`` by the host of ``shown``."""
    parts = split_url(url)
    host = re.escape("" if parts is None else parts.hostname or "")
    return re.sub(rf"{host}(?::\d+)?", urlsplit(shown).hostname or "", text) if host else text
