"""`discorder facade token`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from discorder.config import FacadeClient, load_config
from discorder.errors import ConfigError
from discorder.facade.clients import bot_id_of, check_clients, load_client, make_token, write_token
from discorder.simulator import Simulator
from tests.commandline import Command

pytestmark = pytest.mark.system
TOKEN = "MTM0NTE4Nzk4OTMxNTI1NjMzMw.simulated.not-a-secret"


async def test_a_token_is_made_and_works(discorder: Command, tmp_path: Path) -> None:
    """The file is its owner's, the id is the bot's, and the printed table is valid configuration."""
    made = await discorder("facade", "token", "main", token=TOKEN)
    assert made.code == 0, made.err
    file = tmp_path / "main.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    assert token not in made.out
    assert bot_id_of(token) == 1345187989315256333
    assert "restart `discorder serve`" in made.out
    config = tmp_path / "config.toml"
    config.write_text('[facade]\nbind = "127.0.0.1:0"\n' + made.out.partition("\n\n")[2])
    loaded = load_config(config)
    assert load_client("main", loaded.facade.clients["main"]).token == token


async def test_a_file_that_is_there_is_kept(discorder: Command, tmp_path: Path) -> None:
    """A running bot may use it."""
    (tmp_path / "my.token").write_text("kept")
    (tmp_path / "config.toml").write_text('[facade.clients.main]\ntoken_file = "my.token"\n')
    made = await discorder("facade", "token", "main", "--config", "config.toml", token=TOKEN)
    assert made.code == 74
    assert "my.token is there already" in made.err
    assert (tmp_path / "my.token").read_text() == "kept"


async def test_wrong_names_and_tokens_are_refused(discorder: Command) -> None:
    """With the allowed form, and what to do."""
    assert "letters, digits" in (await discorder("facade", "token", "a b", token=TOKEN)).err
    assert "no bot token" in (await discorder("facade", "token", "main")).err
    assert "developer portal" in (await discorder("facade", "token", "main", token="no-bot-id.x.y")).err


@pytest.mark.parametrize("content", [b"", b"MTM0.real.token", b"\xff" * 40])
def test_a_file_without_a_token_of_the_facade_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error names the key, the file and the command."""
    file = tmp_path / "main.token"
    with pytest.raises(ConfigError, match=r"clients\.main\.token_file: there is no file .*discorder facade token main"):
        load_client("main", FacadeClient(token_file=str(file)))
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"holds no token of the façade; remove the file and run"):
        load_client("main", FacadeClient(token_file=str(file)))


@pytest.fixture
def clients(tmp_path: Path) -> dict[str, FacadeClient]:
    """Two bots with tokens of their own, made for the bot of `TOKEN`."""
    for name in ("main", "other"):
        write_token(tmp_path / f"{name}.token", make_token(1345187989315256333))
    return {name: FacadeClient(token_file=str(tmp_path / f"{name}.token")) for name in ("main", "other")}


def test_the_tokens_of_another_bot_are_refused(clients: dict[str, FacadeClient]) -> None:
    """Both bots are named: the wrong one may be that of the bot token."""
    check_clients(clients, TOKEN)
    with pytest.raises(
        ConfigError, match=r"clients\.main\..* made for the bot 1345187989315256333, .* of the bot 42; use"
    ):
        check_clients(clients, "NDI.real.token")


def test_two_bots_with_one_token_are_refused(clients: dict[str, FacadeClient], tmp_path: Path) -> None:
    """They would be one bot to the façade, and the second one would never catch up."""
    (tmp_path / "other.token").write_text((tmp_path / "main.token").read_text())
    with pytest.raises(ConfigError, match=r"clients\.other\.token_file: .* token of facade\.clients\.main, too"):
        check_clients(clients, TOKEN)


@pytest.mark.parametrize("command", ["serve", "facade"])
async def test_a_start_with_the_tokens_of_another_bot_is_refused(
    discorder: Command, tmp_path: Path, command: str, sim: Simulator
) -> None:
    """Before any bot is accepted, with exit code 78."""
    write_token(tmp_path / "main.token", make_token(42))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[gateway]\napi = "{sim.api_url}"\n[http]\nbind = ""\n[publishers.zmq]\nbind = "tcp://127.0.0.1:0"\n'
        '[facade]\nbind = "127.0.0.1:0"\n[facade.clients.main]\ntoken_file = "main.token"\n'
    )
    ended = await discorder(command, "--config", "config.toml", token=sim.token)
    assert ended.code == 78
    assert "was made for the bot 42" in ended.err
