"""How a process ends that runs a control plane: one line, its exit code, no traceback; the same for a script that calls `run`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discorder import errors
from discorder.exits import EXIT_CODES, HOPELESS
from discorder.simulator import Simulator
from tests.commandline import Command, Outcome

SCRIPT = "import sys, discorder\ndiscorder.run(config_file_path=sys.argv[1])\n"
CATCHING = """
import sys, discorder
try:
    discorder.run(config_file_path=sys.argv[1])
except discorder.errors.DiscorderError as error:
    print("caught", type(error).__name__)
raise RuntimeError("of the script's own")
"""
QUIET = '[log]\nlevel = "critical"\n[session]\nstore = ""\n[http]\nbind = ""\n'


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def configured(folder: Path, sim: Simulator, bind: str = "tcp://127.0.0.1:0") -> Path:
    path = folder / "config.toml"
    path.write_text(f'[gateway]\napi = "{sim.api_url}"\n{QUIET}[publishers.zmq]\nbind = "{bind}"\n')
    return path


async def script(text: str, config: Path, environment: dict[str, str], token: str | None) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text, str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment | ({} if token is None else {"DISCORD_BOT_TOKEN": token}),
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Outcome(process.returncode or 0, out.decode(), err.decode())


@pytest.mark.system
async def test_a_busy_port_is_not_hopeless(discorder: Command, sim: Simulator, tmp_path: Path, taken: int) -> None:
    """It has an exit code of its own, and no IDENTIFY is spent."""
    config = configured(tmp_path, sim, f"tcp://127.0.0.1:{taken}")
    outcome = await discorder("serve", "--config", str(config), token=sim.token)
    assert outcome.code == 73
    assert 73 not in HOPELESS
    assert f"tcp://127.0.0.1:{taken} is in use" in outcome.err
    assert sim.identifies == 0


@pytest.mark.heavy
@pytest.mark.system
async def test_run_in_a_script_ends_like_serve(
    sim: Simulator, environment: dict[str, str], tmp_path: Path, taken: int
) -> None:
    config = configured(tmp_path, sim)
    refused = await script(SCRIPT, config, environment, "MTIz.wrong.token")
    assert (refused.code, refused.out) == (77, "")
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith("discorder: ")
    assert "401" in refused.err
    missing = await script(SCRIPT, config, environment, None)
    assert (missing.code, len(missing.err.splitlines())) == (78, 1)
    busy = await script(SCRIPT, configured(tmp_path, sim, f"tcp://127.0.0.1:{taken}"), environment, sim.token)
    assert (busy.code, len(busy.err.splitlines())) == (73, 1)
    assert sim.identifies == 0


@pytest.mark.heavy
@pytest.mark.system
async def test_a_script_may_catch_what_run_raises(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> None:
    """Then only the errors of the script itself end it, with a traceback as ever."""
    outcome = await script(CATCHING, configured(tmp_path, sim), environment, "MTIz.wrong.token")
    assert (outcome.code, outcome.out) == (1, "caught AuthenticationFailed\n")
    assert "Traceback" in outcome.err
    assert "of the script's own" in outcome.err


def test_every_error_has_an_exit_code_that_is_listed() -> None:
    kinds = [errors.DiscorderError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = {code for kind in kinds if type(code := vars(kind).get("exit_code")) is int}
    assert codes | {0, 2} == EXIT_CODES.keys()
    assert {errors.FatalCloseError(code, "", "").exit_code for code in range(4000, 4015)} <= HOPELESS
