"""Define the section ``[facade]`` and check it: where unmodified bots connect, who they are, and what is kept for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from discorder.config.http import AUTO, Http, ListenAddress, parse_bind
from discorder.paths import resolve_path

JOURNAL = "journal"  # the name of the publisher that keeps it
SYSTEMD = "systemd"  # the value of ``bind`` that takes the sockets of LISTEN_FDS

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_EXAMPLES = '"127.0.0.1:7000" or "[::1]:7000"'
_FILE = "a path as a string"
_MOST = 2**50


class FacadeClient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bot that may connect to the façade."""

    token_file: Annotated[str, Meta(description=_FILE)]
    catch_up: Annotated[float, Meta(ge=0, le=3600, description="seconds, 0 (off) to 3600")] = 120.0
    catch_up_from: Annotated[
        Literal["written", "heartbeat"],
        Meta(description='"written" (to its socket) or "heartbeat" (acknowledged by it)'),
    ] = "written"
    voice: Annotated[Literal["leave", "keep"], Meta(description='"leave" or "keep"')] = "leave"


class Facade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where unmodified bots connect instead of Discord. ``clients`` maps a name to its table."""

    bind: Annotated[
        str,
        Meta(
            description=f'HOST:PORT of this machine such as {_EXAMPLES}; port 0 = any free one; "{SYSTEMD}"; "" = off'
        ),
    ] = ""
    journal: Annotated[
        str,
        Meta(description='"auto" (beside the session store), the path of a directory, or "" (none; bind must be "")'),
    ] = AUTO
    ring_bytes: Annotated[int, Meta(ge=2**20, le=_MOST, description="bytes, 2**20 to 2**50")] = 2**28
    ring_seconds: Annotated[float, Meta(gt=0, le=604_800, description="seconds, more than 0, at most 604800")] = 3600.0
    presences: Annotated[bool, Meta(description="true (kept in the guilds) or false (left out)")] = True
    rest: Annotated[Literal["pass", "off"], Meta(description='"pass" (on to gateway.api) or "off"')] = "pass"
    heartbeat: Annotated[float, Meta(ge=1, le=60, description="seconds, 1 to 60")] = 15.0
    tokens: Annotated[
        Literal["own", "real"], Meta(description='"own" (those of the clients) or "real" (also the bot token)')
    ] = "own"
    clients: Annotated[Mapping[str, FacadeClient], Meta(description="a table [facade.clients.NAME] for each bot")] = (
        MappingProxyType({})
    )

    @property
    def address(self) -> ListenAddress | None:
        """Where to listen; None if the section is off or the service manager gives the socket."""
        return parse_bind(self.bind) if self.bind not in {"", SYSTEMD} else None

    @property
    def keeps_journal(self) -> bool:
        """Whether the control plane keeps a journal."""
        return self.journal not in {"", AUTO} or (self.journal == AUTO and bool(self.bind or self.clients))


def check_bind(text: str) -> str:
    """Check ``facade.bind`` and return it as written."""
    if text not in {"", SYSTEMD} and not parse_bind(text).is_loopback:
        msg = f"other hosts could reach it, and see the tokens of bots; bind a loopback address, such as {_EXAMPLES}"
        raise ValueError(msg)
    return text


def check_journal(path: str) -> str:
    """Check the path unless it is "auto", and return it as written."""
    if path not in {"", AUTO}:
        resolve_path(path)
    return path


def is_client_name(name: str) -> bool:
    """Return whether ``name`` may name a client: 1 to 32 letters, digits, - and _."""
    return _NAME.fullmatch(name) is not None


def check_clients(
    tables: object,
    check: Callable[[str, type[FacadeClient], object], FacadeClient | None],
    report: Callable[[str, str], None],
) -> dict[str, FacadeClient]:
    """Return the clients of the tables below ``facade.clients``. ``check`` converts one; ``report`` gets each other problem."""
    clients: dict[str, FacadeClient] = {}
    if not isinstance(tables, dict):
        report("facade.clients", "not a table; write [facade.clients.NAME] for each bot")
        return clients
    for name, table in cast("dict[str, object]", tables).items():
        section = f"facade.clients.{name}"
        if not is_client_name(name):
            report(section, f"{name!r} is not a name for a client; use 1 to 32 letters, digits, - and _")
        elif isinstance(table, dict) and "token_file" not in table:
            report(
                f"{section}.token_file",
                f"missing; `discorder facade token {name}` makes a token for the file that it names",
            )
        elif (client := check(section, FacadeClient, table)) is not None:
            try:
                resolve_path(client.token_file)
            except ValueError as error:
                report(f"{section}.token_file", str(error))
            else:
                clients[name] = client
    return clients


def contradictions(
    facade: Facade, http: Http, store: str, publishers: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Yield each key that contradicts another one, with a sentence.

    ``store``: the key ``session.store``; ``publishers``: the tables.
    """
    for name, table in publishers.items():
        if isinstance(table, Mapping) and table.get("ring") == JOURNAL and not facade.keeps_journal:
            yield (
                f"publishers.{name}.ring",
                'nothing keeps a journal; set facade.journal to the path of a directory, or ring to "memory"',
            )
    if facade.keeps_journal and JOURNAL in publishers:
        yield f"publishers.{JOURNAL}", "the journal of the façade has this name; choose another one"
    if not facade.journal and (facade.bind or facade.clients):
        yield (
            "facade.journal",
            '"" leaves bots without guilds and replay; set it to "auto" or to a path, or remove bind and clients',
        )
    if facade.journal == AUTO and facade.keeps_journal and not store:
        yield (
            "facade.journal",
            '"auto" is a directory beside the session store, and session.store is ""; set session.store, or journal to a path',
        )
    if facade.bind and not facade.clients and facade.tokens == "own":  # a setting
        yield (
            "facade.bind",
            'no bot could connect: add a table [facade.clients.NAME] with a token_file, or set tokens = "real" for a first try',
        )
    one, other = facade.address, http.address
    if one is not None and other is not None and one.port and one == other:
        yield "facade.bind", f"http.bind is {other}, too; choose another port for one of them"


FIELD_CHECKS: dict[str, Callable[..., object]] = {"facade.bind": check_bind, "facade.journal": check_journal}
