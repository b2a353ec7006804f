"""Writing a session down while it runs: a recorder, and a wrapper that reports one connection to it.

The format is JSON Lines, version 1: a header, then one entry per dial, message, close. It is read back by
`discorder.transport.recorded`. Recording must never hurt the session: a disk that fails ends the recording, nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
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
from discorder.transport.protocol import Transport
from discorder.transport.redact import Redaction
from discorder.wire import API_VERSION

logger = logging.getLogger(__name__)

FORMAT = "discorder-session"
FORMAT_VERSION = 1


class SessionRecorder:
    """The file of one recording, for all shards and connections of a run.

    ``api_url`` decides about privacy: unless it is loopback, or ``raw`` is set, people's words become filler of the same
    length. ``secrets`` (the bot token) never reach the file. ``shards`` None: as the first connection says. A context manager.
    Raises `UnusableFile` if the file exists or cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock,
        api_url: str,
        shards: int | None = None,
        raw: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._start = clock.monotonic()
        self._connections = 0
        filler = not raw and not is_loopback(api_url)
        self._redaction = Redaction(secrets, filler=filler)
        created = clock.now().isoformat(timespec="seconds")
        # Written with the first entry: how many shards there are, a look-up may yet have to tell.
        self._header: dict[str, object] | None = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "api": API_VERSION,
            "created": created,
            "shards": shards,
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
    def active(self) -> bool:
        """False once closed, by `close` or by a disk that failed."""
        return self._file is not None

    @property
    def redaction(self) -> Redaction:
        """The placeholders of this recording."""
        return self._redaction

    def wrap(self, transport: Transport, shard: tuple[int, int]) -> RecordingTransport:
        """``transport``, recorded as the next connection."""
        self._connections += 1
        return RecordingTransport(transport, self, shard, self._connections)

    def note(self, shard: tuple[int, int], connection: int, kind: str, **facts: str | int | None) -> None:
        """Append one entry. The texts in ``facts`` must be redacted already. Never raises for a file that cannot be written."""
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
            self._write(header | {"shards": shards if header["shards"] is None else header["shards"]})

    def _write(self, entry: Mapping[str, object]) -> None:
        """One line, handed to the operating system at once, so that a crash keeps it."""
        if self._file is None:
            return
        # ASCII escapes: a message that is no UTF-8 is held as lone surrogates, which only an escape can carry
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
    """A transport that notes what passes through ``inner`` as connection number ``connection`` of ``shard``.

    It belongs outside of decompression: messages are recorded as text.
    """

    def __init__(self, inner: Transport, recorder: SessionRecorder, shard: tuple[int, int], connection: int) -> None:
        self._inner = inner
        self._recorder = recorder
        self._redaction = recorder.redaction
        self._shard = shard
        self._connection = connection
        self._dialled = False
        self._opened = False
        self._over = False  # one end per connection: what follows the first is our own tidying up

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str) -> None:
        self._dialled = True
        shown = self._redaction.url(url)
        self._note("dial", url=shown)
        try:
            await self._inner.connect(url)
        except ConnectFailed as failure:
            error = _with_host_of(shown, self._redaction.plain(str(failure)), url)
            self._note_end("fail", error=error, status=failure.status, by="network")
            raise
        except asyncio.CancelledError:
            self._note_end("fail", error="the dial was cancelled", status=None, by="us")
            raise
        self._opened = True
        self._note("open")

    async def receive(self) -> list[bytes]:
        try:
            batch = await self._inner.receive()
        except Closed as closed:
            self._note_close(closed)
            raise
        except ProtocolBreach as breach:
            self._note_end("fail", error=self._redaction.plain(str(breach)), status=None, by="peer")
            raise
        for message in batch:
            self._note("in", text=self._text(message))
        return batch

    async def send(self, data: bytes) -> None:
        self._note("out", text=self._text(data))  # before it is sent, so that no answer can be noted ahead of it
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
    """``text`` with the host of ``url``, and its port, as they are called in ``shown``."""
    host = re.escape(urlsplit(url).hostname or "")
    return re.sub(rf"{host}(?::\d+)?", urlsplit(shown).hostname or "", text) if host else text


def is_loopback(url: str) -> bool:
    """Whether the host of ``url`` is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
