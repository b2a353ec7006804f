"""What can be measured, and how each is started at its best set-up. Every entry says what it does with an event."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from discorder.facade.clients import bot_id_of, make_token
from tests.bench.processes import ROOT, WORK_CPU, Process, python

# A token is checked by form: its first part is the bot's id in base64.
TOKEN = "ODEzODQ3ODg3NjU3MTIzODQ.bench.bench"  # of no bot
ALL_INTENTS = 53_608_447
NODE_FOLDER = Path(tempfile.gettempdir()) / "discorder-bench-node"


@dataclass(frozen=True, slots=True)
class Where:
    """Where a client finds the gateway, and where a publisher binds."""

    api: str  # …/api/v10
    gateway: str
    bus: str
    shards: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The API's URL without its version."""
        return self.api.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Subject:
    """A client. ``does`` is what it does with each event; ``publishes`` whether it puts events on a bus."""

    name: str
    does: str
    start: Callable[[Where], Process]
    publishes: bool = False
    many_shards: bool = False

    @property
    def missing(self) -> str:
        """Why this subject cannot be measured here, "" if it can."""
        needed = {"hikari": "hikari", "discord.py": "discord"}.get(self.name.split(",")[0])
        if needed and importlib.util.find_spec(needed) is None:
            return f"{needed} is not installed"
        if self.name.startswith("@discordjs") and shutil.which("npm") is None:
            return "npm is not installed"
        return ""


def page_of(bus: str) -> str:
    """Return the URL of the status page beside ``bus``; its neighbour is the port of the requests."""
    return f"http://127.0.0.1:{int(bus.rpartition(':')[2]) + 2}/"


def facade_of(bus: str) -> str:
    """Return the address of the façade beside ``bus``."""
    return f"127.0.0.1:{int(bus.rpartition(':')[2]) + 3}"


def facade_folder(bus: str) -> Path:
    """Return the folder with the journal beside ``bus`` and its client's token."""
    return Path(tempfile.gettempdir()) / f"discorder-bench-{bus.rpartition(':')[2]}"


def _with_store(*settings: str) -> Callable[[Where], Process]:
    """`discorder serve` with a session store, and with ``settings``. "{folder}" is that of `facade_folder`."""

    def start(where: Where) -> Process:
        folder = facade_folder(where.bus)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "bot.token").write_text(make_token(bot_id_of(TOKEN) or 0))
        (folder / "bot.token").chmod(0o600)
        kept = ("session.store={folder}/sessions", "publishers.zmq.bind={bus}")
        filled = (one.format(folder=folder, bus=where.bus, facade=facade_of(where.bus)) for one in (*kept, *settings))
        return discorder(*filled)(where)

    return start


def discorder(*settings: str) -> Callable[[Where], Process]:
    """`discorder serve` with ``settings`` on top of the defaults."""

    def start(where: Where) -> Process:
        sets = [
            f"gateway.api={where.api}",
            f"gateway.shards={where.shards}",
            "session.store=",
            "http.bind=",  # the page and its readers are measured apart
            "log.level=warning",
            *(settings or (f"publishers.zmq.bind={where.bus}",)),
        ]
        arguments = [
            part for setting in sets for part in ("--set", setting.format(bus=where.bus, page=page_of(where.bus)[7:-1]))
        ]
        command = [str(Path(sys.executable).parent / "discorder"), "serve", *arguments]
        return Process(command, cpu=WORK_CPU, name="discorder", DISCORD_BOT_TOKEN=TOKEN, **where.environment)

    return start


def _bare(where: Where) -> Process:
    return python("clients.bare_loop", where.api, where.bus, cpu=WORK_CPU, **where.environment)


def _hikari(mode: str) -> Callable[[Where], Process]:
    return lambda where: python("clients.hikari_client", where.root, TOKEN, mode, cpu=WORK_CPU, **where.environment)


def _discordpy(where: Where) -> Process:
    return python("clients.discordpy_client", where.api, TOKEN, where.gateway, cpu=WORK_CPU, **where.environment)


def install_discordjs() -> None:
    """Install @discordjs/ws into `NODE_FOLDER`, unless it is there."""
    if not (NODE_FOLDER / "node_modules" / "zlib-sync").exists():
        NODE_FOLDER.mkdir(exist_ok=True)
        subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "@discordjs/ws@2.0.4", "zlib-sync@0.1.10"],
            cwd=NODE_FOLDER,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _discordjs(where: Where) -> Process:
    install_discordjs()
    script = NODE_FOLDER / "client.mjs"
    script.write_text((ROOT / "tests" / "bench" / "clients" / "discordjs_client.mjs").read_text())
    return Process(["node", str(script), where.gateway, str(where.shards)], cpu=WORK_CPU, **where.environment)


DISCORDER = Subject(
    "discorder",
    "publishes each event as a document, keeps it for replay; parses no `d`",
    discorder(),
    publishes=True,
    many_shards=True,
)
UNMODERATED = Subject(
    "discorder, moderation off",
    DISCORDER.does,
    discorder("gateway.moderation_ms=0", "publishers.zmq.bind={bus}"),
    publishes=True,
    many_shards=True,
)
SHOWN = Subject(
    "discorder, page and metrics",
    "as above; a reader of the status page, a scrape every 5 s",
    discorder("publishers.zmq.bind={bus}", "http.bind={page}", "http.operator_token_file="),
    publishes=True,
)
STORED = Subject(
    "discorder, session store",
    "as above; stores the session and how far it is delivered",
    _with_store(),
    publishes=True,
)
JOURNALED = Subject(
    "discorder, journal",
    "as above; writes each event to the journal and folds the guilds",
    _with_store("facade.journal={folder}/journal"),
    publishes=True,
)
FACADE = Subject(
    "discorder, façade",
    "as above; sends each event to one bot on a websocket",
    _with_store(
        "facade.journal={folder}/journal",
        "facade.bind={facade}",
        "facade.clients.bot.token_file={folder}/bot.token",
        f"gateway.intents={ALL_INTENTS}",
    ),
    publishes=True,
)
BARE = Subject("bare loop", "publishes each event as it came; parses no `d`, keeps nothing", _bare, True)
HIKARI = Subject("hikari", "parses each event, delivers nothing", _hikari("silent"), many_shards=True)
HIKARI_LISTENER = Subject("hikari, listener", "parses each event, calls one listener", _hikari("listener"))
DISCORDPY = Subject("discord.py", "parses each event, calls one raw listener", _discordpy)
DISCORDJS = Subject("@discordjs/ws", "parses each event, calls one listener", _discordjs, many_shards=True)
PEERS = (HIKARI, HIKARI_LISTENER, DISCORDPY, DISCORDJS)
