"""Load the certificate of ``http.tls_cert_file``, and load it again when it was renewed."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

from discorder.daemon_thread import in_daemon_thread
from discorder.errors import ConfigError
from discorder.logs import logger
from discorder.paths import READ_WITHIN

THREAD = "http-certificate"


LOAD_SECONDS = 0.5  # that a connection waits for renewed files; a network file system may hang


class Certificate:
    """The certificate and its key. The constructor blocks, and raises `ConfigError` for files that cannot be used."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._stamp = self._read_stamp()
        self._context = self._load()
        self._check: asyncio.Task[None] | None = None
        self._deadline = 0.0  # of the check, in the time of the loop

    @classmethod
    async def load(cls, cert_file: Path, key_file: Path) -> Certificate:
        """Return the certificate of these files. Raises `ConfigError`, also if they cannot be read in time."""
        try:
            async with asyncio.timeout(READ_WITHIN):
                return await in_daemon_thread(lambda: cls(cert_file, key_file), THREAD)
        except TimeoutError:
            raise _unusable((cert_file, key_file), f"reading them took more than {READ_WITHIN:g} s") from None

    async def context(self) -> ssl.SSLContext:
        """Return the context for a new connection, with the files as they are now; with those before if they are unusable.

        The files are read in a thread; a read that hangs delays the connections of its first `LOAD_SECONDS` and no others.
        """
        now = asyncio.get_running_loop().time()
        is_due = self._check is None or self._check.done()
        if self._check is None or is_due:
            self._check = asyncio.create_task(in_daemon_thread(self._refresh, THREAD), name=THREAD)
            self._deadline = now + LOAD_SECONDS
        if now < self._deadline:
            await asyncio.wait({self._check}, timeout=self._deadline - now)
            if is_due and not self._check.done():
                logger.warning("The TLS certificate cannot be read now; the one before stays", path=str(self._files[0]))
        return self._context

    def close(self) -> None:
        """Give up a check that has not ended."""
        if self._check is not None:
            self._check.cancel()

    def _refresh(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._context = self._load()
        except ConfigError as error:
            logger.warning("The renewed TLS certificate cannot be used; the one before stays", error=str(error))
        else:
            logger.info("Loaded the renewed TLS certificate", path=str(self._files[0]))

    def _read_stamp(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in self._files)
        except OSError:  # a file that is being replaced; `_load` explains one that is missing
            return ()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            for path in self._files:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise _unusable(self._files, f"{path.name} is no regular file")
            context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unusable(self._files, getattr(error, "strerror", None) or str(error)) from None
        return context


def _unusable(files: tuple[Path, Path], reason: str) -> ConfigError:
    cert_file, key_file = map(str, files)
    return ConfigError(
        f"http.tls_cert_file = {cert_file!r}, tls_key_file = {key_file!r}: cannot be used: {reason}; "
        "give a certificate and its key in PEM form, without a password"
    )


def _no_password() -> str:
    """Answer the question for a password, which OpenSSL would ask on the terminal."""
    return ""
