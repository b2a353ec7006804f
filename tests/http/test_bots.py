"""The bots of the façade in what operators read: the status document, the page, the notes, the metrics, the command line."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from discorder.simulator import Simulator
from tests.commandline import Command
from tests.facade.fronted import Fronted, facade_settings
from tests.http.conftest import Serve, Served
from tests.http.test_group import Group
from tests.http.test_operate import appears, drawing
from tests.status.conftest import checked


class Shown(Fronted):
    """A control plane with a façade for the bots "main" and "stats", and its HTTP server."""

    def __init__(self, served: Served, folder: Path) -> None:
        super().__init__(lambda: served.stage.tracker, folder, served.session)
        self.served = served

    async def document(self) -> dict[str, Any]:
        return checked((await self.served.ask("/status.json")).body)

    async def facade(self) -> dict[str, Any]:
        found = (await self.document())["facade"]
        assert found is not None
        return dict(found)


Show = Callable[..., Awaitable[Shown]]


@pytest.fixture
async def show(serve: Serve, tmp_path: Path) -> AsyncIterator[Show]:
    """Start a control plane with a façade."""
    made: list[Shown] = []

    async def start(*settings: str) -> Shown:
        made.append(Shown(await serve(*facade_settings(tmp_path, "main", "stats"), *settings), tmp_path))
        return made[-1]

    yield start
    for one in made:
        await one.close()


# ---------------------------------------------------------------- the document


async def test_the_document_has_each_bot_and_its_sessions(show: Show) -> None:
    shown = await show()
    before = await shown.facade()
    assert (before["url"], before["sessions"]) == (shown.url, [])
    assert [(bot["name"], bot["since"], bot["seen_at"]) for bot in before["bots"]] == [
        ("main", None, None),
        ("stats", None, None),
    ]
    bot = await shown.bot("main")
    main, stats = (await shown.facade())["bots"]
    (session,) = (await shown.facade())["sessions"]
    assert main == stats | {
        "name": "main",
        "libraries": ["raw"],
        "sessions": 1,
        "shards": [0],
        "since": session["since"],
        "identifies": 1,
    }
    (end,) = (await shown.document())["shards"]
    assert session == {
        "bot": "main",
        "shard": 0,
        "library": "raw",
        "since": main["since"],
        "session": end["session"],
        "seq": end["seq"],
        "lag_events": 0,
        "lag_s": 0.0,
        "identifies": 1,
        "resumes": 0,
        "invalid_sessions": 0,
    }
    await bot.gone()
    main, _ = (await shown.facade())["bots"]
    assert (main["sessions"], main["since"], main["libraries"]) == (0, None, [])
    assert main["seen_at"] > session["since"]


async def test_without_a_facade_it_is_null(served: Served) -> None:
    assert checked((await served.ask("/status.json")).body)["facade"] is None


async def test_a_library_cannot_write_control_characters(show: Show) -> None:
    """Its name is what the bot says."""
    shown = await show()
    await shown.bot("main", properties={"browser": "\x1b[31mred\u202e"})
    answer = await shown.served.ask("/status.json")
    assert b"\x1b" not in answer.body
    assert "\u202e" not in answer.body.decode()
    assert json.loads(answer.body)["facade"]["bots"][0]["libraries"] == ["\x1b[31mred\u202e"]


async def test_the_events_say_when_a_bot_comes(show: Show) -> None:
    """A part ``facade`` follows the whole document; it is not sent again while nothing changes."""
    shown = await show()
    parts: list[dict[str, Any]] = []
    async with shown.http.get(f"{shown.served.url}/events", timeout=aiohttp.ClientTimeout(total=20)) as response:
        name = ""
        async for line in response.content:
            key, _, value = line.decode().rstrip().partition(": ")
            name = value if key == "event" else name
            if (key, name) == ("data", "status"):
                await shown.bot("main")
            elif (key, name) == ("data", "facade"):
                parts.append(json.loads(value))
            if parts and parts[-1]["facade"]["bots"][0]["shards"] == [0]:
                break
    assert parts[-1]["facade"]["bots"][0]["libraries"] == ["raw"]
    assert len(parts) <= 2


async def test_a_refusal_is_shown_until_the_bot_has_a_session(show: Show, discorder: Command) -> None:
    """With its code and reason, in the document and by the command."""
    shown = await show()
    bot = await shown.dialled("main")
    await bot.send(2, {"token": bot.token, "intents": 513, "shard": [0, 7]})
    assert (await bot.close_code())[0] == 4010
    reason = "4010: the control plane has 1 shard, not 7"
    assert [one["refused"] for one in (await shown.facade())["bots"]] == [reason, ""]
    assert (
        f"\nmain was refused with {reason}\n" in (await discorder("facade", "status", f"--url={shown.served.url}")).out
    )
    await shown.bot("main")
    assert [one["refused"] for one in (await shown.facade())["bots"]] == ["", ""]


# ---------------------------------------------------------------- metrics


async def test_the_metrics_have_each_bot(show: Show) -> None:
    shown = await show()
    bot = await shown.bot("main")
    await bot.dial()
    await bot.resume(seq=0)
    assert (await bot.frame())["op"] == 9
    text = (await shown.served.ask("/metrics")).body.decode()
    for line in (
        'discorder_facade_sessions{client="main"} 1.0',
        'discorder_facade_sessions{client="stats"} 0.0',
        'discorder_facade_lag_events{client="main"} 0.0',
        'discorder_facade_lag_seconds{client="main"} 0.0',
        'discorder_facade_away_seconds{client="main"} 0.0',
        'discorder_facade_catch_up_seconds{client="main"} 120.0',
        'discorder_facade_identifies_total{client="main"} 1.0',
        'discorder_facade_resumes_total{client="main"} 0.0',
        'discorder_facade_invalid_sessions_total{client="main"} 1.0',
    ):
        assert line in text.splitlines()


# ---------------------------------------------------------------- the command line


async def test_the_command_shows_bots_and_sessions(show: Show, discorder: Command) -> None:
    """Who is connected, since when, up to where it has the events; who is away, and since when."""
    shown = await show()
    url = f"--url={shown.served.url}"
    nobody = await discorder("facade", "status", url)
    assert nobody.out.startswith(f"Façade at {shown.url}: 0 of 2 bots connected.")
    assert nobody.out.count("not yet") == 2
    await shown.bot("main")
    await (await shown.bot("stats", properties={"browser": "[red]x[/]\x1b[31m"})).gone()
    shown_now = await discorder("facade", "status", url)
    assert (shown_now.code, shown_now.err) == (0, "")
    first, _, heads, main, stats, _, session_heads, session = shown_now.out.splitlines()
    assert first == f"Façade at {shown.url}: 1 of 2 bots connected."
    assert heads.split() == ["bot", "library", "shards", "connected", "behind", "IDENTIFYs", "RESUMEs", "op", "9s"]
    assert re.fullmatch(r"main +raw +0 +for \d+ s +nothing +1 +0 +0 *", main)
    assert re.fullmatch(r"stats +not for \d+ s +1 +0 +0 *", stats)
    assert session_heads.startswith("bot")
    end = (await shown.document())["shards"][0]
    assert re.fullmatch(rf"main +0 +{end['seq']} +for \d+ s +nothing +1 +0 +0 *", session)
    await shown.bot("stats", properties={"browser": "[red]x[/]\x1b[31m"})
    assert "[red]x[/]\\x1b[31m" in (await discorder("facade", "status", url)).out
    await shown.bot("stats", properties={"browser": "hikari (2.7.0, aiohttp 3.13.2)"})
    assert "hikari 2.7.0 " in (await discorder("facade", "status", url)).out
    part = json.loads((await discorder("facade", "status", "--json", url)).out)
    assert part == (await shown.facade())
    assert "0 of 2 bots" not in (await discorder("status", url)).out
    assert re.search(r"\nmain +raw +0 +for ", (await discorder("status", url)).out)


@pytest.mark.system
async def test_a_bot_that_connects_is_drawn(show: Show, environment: dict[str, str]) -> None:
    """By `discorder status --watch`, in a terminal."""
    shown = await show()
    async with drawing(environment, shown.served.url) as (_, screen):
        await appears(screen, "not yet")
        await shown.bot("main", properties={"browser": "hand-made"})
        await appears(screen, "hand-made")


async def test_the_command_without_a_facade_or_a_control_plane(served: Served, discorder: Command) -> None:
    off = await discorder("facade", "status", f"--url={served.url}")
    assert (off.code, off.out) == (
        0,
        'No façade: facade.bind is "", and no `discorder facade` reports to this control plane.\n',
    )
    off = await discorder("facade", "status", "--json", f"--url={served.url}")
    assert (off.code, off.out) == (0, "null\n")
    absent = await discorder("facade", "status", "--url=http://127.0.0.1:1")
    assert (absent.code, absent.out) == (69, "")
    assert "no control plane answers at http://127.0.0.1:1" in absent.err


# ---------------------------------------------------------------- several processes


async def test_the_facades_of_several_processes_are_one(serve: Serve, tmp_path: Path) -> None:
    """A bot has its shards at all of them; what it does is added up."""
    async with Simulator(guilds=2, shards=2, identify_spacing=0.0, rate=0) as sim:
        planes, shown = [], []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            shards = f"gateway.shards={{ids=[{number}],of=2}}"
            planes.append(await serve(*facade_settings(folder, "main", "stats"), shards, sim=sim))
            shown.append(Shown(planes[-1], folder))
        group = Group(planes)
        await group.server.start()
        try:
            for number, one in enumerate(shown):
                await one.bot("main", shard=[number, 2])
            bot = await shown[1].bot("stats", shard=[1, 2])
            await bot.gone()
            facade = checked((await group.ask("/status.json")).body)["facade"]
            metrics = (await group.ask("/metrics")).body.decode()
        finally:
            await group.server.close()
            for one in shown:
                await one.close()
    assert facade["url"] == f"{shown[0].url}, {shown[1].url}"
    main, stats = facade["bots"]
    assert (main["shards"], main["sessions"], main["identifies"], main["libraries"]) == ([0, 1], 2, 2, ["raw"])
    assert main["since"] == min(one["since"] for one in facade["sessions"])
    assert (stats["shards"], stats["identifies"]) == ([], 1)
    assert stats["seen_at"] is not None
    assert [(one["bot"], one["shard"]) for one in facade["sessions"]] == [("main", 0), ("main", 1)]
    assert 'discorder_facade_sessions{process="1",client="main"} 1.0' in metrics.splitlines()
