"""`discorder facade token`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from discorder.config import FacadeClient, load_config
from discorder.errors import ConfigError
from discorder.facade.clients import bot_id_of, load_client
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
