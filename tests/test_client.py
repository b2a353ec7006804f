"""The distribution discorder-client: what is in its wheel, and that it works alone and beside the full package."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import discorder
from discorder.bot import commands, subscriber
from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.rest import BotClient
from discorder.simulator import Simulator
from discorder.wire import Op
from tools import build_client

ROOT = Path(__file__).parent.parent
ALONE = {"discorder-client", "msgspec", "pyzmq"}
OF_THE_ENVIRONMENT = {"pip", "setuptools"}

BOT = """\
import asyncio, sys
import discorder_client as client
import msgspec

class Message(msgspec.Struct):
    content: str

async def main(address: str) -> None:
    async with client.subscribe(address, types=["MESSAGE_CREATE"], decode=Message, cursor="bot.cursor") as events:
        async with client.Commands(address) as commands:
            print("sent", await commands.presence(status="idle"), flush=True)
        async for item in events:
            if isinstance(item, client.Gap):
                sys.exit(f"missed {item}")
            print("got", item.value.content, flush=True)
            return

client.run_bot(main(sys.argv[1]))
assert not [name for name in sys.modules if name.partition(".")[0] in {"discorder", "aiohttp", "platformdirs"}]
"""
TYPED = """\
import discorder_client as client
import msgspec

class Message(msgspec.Struct):
    content: str

async def main() -> None:
    async with client.subscribe(types="MESSAGE_CREATE", decode=Message, keys=client.CurveKeys("k", "f")) as events:
        async for item in events:
            if isinstance(item, client.Gap):
                reveal_type(item.kind)
            else:
                reveal_type(item.value)
    async with client.Commands() as commands:
        await commands.presence(status=7)
"""


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, cwd=cwd, env=kept | (environment or {}), capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


# ---------------------------------------------------------------- its source


def test_the_modules_of_the_client_import_without_the_full_package(tmp_path: Path) -> None:
    build_client.write_source(tmp_path)
    text = "\n".join(path.read_text() for path in (tmp_path / "discorder_client").rglob("*.py"))
    assert re.findall(r"(?:from|import) discorder\b.*", text) == []
    code = "import discorder_client, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = run(sys.executable, "-c", code, cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)}).split()
    assert "discorder_client" in loaded
    assert not {"discorder", "aiohttp", "loguru", "platformdirs", "tenacity", "transitions", "typer"} & set(loaded)


def test_a_module_that_needs_more_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(build_client.EXPORTS, "ConfigSource", "config.source")
    with pytest.raises(
        build_client.BuildError, match=r"discorder-client needs msgspec and pyzmq only, but discorder/\S+ imports"
    ):
        build_client.write_source(tmp_path)


def test_the_readme_lists_exactly_the_exports() -> None:
    table = (ROOT / "client" / "README.md").read_text().partition("|---|---|")[2]
    named = {
        name for row in table.splitlines() if row.startswith("|") for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(build_client.EXPORTS)


# ---------------------------------------------------------------- its wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_client.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the client only."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel), cwd=folder)
    return folder / "bin" / "python"


@asynccontextmanager
async def plane(port: int, *more: str) -> AsyncIterator[tuple[Simulator, str]]:
    """Run a control plane on a simulator; yield that and the address of the bus."""
    address = f"tcp://127.0.0.1:{port}"
    async with Simulator(guilds=1, rate=20) as sim:
        ref = discorder.TrackerRef()
        settings = [
            f"gateway.api={sim.api_url}",
            "session.store=",
            f"publishers.zmq.bind={address}",
            "log.level=error",
            *more,
        ]
        load = lambda: load_config(None, settings)  # noqa: E731
        running = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        await ref.ready(timeout=60)
        yield sim, address
        await discorder.shutdown(ref.value)
        await running


async def lines_of(*command: str | Path, lines: int, cwd: Path, endless: bool = False, **environment: str) -> list[str]:
    """Start a bot and return its first lines; an ``endless`` one is killed then."""
    bot = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"], **environment}
    )
    assert bot.stdout is not None
    try:
        async with asyncio.timeout(60):
            return [(await bot.stdout.readline()).decode() for _ in range(lines)]
    finally:
        if endless:
            bot.kill()
        assert await bot.wait() == (-signal.SIGKILL if endless else 0)


@pytest.mark.system
@pytest.mark.heavy
def test_an_environment_of_its_own_has_its_two_dependencies_only(alone: Path, tmp_path: Path) -> None:
    listed = json.loads(run(alone, "-m", "pip", "list", "--format=json", cwd=tmp_path))
    assert {one["name"] for one in listed} - OF_THE_ENVIRONMENT == ALONE


@pytest.mark.system
@pytest.mark.heavy
async def test_a_bot_reads_and_sends_with_the_client_alone(alone: Path, tmp_path: Path, default_port: int) -> None:
    async with plane(default_port) as (sim, address):
        said = await lines_of(alone, "-c", BOT, address, lines=2, cwd=tmp_path)
        await sim.wait_for(lambda: any(frame.op == Op.PRESENCE_UPDATE for frame in sim.received))
    assert said[0].startswith("sent ")
    assert said[1].startswith("got ")
    assert (tmp_path / "bot.cursor").exists()


@pytest.mark.system
@pytest.mark.heavy
async def test_a_bot_with_keys_reads_an_encrypted_bus(alone: Path, tmp_path: Path, default_port: int) -> None:
    bus, bot = (
        run(sys.executable, "-m", "discorder", "keygen", name, cwd=tmp_path).splitlines()[2] for name in ("bus", "bot")
    )
    keys = f'keys=client.CurveKeys(r"{bus}", "bot.key_secret")'
    code = BOT.replace("client.Commands(address)", f"client.Commands(address, {keys})")
    code = code.replace('cursor="bot.cursor"', keys)
    settings = (
        f"publishers.zmq.curve_secret_file={tmp_path / 'bus.key_secret'}",
        f"publishers.zmq.curve_clients=['{bot}']",
    )
    async with plane(default_port, *settings) as (_, address):
        said = await lines_of(alone, "-c", code, address, lines=2, cwd=tmp_path)
    assert said[1].startswith("got ")


@pytest.mark.system
@pytest.mark.heavy
async def test_the_bot_of_its_readme_runs(alone: Path, tmp_path: Path, default_port: int) -> None:
    page = (ROOT / "client" / "README.md").read_text()
    (code,) = re.findall(r"<!-- run: subscriber -->\n```python\n(.*?)```", page, re.DOTALL)
    async with plane(default_port) as (_, address):
        said = await lines_of(
            alone, "-u", "-c", code.replace("tcp://127.0.0.1:6000", address), lines=1, cwd=tmp_path, endless=True
        )
    assert re.match(r"\d+ ", said[0])


@pytest.mark.system
@pytest.mark.heavy
def test_a_type_checker_sees_the_types_of_the_client(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(alone), "bot.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240).stdout
    assert 'Revealed type is "discorder_client.bot.positions.GapKind"' in checked
    assert re.search(r'Revealed type is "(\w+\.)?Message"', checked)
    assert re.findall(r"error: (.*?) +\[", checked) == [
        'Argument "status" to "presence" of "Commands" has incompatible type "int"; expected "str"'
    ]


@pytest.mark.system
@pytest.mark.heavy
async def test_it_works_beside_the_full_package_and_shares_no_file_with_it(
    wheel: Path, tmp_path: Path, default_port: int
) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"discorder_client", f"discorder_client-{wheel.name.split('-')[1]}.dist-info"}
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path / "beside"),
        str(wheel),
        cwd=tmp_path,
    )
    code = BOT.replace("import asyncio, sys", "import asyncio, sys, discorder.simulator").partition("assert not")[0]
    async with plane(default_port) as (_, address):
        said = await lines_of(
            sys.executable, "-c", code, address, lines=2, cwd=tmp_path, PYTHONPATH=str(tmp_path / "beside")
        )
    assert said[1].startswith("got ")
    code = (
        "import inspect, json, discorder_client as c;"
        "print(json.dumps([str(inspect.signature(c.Commands.presence)), str(inspect.signature(c.subscribe))]))"
    )
    signatures = json.loads(
        run(sys.executable, "-c", code, cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path / "beside")})
    )
    full: list[Any] = [commands.Commands.presence, subscriber.subscribe]
    assert signatures == [str(inspect.signature(one)) for one in full]
