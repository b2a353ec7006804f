"""`discorder doctor`: each line in good and in bad order, through the command line, against a real simulator."""

# ruff: noqa: ASYNC240  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from discorder import event_intents as portal
from discorder.cli.outcome import run
from discorder.clock import SystemClock
from discorder.facade.clients import make_token
from discorder.sessions import SqliteSessionStore, StoredSession, bot_key
from discorder.simulator import Simulator
from tests.commandline import Command
from tests.publishers.nats_server import NatsServer, connected
from tests.publishers.redis_server import RedisServer, client_of
from tests.serving import Serve

NAMES = [
    *(
        "config",
        "token",
        "intents",
        "shards",
        "budget",
        "proxy",
        "dns",
        "api",
        "gateway",
        "clock",
        "ports",
        "http",
        "store",
    ),
    *("facade", "publishers", "log", "files"),
]
LIMIT = "--timeout=20"  # seconds; only what hangs takes so long
Rows = dict[str, list[dict[str, str]]]


@dataclass
class Report:
    """What one run of the command printed."""

    code: int
    text: str
    rows: list[dict[str, str]] = field(default_factory=list)

    def of(self, check: str) -> list[tuple[str, str]]:
        """Return status and whole text of each line of one check."""
        return [(row["status"], f"{row['text']} → {row['remedy']}") for row in self.rows if row["check"] == check]

    def only(self, check: str) -> tuple[str, str]:
        (line,) = self.of(check)
        return line

    def worst(self, check: str) -> tuple[str, str]:
        return max(self.of(check), key=lambda line: ["ok", "warn", "fail"].index(line[0]))


Examine = Callable[..., Awaitable[Report]]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1) as simulator:
        yield simulator


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examine:
    """Run the command line in a thread of this process: `doctor --json` against ``sim``, with ``settings`` as --set."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    async def examine(
        where: Simulator | str, *settings: str, token: str | None = None, options: tuple[str, ...] = (LIMIT, "--json")
    ) -> Report:
        api = where if isinstance(where, str) else where.api_url
        token = where.token if token is None and isinstance(where, Simulator) else token
        monkeypatch.setenv("DISCORD_BOT_TOKEN", token or "")
        defaults = {"gateway.api": api, "http.bind": "", "publishers.zmq.bind": "tcp://127.0.0.1:0"}
        names = {setting.partition("=")[0].removesuffix("?") for setting in settings}
        chosen = [f"{key}={value}" for key, value in defaults.items() if key not in names]
        if any(name.startswith("publishers.") for name in names) or "publishers={}" in settings:
            chosen = [one for one in chosen if not one.startswith("publishers.")]
        arguments = [word for setting in (*chosen, *settings) for word in ("--set", setting)]
        capsys.readouterr()
        code = await asyncio.to_thread(run, ["doctor", *options, *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        assert not token or token not in out
        rows = json.loads(out)["checks"] if "--json" in options else []
        return Report(code, out, rows)

    return examine


@asynccontextmanager
async def front(
    sim: Simulator,
    answers: Mapping[str, Callable[[], web.Response]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """Run a server before the simulator's API: ``answers`` replaces those of paths, ``headers`` are added to all others."""

    async def handle(request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/api")
        if answers and path in answers:
            return answers[path]()
        sent = {"Authorization": request.headers["Authorization"]} if "Authorization" in request.headers else {}
        async with aiohttp.ClientSession() as client, client.get(f"{sim.api_url}{path}", headers=sent) as answer:
            body = await answer.read()
        return web.Response(status=answer.status, body=body, content_type="application/json", headers=headers)

    async with serving(handle) as base:
        yield f"{base}/api"


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: Any = None
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_when_all_is_well_each_line_says_ok(sim: Simulator, doctor: Examine, tmp_path: Path) -> None:
    """In a fixed order, without an IDENTIFY, without a trace on the disk; the connection is closed properly."""
    found = await doctor(sim, 'gateway.intents=["default", "message_content"]')
    assert found.code == 0
    assert [row["check"] for row in found.rows] == NAMES
    assert {row["status"] for row in found.rows} == {"ok"}, found.rows
    assert json.loads(found.text)["ok"] is True
    assert "sample-gateway-bot" in found.only("token")[1]
    assert "1, as Discord recommends" in found.only("shards")[1]
    assert "costs 1 IDENTIFY, at once" in found.only("budget")[1]
    assert "said Hello after" in found.only("gateway")[1]
    assert (sim.connects, sim.identifies) == (1, 0)
    await sim.wait_for(lambda: sim.closes)
    assert [(close.code, close.by) for close in sim.closes] == [(1000, "client")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
async def test_for_people_there_is_a_line_each_with_the_remedy_below(discorder: Command, sim: Simulator) -> None:
    settings = [f"gateway.api={sim.api_url}", "log.file=nowhere/discorder.log"]
    settings += ["http.bind=", "publishers.zmq.bind=tcp://127.0.0.1:0"]  # whatever else runs on this machine
    found = await discorder("doctor", *(word for one in settings for word in ("--set", one)), token=sim.token)
    assert (found.code, found.err) == (1, "")
    assert "\nfail  log         log.file: " in found.out
    assert "cannot be written: the folder " in found.out
    assert "\n                  → make its folder, or name another file\n" in found.out
    assert found.out.splitlines()[-1].endswith(" ok, 1 to look at, 1 failed")
    assert sim.token not in found.out


async def test_config(sim: Simulator, doctor: Examine, tmp_path: Path) -> None:
    """A broken one is the first line, and the only one."""
    assert (await doctor(sim)).only("config")[0] == "ok"
    assert "grows fast" in (await doctor(sim, "log.level=debug")).worst("config")[1]
    (tmp_path / "broken.toml").write_text("[gateway\n")
    broken = await doctor(sim, options=(LIMIT, "--json", "--config", "broken.toml"))
    assert broken.code == 1
    status, text = broken.only("config")
    assert status == "fail"
    assert "broken.toml: not valid TOML" in text
    assert len(broken.rows) == 1
    (tmp_path / "broken.toml").write_text("[gateway]\nshards = -1\n[facade]\nheartbeat = 0\n")
    twice = await doctor(sim, options=(LIMIT, "--json", "--config", "broken.toml"))
    assert [status for status, _ in twice.of("config")] == ["fail", "fail"]
    assert "\\n" not in twice.text
    insecure = await doctor("http://discord.example/api", token=sim.token)
    assert "gateway.insecure_api = true" in insecure.only("config")[1]


async def test_token(sim: Simulator, doctor: Examine, tmp_path: Path) -> None:
    missing = await doctor(sim, token="")
    assert missing.code == 1
    assert missing.only("token")[0] == "fail"
    assert "DISCORD_BOT_TOKEN" in missing.only("token")[1]
    assert {missing.only(check)[0] for check in ("intents", "shards", "budget", "store")} == {"warn"}
    assert missing.only("gateway")[0] == "ok"  # needs none
    refused = await doctor(sim, token="MTIz.of.another-bot")
    assert (refused.code, refused.only("token")[0]) == (1, "fail")
    assert "Discord refused the bot token" in refused.only("token")[1]
    quoted = await doctor(sim, token='"MTIz.of.another-bot"')
    assert quoted.only("token")[0] == "fail"
    path = tmp_path / "token"
    path.write_text(sim.token)
    path.chmod(0o644)
    shared = await doctor(sim, f"gateway.token_file={path}", token="")
    assert shared.code == 0
    assert [status for status, _ in shared.of("token")] == ["warn", "ok"]
    assert "chmod 600" in shared.worst("token")[1]


async def test_a_token_of_another_form_is_worth_a_look(doctor: Examine) -> None:
    async with Simulator(token="client-secret-of-something") as sim:
        found = await doctor(sim)
    assert [status for status, _ in found.of("token")] == ["warn", "ok"]
    assert "three parts" in found.worst("token")[1]


@pytest.mark.parametrize(
    ("name", "bit", "hides"),
    [
        ("message_content", portal.MESSAGE_CONTENT, "messages in guilds are empty"),
        ("guild_members", portal.GUILD_MEMBERS, "who joins or leaves"),
        ("guild_presences", portal.GUILD_PRESENCES, "who is online"),
    ],
)
async def test_an_intent_that_is_off_in_the_portal(doctor: Examine, name: str, bit: int, hides: str) -> None:
    """Asked for, it would be refused with 4014; not asked for, the line says what is hidden."""
    async with Simulator(guilds=1, approved_intents=portal.PRIVILEGED & ~bit) as sim:
        asked = await doctor(sim, f'gateway.intents=["default", "{name}"]')
        quiet = await doctor(sim, 'gateway.intents=["guilds"]')
    status, text = asked.only("intents")
    assert (asked.code, status) == (1, "fail")
    assert f"asks for {name}, which is off in the portal" in text
    assert "4014" in text
    assert quiet.only("intents")[0] == "ok"
    assert f"without {name} (off in the portal) " in quiet.only("intents")[1]
    assert hides in quiet.only("intents")[1]


async def test_intents(doctor: Examine, sim: Simulator) -> None:
    every = await doctor(sim, f"gateway.intents={portal.ALL}")
    assert every.only("intents")[0] == "ok"
    default = await doctor(sim)
    assert default.code == 0
    status, text = default.only("intents")
    assert (status, "off" in text) == ("warn", False)
    assert '["default", "message_content"]' in text
    async with Simulator(guilds=1, approved_intents=0) as closed:
        text = (await doctor(closed)).only("intents")[1]
    assert "switch message_content on in the developer portal" in text
    odd = await doctor(sim, f"gateway.intents={portal.ALL | 1 << 30}")
    assert "4013" in odd.worst("intents")[1]


async def test_shards(doctor: Examine) -> None:
    async with Simulator(guilds=5001, shards=32, max_concurrency=16) as sim:
        assert (await doctor(sim)).only("shards") == ("ok", "32, as Discord recommends; 16 may identify at once → ")
        assert (await doctor(sim, "gateway.shards=48")).only("shards")[0] == "ok"
        part = await doctor(sim, "gateway.shards={ids=[0, 1], of=32}")
        assert "2 of 32 in this process" in part.only("shards")[1]
        few = await doctor(sim, "gateway.shards=16")
        assert (few.code, few.only("shards")[0]) == (0, "warn")
        assert "set gateway.shards to 32" in few.only("shards")[1]
        odd = await doctor(sim, "gateway.shards=40")
        assert (odd.only("shards")[0], "4010" in odd.only("shards")[1]) == ("warn", True)
        crowded = await doctor(sim, "gateway.shards=2")
        assert (crowded.code, crowded.worst("shards")[0]) == (1, "fail")
        assert "4011" in crowded.worst("shards")[1]
        huge = await doctor(sim, "gateway.shards=5000")
        assert huge.only("shards")[0] == "fail"


async def test_budget(doctor: Examine) -> None:
    async with Simulator(session_start_remaining=103, max_concurrency=1) as sim:
        poor = await doctor(sim, "gateway.shards=5")
        rich = await doctor(sim, "gateway.shards=2")
    assert (poor.code, poor.only("budget")[0]) == (0, "warn")
    assert "would pay for 3 of them" in poor.only("budget")[1]
    assert rich.only("budget") == (
        "ok",
        "103 of 1,000 IDENTIFYs left, 100 of them in reserve. A cold start now (2 shards) costs 2 IDENTIFYs, in 2 rounds of "
        "5.25 s, 5 s in all. → ",
    )
    async with Simulator(session_start_remaining=7) as sim:
        spent = await doctor(sim)
    assert (spent.code, spent.only("budget")[0]) == (1, "fail")
    assert "wait until 20" in spent.only("budget")[1]


async def test_proxy(doctor: Examine, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named without its password; one that is not there, or that nobody can use, fails."""
    assert (await doctor(sim)).only("proxy") == ("ok", "none: connections are direct → ")
    dead = await doctor(sim, "gateway.proxy=http://user:hidden-password@127.0.0.1:1")
    assert dead.only("proxy") == ("ok", "http://127.0.0.1:1 → ")
    assert "hidden-password" not in dead.text
    assert dead.only("dns") == ("ok", "the proxy resolves the names → ")
    assert dead.only("api")[0] == "fail"
    assert "check gateway.proxy" in dead.only("api")[1]
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    socks = await doctor(sim, "gateway.trust_env=true")
    assert (socks.code, socks.only("proxy")[0]) == (1, "fail")


async def test_dns(doctor: Examine, sim: Simulator) -> None:
    port = sim.api_url.rpartition(":")[2]
    good = await doctor(f"http://localhost:{port}", token=sim.token)
    assert (good.only("dns")[0], "localhost is 127.0.0.1" in good.only("dns")[1]) == ("ok", True)
    bad = await doctor("https://discord.invalid/api/v10", token=sim.token)
    assert bad.code == 1
    assert "discord.invalid cannot be resolved" in bad.only("dns")[1]
    assert "check the name in gateway.api" in bad.only("api")[1]
    assert bad.only("gateway")[0] == bad.only("clock")[0] == "warn"


async def test_api_is_not_discords(doctor: Examine, sim: Simulator) -> None:
    """A login page, a redirect to one, an edge that is down, a banned address, nobody at all."""
    for answer, said in (
        (lambda: web.Response(text="<html>log in</html>", content_type="text/html"), "not as Discord does"),
        (
            lambda: web.Response(status=302, headers={"Location": "http://login.example/?next=1"}),
            "redirect to login.example",
        ),
        (lambda: web.Response(status=503), "HTTP 503"),
    ):
        async with front(sim, {"/gateway": answer}) as api:
            found = await doctor(api, token=sim.token)
        assert found.code == 1
        status, text = found.only("api")
        assert (status, said in text) == ("fail", True), text
        assert found.only("gateway")[0] == "warn"
    await sim.block_address()
    banned = await doctor(sim)
    assert "Discord refuses every request from this address" in banned.only("api")[1]
    nobody = await doctor("http://127.0.0.1:1/api", token=sim.token)
    assert (nobody.only("api")[0], "check the network" in nobody.only("api")[1]) == ("fail", True)


async def test_a_certificate_that_is_not_trusted(
    doctor: Examine, sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the API, and at the gateway behind an API that is trusted."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response({"url": f"wss://{request.host}"})

    async with serving(handle, tls) as base:
        found = await doctor(f"{base}/api", token=sim.token)
        status, text = found.only("api")
        assert (status, "ca-certificates" in text) == ("fail", True)
        gateway = base.replace("https", "wss")
        async with front(sim, {"/gateway": lambda: web.json_response({"url": gateway})}) as api:
            behind = await doctor(api, token=sim.token)
    status, text = behind.only("gateway")
    assert (behind.only("api")[0], status) == ("ok", "fail")
    assert "a TLS certificate that is not trusted" in text


async def test_gateway(doctor: Examine, sim: Simulator) -> None:
    async with front(sim, {"/gateway": lambda: web.json_response({"url": "ws://gateway.example"})}) as api:
        elsewhere = await doctor(api, token=sim.token)
    assert (elsewhere.only("gateway")[0], "is not dialled" in elsewhere.only("gateway")[1]) == ("fail", True)
    await sim.refuse_upgrades(503)
    refusing = await doctor(sim)
    assert (refusing.code, refusing.only("gateway")[0]) == (1, "fail")
    assert "refused the upgrade with HTTP 503" in refusing.only("gateway")[1]
    await sim.heal()
    await sim.withhold_hello()
    silent = await doctor(sim, options=("--timeout=0.5", "--json"))
    assert silent.only("gateway")[1].startswith("no result within 0.5 s")


async def test_clock(doctor: Examine, sim: Simulator) -> None:
    now = datetime.now(UTC)
    for ahead, status in ((0, "ok"), (60, "warn"), (-60, "warn"), (3600, "fail")):
        date = {"Date": format_datetime(now - timedelta(seconds=ahead), usegmt=True)}
        async with front(sim, headers=date) as api:
            found = await doctor(api, token=sim.token)
        assert found.only("clock")[0] == status
        if ahead:
            assert f"{'ahead of' if ahead > 0 else 'behind'} Discord's" in found.only("clock")[1]
    async with front(sim, headers={"Date": "a sundial"}) as api:
        assert "no Date" in (await doctor(api, token=sim.token)).only("clock")[1]


async def test_the_port_of_the_status_page(doctor: Examine, sim: Simulator) -> None:
    """A taken one is a failure if the configuration names it, otherwise a warning, as at a start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        named = await doctor(sim, f"http.bind=127.0.0.1:{port}")
        default = await doctor(sim, f"http.bind?=127.0.0.1:{port}")
    assert f"http.bind: http://127.0.0.1:{port} cannot be used: it is in use" in named.worst("ports")[1]
    assert (named.code, named.worst("ports")[0]) == (1, "fail")
    assert (default.code, default.worst("ports")[0]) == (0, "warn")
    assert "without the status page" in default.worst("ports")[1]


async def test_ports(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = await doctor(sim, f"publishers.zmq.bind=tcp://127.0.0.1:{port}", "publishers.zmq.replay=")
        status, text = busy.only("ports")
    assert (busy.code, status) == (1, "fail")
    assert f"tcp://127.0.0.1:{port} cannot be used: it is in use, by process {os.getpid()} (" in text
    free = await doctor(sim, f"publishers.zmq.bind=tcp://127.0.0.1:{port}", "publishers.zmq.replay=")
    assert free.only("ports")[0] == "ok"
    (tmp_path / "bus").write_text("a file of somebody's")
    blocked = await doctor(sim, f"publishers.zmq.bind=ipc://{tmp_path}/bus")
    assert [status for status, _ in blocked.of("ports")] == ["fail", "ok"]
    assert (tmp_path / "bus").read_text() == "a file of somebody's"
    astray = await doctor(sim, f"publishers.zmq.bind=ipc://{tmp_path}/none/bus")
    assert "does not exist" in astray.worst("ports")[1]


async def test_http(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """TLS files and a token file that cannot be used fail, where the configuration names them."""
    free = await doctor(sim, "http.bind=127.0.0.1:0")
    assert free.only("http")[0] == "ok"
    assert "operator-token, which the first start makes" in free.only("http")[1]
    assert "off" in (await doctor(sim, "http.bind=")).only("http")[1]
    tls = await doctor(sim, "http.bind=127.0.0.1:0", "http.tls_cert_file=none.pem", "http.tls_key_file=none.pem")
    assert (tls.code, tls.only("http")[0]) == (1, "fail")
    (tmp_path / "short").write_text("1234")
    short = await doctor(sim, "http.bind=127.0.0.1:0", "http.operator_token_file=short")
    assert (short.code, short.only("http")[0]) == (1, "fail")
    (tmp_path / "state" / "discorder").mkdir(parents=True)
    (tmp_path / "state" / "discorder" / "operator-token").write_text("x" * 30)
    (tmp_path / "state" / "discorder" / "operator-token").chmod(0o644)
    shared = await doctor(sim, "http.bind=127.0.0.1:0")
    assert (shared.code, shared.only("http")[0]) == (0, "warn")


async def fill(path: Path, token: str, **changes: Any) -> None:
    """A store with one session, which `changes` alter."""
    store = SqliteSessionStore(path, bot=bot_key(token), clock=SystemClock())
    await store.open()
    now = datetime.now(UTC)
    facts: dict[str, Any] = {"shard_id": 0, "shard_count": 1, "resume_url": "ws://127.0.0.1:1", "intents": 1} | changes
    store.save(StoredSession(session_id="s", seq=7, last_ready=b"{}", updated_at=now, **facts))
    await store.close()


async def test_store(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite3"
    settings = (f"session.store={path}", "gateway.intents=1")
    assert "not there yet" in (await doctor(sim, *settings)).only("store")[1]
    memory = await doctor(sim, "session.store=")
    assert (memory.code, memory.only("store")[0]) == (0, "warn")
    await fill(path, sim.token)
    assert (await doctor(sim, *settings)).only("store") == ("ok", f"{path} holds 1 session to resume → ")
    path.chmod(0o644)
    assert f"chmod 600 {path}" in (await doctor(sim, *settings)).worst("store")[1]
    path.chmod(0o666)
    assert (await doctor(sim, *settings)).only("store")[0] == "fail"
    (tmp_path / "garbage").write_bytes(b"not a database at all, and longer than any header" * 30)
    (tmp_path / "garbage").chmod(0o600)
    garbage = await doctor(sim, f"session.store={tmp_path}/garbage")
    assert (garbage.code, garbage.only("store")[0]) == (1, "fail")


async def test_a_stored_session_that_a_start_cannot_resume(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """Of another layout, other intents, or another host: named with the remedy."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"shard_count": 2}, "the shard layout changed"),
        ({"intents": 3}, "the intents changed"),
        ({"resume_url": "wss://gateway.elsewhere.example"}, "belongs to another host"),
    ]
    for number, (changes, cause) in enumerate(cases):
        path = tmp_path / f"{number}.sqlite3"
        await fill(path, sim.token, **changes)
        found = await doctor(sim, f"session.store={path}", "gateway.intents=1")
        status, text = found.only("store")
        assert (found.code, status) == (0, "warn")
        assert cause in text
        assert f"discorder sessions drop 0/{changes.get('shard_count', 1)}" in text


async def test_a_shard_that_an_operator_paused_is_named(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite3"
    store = SqliteSessionStore(path, bot=bot_key(sim.token), clock=SystemClock())
    await store.open()
    store.pause(0, 1, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    store.pause(1, 2, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    await store.close()
    found = await doctor(sim, f"session.store={path}")
    assert (found.code, found.only("store")[0]) == (0, "warn")
    assert "paused shard 0/1 on 2026-01-02 03:04 UTC" in found.only("store")[1]
    assert "discorder shards unpause 0" in found.only("store")[1]


async def test_a_store_that_another_process_uses_is_named(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """Looking at the locks does not disturb their holder, nor a start."""
    path = tmp_path / "sessions.sqlite3"
    store = SqliteSessionStore(path, bot=bot_key(sim.token), clock=SystemClock())
    await store.open()
    await store.hold([(0, 1)])
    found = await doctor(sim, f"session.store={path}")
    assert (found.code, {status for status, _ in found.of("store")}) == (0, {"ok"})
    assert f"shard 0 of 1 of this bot: held by this very process ({os.getpid()})" not in found.text
    assert "in use: " in found.of("store")[0][1]
    assert "exit code 73" in found.of("store")[0][1]
    await store.close()
    assert (await doctor(sim, f"session.store={path}")).only("store")[0] == "ok"
    again = SqliteSessionStore(path, bot=bot_key(sim.token), clock=SystemClock())
    await again.open()
    await again.hold([(0, 1)])
    await again.close()


@pytest.mark.system
@pytest.mark.heavy
async def test_beside_a_running_control_plane(doctor: Examine, sim: Simulator, serve: Serve, tmp_path: Path) -> None:
    """Its port and its locks are its own, and no failure; it goes on undisturbed."""
    with socket.create_server(("127.0.0.1", 0)) as found_port:
        port = found_port.getsockname()[1]
    bus = f"publishers.zmq.bind=tcp://127.0.0.1:{port}"
    running = await serve("--set", bus, "--set", "publishers.zmq.replay=")
    await sim.wait_for(lambda: sim.sent, timeout=60)
    found = await doctor(sim, bus, "publishers.zmq.replay=", f"session.store={tmp_path}/sessions.sqlite3")
    assert found.code == 0, found.rows
    assert "is used by the control plane that runs now, process" in found.only("ports")[1]
    assert f"held by process {running.process.pid}" in found.of("store")[0][1]
    assert sim.identifies == 1
    running.process.terminate()
    assert await running.ends() == 0


MAIN = 'facade.clients={main={token_file="main.token"}}'
FACADE = ("facade.bind=127.0.0.1:0", MAIN)


async def test_facade(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """The token of each bot, as a start reads it; off without a bot."""
    assert (await doctor(sim)).only("facade")[1].startswith("off")
    file = tmp_path / "main.token"
    missing = await doctor(sim, *FACADE)
    assert (missing.code, missing.of("facade")[0][0]) == (1, "fail")
    assert "there is no file main.token → run `discorder facade token main`" in missing.of("facade")[0][1]
    for content, said in (
        ("", "holds no token of the façade"),
        (sim.token, "holds no token of the façade"),
        (make_token(42), "was made for the bot 42, and the bot token is that of the bot 1345187989315256333"),
    ):
        file.write_text(content)
        file.chmod(0o600)
        assert said in (await doctor(sim, *FACADE)).worst("facade")[1]
    file.write_text(make_token(1345187989315256333))
    good = await doctor(sim, *FACADE)
    assert good.code == 0
    assert good.of("facade")[0][1] == "1 bot may connect, at 127.0.0.1:0 → "
    assert "which the first start fills" in good.of("facade")[1][1]
    file.chmod(0o644)
    status, text = (await doctor(sim, *FACADE)).worst("facade")
    assert (status, text.endswith("→ chmod 600 main.token")) == ("warn", True)
    file.unlink()
    file.mkdir()
    assert "cannot be read: Is a directory" in (await doctor(sim, *FACADE)).worst("facade")[1]


async def test_the_port_and_the_journal_of_the_facade(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """The address is among the ports; a directory that cannot be made fails."""
    (tmp_path / "main.token").write_text(make_token(1345187989315256333))
    (tmp_path / "main.token").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = await doctor(sim, f"facade.bind=127.0.0.1:{port}", MAIN)
    assert f"facade.bind: http://127.0.0.1:{port} cannot be used: it is in use" in busy.worst("ports")[1]
    (tmp_path / "file").touch()
    for path, reason in (("file", "it is no directory"), ("none/journal", "does not exist")):
        found = await doctor(sim, *FACADE, f"facade.journal={tmp_path}/{path}")
        assert found.code == 1
        assert reason in found.worst("facade")[1]
    assert not (tmp_path / "none").exists()


async def test_stored_sessions_from_before_the_facade_cost_identifies(
    doctor: Examine, sim: Simulator, tmp_path: Path
) -> None:
    """Discord sends guilds once per session: the journal gets them by a new one."""
    store = tmp_path / "sessions.sqlite3"
    await fill(store, sim.token)
    settings = (f"session.store={store}", "gateway.intents=1")
    assert "1 shard would be resumed: 0 IDENTIFYs then." in (await doctor(sim, *settings)).only("budget")[1]
    (tmp_path / "main.token").write_text(make_token(1345187989315256333))
    (tmp_path / "main.token").chmod(0o600)
    found = await doctor(sim, *settings, *FACADE)
    assert (
        "1 shard would be resumed: 1 IDENTIFY then, since the journal of the façade has no guilds"
        in found.only("budget")[1]
    )
    assert "a start resumes 1 shard, and then identifies to get the guilds" in found.worst("facade")[1]
    journal = tmp_path / "sessions.sqlite3.journal"
    journal.mkdir()
    (journal / "segment.00000001").touch()
    kept = await doctor(sim, *settings, *FACADE)
    assert "0 IDENTIFYs then." in kept.only("budget")[1]
    assert {status for status, _ in kept.of("facade")} == {"ok"}


async def test_publishers(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    table = 'publishers={{audit={{kind="delimited_file", path="{}"}}}}'
    good = await doctor(sim, table.format(tmp_path / "events.tsv"))
    assert good.only("publishers")[0] == "ok"
    assert not (tmp_path / "events.tsv").exists()
    bad = await doctor(sim, table.format(tmp_path / "none" / "events.tsv"))
    assert (bad.code, bad.only("publishers")[0]) == (1, "fail")
    folder = await doctor(sim, table.format(tmp_path))
    assert "it is no regular file" in folder.only("publishers")[1]
    none = await doctor(sim, "publishers={}")
    assert (none.code, none.only("publishers")[0]) == (0, "warn")
    key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    keyless = await doctor(
        sim,
        "publishers.zmq.bind=tcp://127.0.0.1:0",
        "publishers.zmq.curve_secret_file=none.key_secret",
        f"publishers.zmq.curve_clients=['{key}']",
    )
    assert (keyless.code, keyless.only("publishers")[0]) == (1, "fail")


@pytest.mark.system
async def test_a_redis_publisher(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """The server is asked what a start asks it; nothing is written to it."""
    server = RedisServer(tmp_path / "redis", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    server.start()
    table = ("publishers.bus.kind=redis", f'publishers.bus.url="{server.url}"', "publishers.bus.maxlen=10")
    try:
        refused = await doctor(sim, *table)
        assert (refused.code, refused.only("publishers")[0]) == (1, "fail")
        assert "maxmemory-policy allkeys-lru) → set maxmemory-policy noeviction" in refused.only("publishers")[1]
        accepted = await doctor(sim, *table, "publishers.bus.required=false")
        status, text = accepted.only("publishers")
        assert (accepted.code, status) == (0, "warn")
        assert "publishers.bus: the server drops whole streams" in text
        async with client_of(server) as client:
            await client.config_set("maxmemory-policy", "noeviction")
            assert (await doctor(sim, *table)).only("publishers")[0] == "ok"
            assert await client.keys() == []
    finally:
        server.kill()
    down = await doctor(sim, *table)
    assert (down.code, down.only("publishers")[0]) == (1, "fail")
    assert "publishers.bus.url: the Redis server cannot be reached" in down.only("publishers")[1]
    assert "→ start it, or correct the address" in down.only("publishers")[1]


@pytest.mark.system
async def test_a_nats_publisher(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    """A stream that exists is checked, and none is made."""
    server, small = NatsServer(tmp_path / "nats", "max_payload: 8MB"), NatsServer(tmp_path / "small")
    try:
        server.start()
        small.start()
        table = ("publishers.bus.kind=nats", f'publishers.bus.servers="{server.url}"', "publishers.bus.stream=BOT")
        assert (await doctor(sim, *table)).only("publishers")[0] == "ok"
        warned = await doctor(sim, *table, f'publishers.bus.servers="{small.url}"')
        assert warned.only("publishers")[0] == "warn"
        assert "→ set max_payload: 8MB" in warned.only("publishers")[1]
        async with connected(server) as client:
            assert await client.jsm().streams_info() == []
            await client.jsm().add_stream(name="BOT", subjects=["something.else"])
        unfit = await doctor(sim, *table)
        assert (unfit.code, unfit.only("publishers")[0]) == (1, "fail")
        assert "publishers.bus.stream: subjects of the stream BOT must contain" in unfit.only("publishers")[1]
        server.freeze()
        hung = await doctor(sim, *table)
        assert (hung.code, hung.only("publishers")[0]) == (1, "fail")
        server.thaw()
    finally:
        server.kill()
        small.kill()
    down = await doctor(sim, *table)
    assert (down.code, down.only("publishers")[0]) == (1, "fail")
    assert "no NATS server can be reached" in down.only("publishers")[1]
    tokenless = await doctor(sim, *table, token="")
    assert tokenless.only("publishers") == (
        "warn",
        "not checked: publishers.bus: its prefix is made of the bot token → repair the line about the token",
    )


async def test_log(doctor: Examine, sim: Simulator, tmp_path: Path) -> None:
    assert (await doctor(sim, "log.file=discorder.log")).only("log")[0] == "ok"
    assert not (tmp_path / "discorder.log").exists()
    assert (await doctor(sim, "log.file=none/discorder.log")).only("log")[0] == "fail"
    assert (await doctor(sim, f"log.file={tmp_path}")).only("log")[0] == "fail"


@pytest.mark.system
@pytest.mark.heavy
async def test_the_limit_of_open_files(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -n 100; exec "$@"', "sh", sys.executable, "-m", "discorder", "doctor", "--json"),
        *("--set", f"gateway.api={sim.api_url}", "--set", "gateway.shards=64"),
        stdout=asyncio.subprocess.PIPE,
        env=environment | {"DISCORD_BOT_TOKEN": sim.token},
        cwd=tmp_path,
    )
    out, _ = await process.communicate()
    (row,) = [row for row in json.loads(out)["checks"] if row["check"] == "files"]
    assert (process.returncode, row["status"]) == (1, "fail")
    assert "raise the hard limit" in row["remedy"]


async def test_what_hangs_ends_with_the_limit(doctor: Examine, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that takes the connection and says nothing, a resolver that does not answer: the report comes, whole."""
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"gateway.proxy=http://127.0.0.1:{silent.getsockname()[1]}"
        hung = await doctor(sim, proxy, options=("--timeout=0.5", "--json"))
    assert [row["check"] for row in hung.rows] == NAMES
    assert (hung.code, hung.only("api")[0]) == (1, "fail")
    released = threading.Event()
    real = socket.getaddrinfo

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "localhost":
            released.wait(30)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    deaf = await doctor("http://localhost:1/api", token=sim.token, options=("--timeout=0.5", "--json"))
    released.set()
    assert deaf.only("dns")[1].startswith("no result within 0.5 s → check the resolver")
    assert time.monotonic() - began < 20
