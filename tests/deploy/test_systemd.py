"""deploy/systemd: what systemd itself finds, what the units promise, and a start as they would make it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from discorder.exits import HOPELESS
from discorder.facade.clients import make_token
from discorder.simulator import Simulator

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ("discorder.service", "discorder@.service")
FACADE, SOCKET = "discorder-facade.service", "discorder-facade.socket"
INSTALLED = "/opt/discorder/bin/discorder"
BOT_ID = 1345187989315256333
TOKEN = "MTM0NTE4Nzk4OTMxNTI1NjMzMw.simulated.not-a-secret"
MOST_EXPOSED = 20  # tenths
ANALYZE = shutil.which("systemd-analyze")


def settings(name: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit, in their order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(params=[*NAMES, FACADE])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as an instance, with the command of this environment in the place of the installed one."""
    text = (UNITS / request.param).read_text(encoding="utf-8")
    copy = tmp_path / str(request.param).replace("@", "@demo")
    copy.write_text(text.replace(INSTALLED, str(Path(sys.executable).parent / "discorder")), encoding="utf-8")
    shutil.copy(UNITS / SOCKET, tmp_path)
    return copy


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    checked = subprocess.run([str(ANALYZE), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_the_sandbox_is_tight(unit: Path) -> None:
    arguments = ["security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit)]
    checked = subprocess.run([str(ANALYZE), *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_says_what_the_process_does(name: str) -> None:
    """The codes that are hopeless in the code are those that prevent a restart."""
    values = settings(name)
    assert values["Type"] == ["notify"]
    assert {int(code) for code in values["RestartPreventExitStatus"][0].split()} == HOPELESS
    assert values["Restart"] == ["on-failure"]
    assert int(values["WatchdogSec"][0]) >= 10
    assert values["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "DISCORD_BOT_TOKEN" not in (UNITS / name).read_text(encoding="utf-8")


def test_the_two_units_differ_in_names_and_paths_only() -> None:
    one, several = (settings(name) for name in NAMES)
    different = {key for key in one.keys() | several.keys() if one.get(key) != several.get(key)}
    assert different == {
        "Description",
        "ExecStart",
        "LoadCredential",
        "StateDirectory",
        "WorkingDirectory",
        "Environment",
        "User",
    }


def test_the_facade_is_confined_as_the_control_plane_whose_state_it_shares() -> None:
    """Both processes are one user with one directory, where the journals and the tokens of the bots are."""
    plane, facade = settings("discorder.service"), settings(FACADE)
    different = {key for key in plane.keys() | facade.keys() if plane.get(key) != facade.get(key)}
    assert different == {"Description", "After", "ExecStart", "ExecReload", "TimeoutStopSec", "Also"}
    assert facade["Also"] == [SOCKET]
    assert {int(code) for code in facade["RestartPreventExitStatus"][0].split()} == HOPELESS


@pytest.mark.system
async def test_the_facade_starts_as_its_units_make_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """With the socket and the credential of systemd, before the control plane; the service manager is told when it listens."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "token").write_text(TOKEN)
    state = tmp_path / "lib" / "discorder"
    state.mkdir(parents=True)
    (state / "main.token").write_text(make_token(BOT_ID))
    (state / "main.token").chmod(0o600)
    config = tmp_path / "discorder.toml"
    config.write_text('[facade.clients.main]\ntoken_file = "main.token"\n')
    values = settings(FACADE)
    command = values["ExecStart"][0].replace(INSTALLED, f"{sys.executable} -m discorder")
    command = command.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path / "credentials"))
    command = command.replace("/etc/discorder/discorder.toml", str(config))
    host, _, _ = settings(SOCKET)["ListenStream"][0].partition(":")
    name, _, value = values["Environment"][0].partition("=")
    with (
        socket.create_server((host, 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager,
    ):
        manager.bind(str(tmp_path / "notify"))
        held = f"exec 3<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec {command}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", held),
            env=environment
            | {name: value.replace("%S", str(tmp_path / "lib")), "NOTIFY_SOCKET": str(tmp_path / "notify")},
            cwd=state,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(listener.fileno(),),
        )
        async with asyncio.timeout(60):
            while "READY=1" not in (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode():
                pass
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET /api/gateway HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await reader.readline()
            writer.close()
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert len(list(state.rglob("*.journal.facade"))) == 1


@pytest.mark.parametrize(("name", "instance"), [(NAMES[0], ()), (NAMES[1], ("@demo",))])
def test_a_command_runs_as_the_unit_does(tmp_path: Path, name: str, instance: tuple[str, ...]) -> None:
    """The helper asks systemd for the user, state, credential and arguments of the unit. Here a script takes systemd's place."""
    fake = tmp_path / "systemd-run"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    fake.chmod(0o755)
    asked = subprocess.run(
        [str(UNITS / "discorder-as-service"), *instance, "sessions", "list"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    ).stdout.splitlines()
    unit = {
        key: value.replace("%S", "/var/lib").replace("%i", "demo")
        for key, values in settings(name).items()
        for value in values[:1]
    }
    wanted = dict(line.removeprefix("--property=").split("=", 1) for line in asked if line.startswith("--property="))
    assert wanted == {key: unit[key] for key in wanted}
    assert wanted.keys() >= {"DynamicUser", "User", "StateDirectory", "Environment", "LoadCredential"}
    assert asked[asked.index(INSTALLED) :] == shlex.split(unit["ExecStart"].replace(" serve ", " sessions list "))


@pytest.mark.system
async def test_a_start_as_the_unit_makes_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """With the credential and the state directory of systemd; the sessions are where the unit keeps its state."""
    (tmp_path / "credentials").mkdir()
    state = tmp_path / "lib" / "discorder"
    state.mkdir(parents=True)
    config = tmp_path / "discorder.toml"
    values = settings("discorder.service")
    async with Simulator(guilds=1) as sim:
        (tmp_path / "credentials" / "token").write_text(sim.token)
        (tmp_path / "credentials" / "token").chmod(0o400)
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\n[publishers.sink]\nkind = "channel"\n[log]\nfile = "discorder.log"\n'
        )
        command = values["ExecStart"][0].replace(INSTALLED, f"{sys.executable} -m discorder")
        command = command.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path / "credentials"))
        command = command.replace("/etc/discorder/discorder.toml", str(config))
        name, _, value = values["Environment"][0].partition("=")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.bind(str(tmp_path / "notify"))
            process = await asyncio.create_subprocess_exec(
                *shlex.split(command),
                env=environment
                | {name: value.replace("%S", str(tmp_path / "lib")), "NOTIFY_SOCKET": str(tmp_path / "notify")},
                cwd=state,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(60):
                while "READY=1" not in (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode():
                    pass
            await sim.wait_for(lambda: sim.sent, timeout=60)
            process.send_signal(signal.SIGTERM)
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
    written = sorted(str(path.relative_to(state)) for path in state.rglob("*.sqlite3"))
    assert len(written) == 1, written
    assert (state / "discorder.log").exists()
    assert b"WARNING" not in err, err.decode()
