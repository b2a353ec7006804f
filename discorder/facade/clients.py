"""Load the bots that may connect, with their tokens and settings, and make their tokens."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from discorder.config import FacadeClient
from discorder.errors import ConfigError, UnusableFile
from discorder.logs import logger
from discorder.paths import is_open_to_others, read_small_file, resolve_path

REAL = "bot token"  # the name of every bot that uses the real token; no name in the configuration has a space
MIDDLE = "facade"  # where a real token has its time of issue
RANDOM_BYTES = 32
MAX_TOKEN_BYTES = 512
UNKNOWN_CLIENT = (  # the remedy for an unknown token
    "make one with `discorder facade token NAME`, and add [facade.clients.NAME] to the configuration; if the client is new, "
    "restart `discorder serve` (and `discorder facade` if it runs), which reads its bots at its start"
)

_FORM = re.compile(r"[A-Za-z0-9_-]+\.facade\.[A-Za-z0-9_-]{20,}")


@dataclass(frozen=True, slots=True)
class Client:
    """One bot. ``catch_up``: seconds, 0 = off. The meaning of the other fields: docs/facade.md."""

    name: str
    token: str
    catch_up: float = 120.0
    catch_up_from: Literal["written", "heartbeat"] = "written"
    voice: Literal["leave", "keep"] = "leave"

    def __repr__(self) -> str:
        return f"Client({self.name!r})"


class Clients:
    """All bots that may connect."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = list(clients)

    def find(self, token: object) -> Client | None:
        """Return the bot with this token, in a time that does not depend on the characters; None for an unknown one."""
        if not isinstance(token, str):
            return None
        given = token.removeprefix("Bot ").encode(errors="replace")
        found = None
        for client in self._clients:
            if hmac.compare_digest(client.token.encode(), given):
                found = client
        return found

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    @property
    def tokens(self) -> list[str]:
        """Return all tokens, for the redaction of the log."""
        return [client.token for client in self._clients]


def load_client(name: str, settings: FacadeClient) -> Client:
    """Return the bot ``name`` with the token in its file. Raises `ConfigError` for a file without a façade token."""
    token, is_open = read_client_token(name, settings)
    if is_open:
        logger.warning("The token file of a bot can be read by others; chmod 600 it", path=settings.token_file)
    return Client(name, token, settings.catch_up, settings.catch_up_from, settings.voice)


def read_client_token(name: str, settings: FacadeClient) -> tuple[str, bool]:
    """Return the token of the bot ``name``, and whether other users may read its file.

    Raises `ConfigError` for a file without a façade token.
    """
    key = f"facade.clients.{name}.token_file"
    remedy = f"run `discorder facade token {name}`, which makes it"
    try:
        path = resolve_path(settings.token_file)
        token = read_small_file(path, MAX_TOKEN_BYTES).decode("ascii").strip()
        is_open = is_open_to_others(path.stat())
    except FileNotFoundError:
        msg = f"{key}: there is no file {settings.token_file}; {remedy}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        token, is_open = "", False
    except OSError as error:
        msg = f"{key}: {settings.token_file} cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from None
    if not _FORM.fullmatch(token):
        msg = f"{key}: {settings.token_file} holds no token of the façade; remove the file and {remedy}"
        raise ConfigError(msg)
    return token, is_open


def check_clients(clients: Mapping[str, FacadeClient], real: str) -> None:
    """Raise `ConfigError` unless each bot has a token of its own, made for the bot whose token is ``real``."""
    names: dict[str, str] = {}
    bot = bot_id_of(real)
    for name, settings in clients.items():
        token, _ = read_client_token(name, settings)
        made_for = bot_id_of(token)
        key, file = f"facade.clients.{name}.token_file", settings.token_file
        remedy = f"remove the file and run `discorder facade token {name}`"
        if bot is not None and made_for != bot:
            msg = (
                f"{key}: {file} was made for the bot {made_for}, and the bot token is that of the bot {bot}; "
                f"use the bot token of {made_for}, or {remedy}"
            )
            raise ConfigError(msg)
        other = names.setdefault(token, name)
        if other != name:
            msg = f"{key}: {file} holds the token of facade.clients.{other}, too, but each bot needs a token of its own; {remedy}"
            raise ConfigError(msg)


def make_token(bot_id: int) -> str:
    """Return a new token for a bot that connects to the façade. Libraries read the id of the bot out of its first part."""
    first = base64.urlsafe_b64encode(str(bot_id).encode()).rstrip(b"=").decode()
    return f"{first}.{MIDDLE}.{secrets.token_urlsafe(RANDOM_BYTES)}"


def bot_id_of(token: str) -> int | None:
    """Return the id of the bot, which is the first part of every bot token; None for a text without one."""
    first = token.partition(".")[0]
    try:
        text = base64.b64decode(first + "=" * (-len(first) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None  # digits of a snowflake


def write_token(path: Path, token: str) -> None:
    """Write a new token file, readable by its owner only. Raises `UnusableFile`, also for a file that is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        msg = f"{path} is there already and is kept; remove it first, after which its token is no longer valid"
        raise UnusableFile(msg) from None
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise UnusableFile(msg) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{token}\n".encode())
