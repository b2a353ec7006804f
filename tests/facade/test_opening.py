"""What the façade says when it cannot open, and the sockets that a service manager passes."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import aiohttp
import pytest

from discorder.config import Facade
from discorder.errors import AddressInUse, ConfigError
from discorder.facade.opening import listening_sockets
from discorder.facade.server import most_connections
from discorder.simulator import Simulator
from tests.facade.behind import Behind


async def test_a_port_that_is_taken(sim: Simulator, tmp_path: Path) -> None:
    """The start fails before a shard has connected, and the error names the key."""
    one = Behind(sim, tmp_path, ["main"])
    port = int(one.url.rpartition(":")[2])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(AddressInUse, match=rf"^facade\.bind: 127\.0\.0\.1:{port} is in use"),
    ):
        await one.serve()
    assert sim.connects == 0


async def test_a_token_that_was_not_made(sim: Simulator, tmp_path: Path) -> None:
    """The error names the key, the file and the command that makes it."""
    one = Behind(sim, tmp_path, ["main"])
    (tmp_path / "main.token").unlink()
    with pytest.raises(
        ConfigError, match=r"facade.clients.main.token_file: there is no file .* `discorder facade token main`"
    ):
        await one.serve()
    assert sim.connects == 0


async def test_the_real_token_for_a_first_try(sim: Simulator, tmp_path: Path) -> None:
    """With tokens = "real" a bot may use the real token; by default it may not."""
    one = Behind(sim, tmp_path, ["main"])
    for tokens, status in (("own", 401), ("real", 200)):
        one.config.write_text(one.config.read_text().replace("[facade]\n", f'[facade]\ntokens = "{tokens}"\n'))
        await one.start()
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bot {sim.token}"}) as http,
                http.get(f"{one.url}/api/v10/users/@me") as response,
            ):
                assert response.status == status
        finally:
            await one.stop()
        one.config.write_text(one.config.read_text().replace(f'tokens = "{tokens}"\n', ""))


def test_few_files_allow_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are left for the journal, the shards and the requests of the bots."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert most_connections() == 85


async def test_no_socket_of_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """bind = "systemd" without a socket unit."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    with pytest.raises(ConfigError, match="takes the socket of a systemd socket unit, and this process got none"):
        await listening_sockets(Facade(bind="systemd"))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "unix"])
async def test_a_socket_that_is_not_on_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    """Other hosts could reach it; a path is no address for a library."""
    if address == "unix":
        one = socket.socket(socket.AF_UNIX)
        one.bind(str(tmp_path / "socket"))
    else:
        one = socket.create_server(("0.0.0.0", 0))
    monkeypatch.setattr("discorder.facade.opening.FIRST_DESCRIPTOR", one.fileno())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with one, pytest.raises(ConfigError, match=r"use ListenStream=127\.0\.0\.1:PORT"):
        await listening_sockets(Facade(bind="systemd"))
