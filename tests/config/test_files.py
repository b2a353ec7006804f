"""Paths of the configuration: read alike for every key, never shared by two, and never waited for."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from discorder.config import Config, Gateway, load_config, read_token
from discorder.errors import ConfigError
from discorder.paths import is_open_to_others


def output(name: str, path: Path | str) -> list[str]:
    return [f'publishers.{name}.kind="delimited_file"', f'publishers.{name}.path="{path}"']


def token_of(path: Path | str) -> str:
    return read_token(Config(gateway=Gateway(token_file=str(path))), {})


PAIRS = {
    "log.file and publishers.f.path": ['log.file="{d}/a"', *output("f", "{d}/a")],
    "publishers.f.path and publishers.g.path": [*output("f", "{d}/a"), *output("g", "{d}/a")],
    "log.file and session.store": ['log.file="{d}/a"', 'session.store="{d}/a"'],
    "session.store and publishers.f.path": ['session.store="{d}/a"', *output("f", "{d}/a")],
    "gateway.token_file and log.file": ['gateway.token_file="{d}/a"', 'log.file="{d}/a"'],
}


@pytest.mark.parametrize("keys", PAIRS)
@pytest.mark.parametrize("way", ["same", "dots", "symbolic", "hard"])
def test_two_keys_that_name_one_file_are_refused(tmp_path: Path, keys: str, way: str) -> None:
    """With exit code 78 and both keys, before anything is written."""
    settings = [one.replace("{d}", str(tmp_path)) for one in PAIRS[keys]]
    second = max(number for number, one in enumerate(settings) if str(tmp_path) in one)
    other = {"same": "a", "dots": f"../{tmp_path.name}/a"}.get(way, "b")
    settings[second] = settings[second].replace(f"{tmp_path}/a", f"{tmp_path}/{other}")
    if way == "symbolic":
        (tmp_path / "b").symlink_to(tmp_path / "a")
    elif way == "hard":
        (tmp_path / "a").touch()
        (tmp_path / "b").hardlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="name the same file") as caught:
        load_config(None, settings)
    assert keys in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "settings",
    [
        ['session.store="{d}/s"', 'log.file="{d}/s-wal"'],
        ['log.file="{d}/x.log"', *output("f", "{d}/x.log.1")],
        ['log.file="{d}/bus"', 'publishers.zmq.bind="ipc://{d}/bus"'],
        ['log.file="{d}/bus.replay"', 'publishers.zmq.bind="ipc://{d}/bus"'],
    ],
)
def test_a_file_beside_that_of_another_key_is_refused(tmp_path: Path, settings: list[str]) -> None:
    with pytest.raises(ConfigError, match="name the same file"):
        load_config(None, [one.replace("{d}", str(tmp_path)) for one in settings])


def test_the_configuration_file_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[log]\nfile = "{path}"\n')
    with pytest.raises(ConfigError, match=r"the configuration file and log\.file"):
        load_config(path)


def test_files_of_their_own_are_fine(tmp_path: Path) -> None:
    settings = [f'log.file="{tmp_path}/l"', f'session.store="{tmp_path}/s"', *output("f", tmp_path / "f")]
    assert load_config(None, settings).log.file == f"{tmp_path}/l"


@pytest.mark.parametrize(
    "settings",
    [
        ['log.file="~nobody-here/x"'],
        ['session.store="~nobody-here/x"'],
        ['gateway.token_file="~nobody-here/x"'],
        output("f", "~nobody-here/x"),
        ['publishers.zmq.bind="ipc://~nobody-here/x"'],
    ],
)
def test_a_tilde_without_a_home_is_refused_for_every_key(settings: list[str]) -> None:
    with pytest.raises(ConfigError, match="has no home directory"):
        load_config(None, settings)


@pytest.mark.parametrize("key", ["log.file", "session.store", "gateway.token_file", "http.operator_token_file"])
def test_a_path_that_is_too_long_is_an_error_with_key_path_and_remedy(key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf'{key}: "/tmp/x+….* cannot be used: File name too long; write a shorter path'
    ):
        load_config(None, [f'{key}="/tmp/{"x" * 300}"'])


def test_a_path_in_a_directory_of_others_is_an_error_with_key_path_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the rights of the directory count, which do not bind root."""
    file = tmp_path / "closed" / "log"
    stat_of = os.stat

    def refused(path: os.PathLike[str], **more: bool) -> os.stat_result:
        if os.fspath(path) == str(file):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return stat_of(path, **more)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(ConfigError, match=r"log\.file: .* cannot be used: Permission denied; write the path"):
        load_config(None, [f'log.file="{file}"'])


def test_the_token_may_come_over_a_fifo(tmp_path: Path) -> None:
    """As a shell's process substitution has it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("a.token\n",))
    writer.start()
    try:
        assert token_of(path) == "a.token"
    finally:
        writer.join()


def test_a_token_file_that_gives_nothing_is_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discorder.paths.READ_WITHIN", 0.05)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(ConfigError, match=r"gateway\.token_file"):
            token_of(path)
    finally:
        os.close(writer)


def test_a_token_file_may_be_named_from_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("a.token\n")
    assert token_of("~/token") == "a.token"


@pytest.mark.parametrize(
    ("ours", "mode", "is_open"),
    [(True, 0o600, False), (True, 0o640, True), (False, 0o440, False), (False, 0o460, True), (False, 0o444, True)],
)
def test_a_credential_that_the_platform_provides_may_have_rights_of_a_group(
    ours: bool, mode: int, is_open: bool
) -> None:
    """Root owns it; systemd's access list and a volume's group show as rights of the group. Our own files get no such trust."""
    owner = os.geteuid() if ours else os.geteuid() + 1
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 70, 0, 0, 0))
    assert is_open_to_others(found) is is_open
