"""How one configuration is divided among processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.config import load_config
from discorder.config.division import divide, socket_folders
from discorder.errors import ConfigError


def overrides(processes: int, *sets: str) -> list[set[str]]:
    return [set(share.overrides) for share in divide(load_config(None, ["http.bind=", *sets]), processes)]


def test_shards_are_divided_into_blocks_and_ports_into_pairs() -> None:
    assert overrides(3, "gateway.shards=7") == [
        {"gateway.shards={ ids = [0, 1], of = 7 }", 'publishers.zmq.bind=["tcp://127.0.0.1:6000"]'},
        {"gateway.shards={ ids = [2, 3], of = 7 }", 'publishers.zmq.bind=["tcp://127.0.0.1:6002"]'},
        {"gateway.shards={ ids = [4, 5, 6], of = 7 }", 'publishers.zmq.bind=["tcp://127.0.0.1:6004"]'},
    ]


def test_the_shards_of_one_machine_of_several_are_divided() -> None:
    shares = divide(load_config(None, ["gateway.shards={ ids = [9, 1, 5], of = 16 }"]), 2)
    assert [(share.shards, share.of) for share in shares] == [((1,), 16), ((5, 9), 16)]


def test_each_process_gets_sockets_and_files_of_its_own() -> None:
    _, second = overrides(
        2,
        "gateway.shards=2",
        "log.file=logs/discorder.log",
        "publishers.bus.kind=zmq",
        'publishers.bus.bind=["ipc:///run/bus", "ipc://@abstract", "tcp://127.0.0.1:0"]',
        "publishers.bus.insecure=true",
        "publishers.bus.replay=tcp://127.0.0.1:7000",
        'publishers."a.b".kind=delimited_file',
        'publishers."a.b".path=events.tsv',
    )
    assert second == {
        "gateway.shards={ ids = [1], of = 2 }",
        'log.file="logs/discorder.1.log"',
        'publishers.bus.bind=["ipc:///run/bus/1","ipc://@abstract.1","tcp://127.0.0.1:0"]',
        'publishers.bus.replay="tcp://127.0.0.1:7002"',
        'publishers."a.b".path="events.1.tsv"',
    }
    load_config(
        None, ["publishers.bus.kind=zmq", "publishers.bus.insecure=true", *second - {*filter(is_delimited, second)}]
    )


def is_delimited(override: str) -> bool:
    return ".path=" in override


def test_a_folder_is_needed_for_each_ipc_path() -> None:
    config = load_config(None, ["publishers.zmq.bind=ipc:///run/bus", "publishers.zmq.mode=0660"])
    assert [(one.path, one.mode) for one in socket_folders(config)] == [(Path("/run/bus"), 0o660)]


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ([], "gateway.shards"),
        (["gateway.shards=1"], "1 shards cannot be divided among 2"),
        (["gateway.shards=2", "session.store="], "session.store"),
        (["gateway.shards=2", "publishers.zmq.bind=tcp://127.0.0.1:65534"], "publishers.zmq.bind"),
    ],
)
def test_what_cannot_be_divided_is_refused(sets: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        divide(load_config(None, sets), 2)
