"""Keep the operator token in a file: made at the start, read by the commands of the same configuration."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from discorder.config import Config
from discorder.config.http import AUTO
from discorder.errors import UnusableFile
from discorder.logs import logger
from discorder.paths import read_small_file, resolve_path
from discorder.sessions import state_folder

TOKEN_BYTES = 32  # of randomness in a token that is made here
SHORTEST_TOKEN = 16  # characters; a shorter one could be guessed
LONGEST_TOKEN = 512
LONGEST_FILE = LONGEST_TOKEN + 3  # bytes that are read: a line end may follow the token
NO_FILE = (
    "it is no regular file, so that other users could set the token; remove it, and a new one is made at the next start"
)
FILE_NAME = "operator-token"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The file of the operator token. ``chosen``: the configuration names it; otherwise it is "auto"."""

    path: Path
    chosen: bool

    def read(self) -> str:
        """Return the token. Blocks. Raises `UnusableFile` with a sentence, and FileNotFoundError."""
        try:
            token = (self._read_chosen() if self.chosen else self._read_own()).decode("ascii").strip()
        except FileNotFoundError:
            raise
        except UnicodeDecodeError:
            raise self._unusable("it holds something else than a token") from None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not token.isprintable() or " " in token:
            raise self._unusable(
                f"it must hold {SHORTEST_TOKEN} to {LONGEST_TOKEN} letters, digits and signs, and nothing else; "
                "remove it to have a new token made"
            )
        return token

    def ensure(self) -> str:
        """Return the token; make the file, for its owner only, if there is none. Blocks. Raises `UnusableFile`."""
        try:
            return self.read()
        except FileNotFoundError:
            pass
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make(secrets.token_urlsafe(TOKEN_BYTES))
            return self.read()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None

    def _make(self, token: str) -> None:
        """Write the file under another name and link it, so that no reader finds half a token and of two makers one wins."""
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{token}\n".encode())
            os.fchmod(descriptor, 0o600)
            os.link(draft, self.path)
        except FileExistsError:  # another process was first
            pass
        finally:
            os.close(descriptor)
            draft.unlink(missing_ok=True)

    def _read_chosen(self) -> bytes:
        """Read what the configuration names, a FIFO or a device of a supervisor, too; warn of a file that others can use."""
        mode = self.path.stat().st_mode
        content = read_small_file(self.path, LONGEST_FILE)
        if stat.S_ISREG(mode) and mode & OTHERS:
            logger.warning(
                "The operator token file can be used by others; chmod 600 it",
                path=str(self.path),
                mode=f"{stat.S_IMODE(mode):04o}",
            )
        return content

    def _read_own(self) -> bytes:
        """Read the file of "auto". Refuse what another user could have put there; the checks are of what was opened."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:  # a symbolic link, a socket
                raise self._unusable(NO_FILE) from None
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._unusable(NO_FILE)
            if found.st_uid != os.geteuid() or found.st_mode & OTHERS:
                raise self._unusable(
                    f"its owner is user {found.st_uid} and its mode {stat.S_IMODE(found.st_mode):04o}, so that other users "
                    "could know or set the token; remove it, and a new one is made at the next start"
                )
            return os.read(descriptor, LONGEST_FILE)
        finally:
            os.close(descriptor)

    def _unusable(self, reason: str) -> UnusableFile:
        return UnusableFile(f"http.operator_token_file: {self.path} cannot be used: {reason}")


def token_file(config: Config) -> TokenFile | None:
    """Return the file that ``http.operator_token_file`` means; None for "".

    "auto" is a file beside the session store; for a store in the state directory or in memory it is one of that directory.
    Raises `UnusableFile` where there is no such directory.
    """
    setting, store = config.http.operator_token_file, config.session.store
    if not setting:
        return None
    if setting != AUTO:
        return TokenFile(resolve_path(setting), chosen=True)
    if store in {"", AUTO}:
        return TokenFile(state_folder() / FILE_NAME, chosen=False)
    path = resolve_path(store)
    return TokenFile(path.with_name(f"{path.name}.{FILE_NAME}"), chosen=False)
