"""What the README shows is run: its commands exist, its code works, its tables are complete."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
import pytest

import discorder
from discorder.cli.app import app
from discorder.config import Gateway, Log, Session, load_config
from discorder.control_plane import serve_config
from discorder.rest import BotClient
from discorder.simulator import Simulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    """The code block that stands behind ``<!-- run: name -->``."""
    (found,) = re.findall(rf"<!-- run: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    return str(found)


def settings(sim: Simulator, bind: str) -> list[str]:
    return [f"gateway.api={sim.api_url}", "session.store=", f"publishers.zmq.bind={bind}", "log.level=error"]


@pytest.mark.usefixtures("port_6000")
async def test_the_subscriber_of_the_readme_prints_messages() -> None:
    """As it stands, in a process of its own, against a plane on the default port."""
    async with Simulator(guilds=1, rate=20) as sim:
        ref = discorder.TrackerRef()
        load = lambda: load_config(None, settings(sim, "tcp://127.0.0.1:6000"))  # noqa: E731
        plane = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", block("subscriber"), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        try:
            assert bot.stdout is not None
            async with asyncio.timeout(30):
                line = await bot.stdout.readline()
            assert re.match(rb"\d+ ", line), line
        finally:
            bot.kill()
            await bot.wait()
            plane.cancel()
            results = await asyncio.gather(plane, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results


async def test_the_publisher_of_the_readme_gets_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, type] = {}
    exec(block("publisher"), names)  # noqa: S102  # the README's own code
    async with Simulator(guilds=1) as sim:
        ref = discorder.TrackerRef()
        load = lambda: load_config(None, settings(sim, "tcp://127.0.0.1:0"))  # noqa: E731
        plane = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        tracker = await ref.ready(timeout=20)
        tracker.add_publisher(names["Printer"]())
        await sim.dispatch("TYPING_START", {"user_id": "1"})
        async with asyncio.timeout(10):
            while not tracker.publisher_health[-1].accepted:  # noqa: ASYNC110  # a publisher's health is there to be looked at
                await asyncio.sleep(0.01)
        await discorder.shutdown(tracker)
        await plane
    assert re.search(r"^TYPING_START \d+ 15$", capsys.readouterr().out, re.MULTILINE)


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"`discorder ([a-z-]+)", README))
    assert {command.name for command in app.registered_commands} <= shown


def test_the_table_of_keys_is_complete() -> None:
    sections: dict[str, type[msgspec.Struct]] = {"gateway": Gateway, "log": Log, "session": Session}
    for section, cls in sections.items():
        for key in cls.__struct_fields__:
            assert f"`{section}.{key}`" in README, f"the README does not mention {section}.{key}"


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+?)\)|src=\"([^\"]+)\"", README)
    targets = [target for pair in links for target in pair if target and "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
