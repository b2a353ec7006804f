"""The section [facade]: where bots may connect, who they are, and which settings contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.config import Config, describe, load_config
from discorder.config.division import divide
from discorder.errors import ConfigError

CLIENT = "facade.clients.main.token_file=main.token"


def refusal(*sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(None, sets)
    return str(caught.value)


def test_by_default_it_is_off_and_keeps_no_journal() -> None:
    config = load_config(None)
    assert (config.facade.bind, config.facade.keeps_journal) == ("", False)
    assert "journal" not in describe(config)


def test_a_client_has_a_table_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[facade]\nbind = "127.0.0.1:7000"\n[facade.clients.main]\ntoken_file = "a"\n'
        '[facade.clients.test]\ntoken_file = "b"\ncatch_up = 0\ncatch_up_from = "heartbeat"\nvoice = "keep"\n'
    )
    config = load_config(path)
    assert [(client.token_file, client.catch_up) for client in config.facade.clients.values()] == [
        ("a", 120.0),
        ("b", 0.0),
    ]
    assert "127.0.0.1:7000; clients main, test; REST pass" in describe(config)
    assert "beside the session store, 268,435,456 bytes, 3600 s" in describe(config)


@pytest.mark.parametrize(
    ("sets", "keeps"),
    [
        (["facade.bind=127.0.0.1:0", CLIENT], True),
        (["facade.bind=systemd", "facade.tokens=real"], True),
        ([CLIENT], True),
        (["facade.journal=/tmp/here"], True),
        (["facade.journal="], False),
    ],
)
def test_the_journal_is_kept_for_a_bind_a_client_or_a_path(sets: list[str], keeps: bool) -> None:
    assert load_config(None, sets).facade.keeps_journal is keeps


@pytest.mark.parametrize("bind", ["0.0.0.0:7000", "[::]:7000", "10.0.0.5:7000", "bots.example.org:7000"])
def test_another_host_is_never_served(bind: str) -> None:
    assert "bind a loopback address" in refusal(f"facade.bind={bind}", CLIENT)


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (("facade.bind=here", CLIENT), "facade.bind"),
        (("facade.bind=127.0.0.1:7000",), "facade.bind"),
        (("facade.bind=127.0.0.1:6080", CLIENT), "facade.bind"),
        (("facade.bind=127.0.0.1:7000", CLIENT, "facade.journal="), "facade.journal"),
        ((CLIENT, "session.store="), "facade.journal"),
        (("facade.ring_bytes=1000",), "facade.ring_bytes"),
        (("publishers.zmq.ring=journal",), "publishers.zmq.ring"),
        (("facade.journal=/tmp/here", "publishers.journal.kind=log"), "publishers.journal"),
        (("facade.ring_seconds=0",), "facade.ring_seconds"),
        (("facade.heartbeat=0",), "facade.heartbeat"),
        (("facade.rest=maybe",), "facade.rest"),
        (("facade.tokens=none",), "facade.tokens"),
        (("facade.client=1",), "facade.client"),
        (("facade.clients=1",), "facade.clients"),
        (("facade.clients.main=1",), "facade.clients.main"),
        (("facade.clients.main.voice=leave",), "facade.clients.main.token_file"),
        ((CLIENT, "facade.clients.main.voices=leave"), "facade.clients.main.voices"),
        ((CLIENT, "facade.clients.main.catch_up=-1"), "facade.clients.main.catch_up"),
        (("facade.clients.main.token_file=~nobody-here/x",), "facade.clients.main.token_file"),
        (('facade.clients."a b".token_file=x',), "facade.clients.a b"),
    ],
)
def test_a_wrong_or_contradictory_key_is_named(sets: tuple[str, ...], key: str) -> None:
    assert f"{key}: " in refusal(*sets)


def test_each_file_has_one_use() -> None:
    assert "name the same file" in refusal(CLIENT, "facade.clients.other.token_file=main.token")
    assert "name the same file" in refusal("session.store=s.db", "facade.journal=s.db.journal", "log.file=s.db.journal")


def test_the_real_token_is_a_warning() -> None:
    assert "warning: facade.tokens" in describe(load_config(None, ["facade.bind=127.0.0.1:7000", "facade.tokens=real"]))


def test_each_process_gets_a_port_and_a_journal_of_its_own() -> None:
    def changes(*sets: str) -> list[str]:
        config: Config = load_config(None, ["gateway.shards=2", CLIENT, *sets])
        return [one for share in divide(config, 2) for one in share.overrides if one.startswith("facade.")]

    assert changes() == []
    assert changes("facade.bind=127.0.0.1:7000") == ['facade.bind="127.0.0.1:7000"', 'facade.bind="127.0.0.1:7001"']
    assert changes("facade.journal=/tmp/one") == ['facade.journal="/tmp/one.0"', 'facade.journal="/tmp/one.1"']
    with pytest.raises(ConfigError, match=r"facade\.bind: several processes"):
        changes("facade.bind=systemd")
