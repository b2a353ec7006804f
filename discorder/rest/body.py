"""Read and decompress the body of an answer, up to `MAX_BODY` bytes."""

from __future__ import annotations

import zlib

import aiohttp

MAX_BODY = 16 * 1024 * 1024  # bytes, decompressed; Discord's largest answer (1,000 members) has less than 1 MiB
ACCEPT_ENCODING = "gzip, deflate"  # set here, because aiohttp would offer encodings that `_Body` cannot decode
_CHUNK = 64 * 1024  # bytes of one read
_GZIP = 31  # zlib's window bits for a gzip header
_ZLIB = 15
_RAW = -15  # some servers mean this by "deflate"


async def read_body(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Return the decompressed body and whether it was cut at `MAX_BODY`.

    Raises aiohttp.ClientPayloadError for a body that its ``Content-Encoding`` does not describe. The response must come from
    a session with ``auto_decompress=False``.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    body = _Body(encoding)
    async for chunk in response.content.iter_chunked(_CHUNK):
        body.feed(chunk)
        if body.is_full:
            response.close()  # the rest is not read, so the connection cannot be used again
            return body.take(), True
    body.end()
    return body.take(), False


class _Body:
    """The bytes read so far, at most one more than `MAX_BODY`."""

    def __init__(self, encoding: str) -> None:
        if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            msg = "the answer has a content encoding that was not asked for"
            raise aiohttp.ClientPayloadError(msg)
        self._encoding = encoding
        self._inflate: zlib._Decompress | None = None
        self._data = bytearray()

    @property
    def is_full(self) -> bool:
        return len(self._data) > MAX_BODY

    def feed(self, chunk: bytes) -> None:
        if self._encoding in {"", "identity"}:
            self._data += chunk[: MAX_BODY + 1 - len(self._data)]
            return
        try:
            self._feed_compressed(chunk)
        except zlib.error as error:
            msg = f"the answer is not {self._encoding} data: {error}"
            raise aiohttp.ClientPayloadError(msg) from error

    def end(self) -> None:
        """Raise ClientPayloadError if the compressed data is incomplete."""
        if self._inflate is not None and not self._inflate.eof:
            msg = f"the answer's {self._encoding} data ends too early"
            raise aiohttp.ClientPayloadError(msg)

    def take(self) -> bytes:
        return bytes(self._data[:MAX_BODY])

    def _feed_compressed(self, chunk: bytes) -> None:
        while chunk and not self.is_full:
            if self._inflate is None or self._inflate.eof:  # gzip data may have several members
                self._inflate = zlib.decompressobj(self._window_bits(chunk))
            self._data += self._inflate.decompress(chunk, MAX_BODY + 1 - len(self._data))
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _window_bits(self, chunk: bytes) -> int:
        if self._encoding != "deflate":
            return _GZIP
        return _ZLIB if chunk[0] & 0x0F == zlib.DEFLATED else _RAW
