"""Notifications of a service manager: what arrives at a real socket, and what an environment asks for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from discorder.config import Log
from discorder.logs import configure_logs
from discorder.runtime.notify import READY, Notifier, without_notifications


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The socket of a service manager, and the value of NOTIFY_SOCKET for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        if request.param == "path":
            listening.bind(str(tmp_path / "notify"))
            yield str(tmp_path / "notify"), listening
        else:
            listening.bind("")
            yield "@" + listening.getsockname()[1:].decode(), listening


def test_states_arrive_in_one_datagram(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    assert notifier is not None
    notifier.send(READY, "STATUS=2 of 2 shards Ready")
    assert listening.recv(4096) == b"READY=1\nSTATUS=2 of 2 shards Ready"
    notifier.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", listening.recv(4096))


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_without_a_usable_socket_nobody_is_notified(address: str) -> None:
    assert Notifier.of({"NOTIFY_SOCKET": address}) is None
    assert Notifier.of({}) is None


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(variables: dict[str, str], seconds: float | None) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": "@nobody", **variables})
    assert notifier is not None
    assert notifier.watchdog == seconds


def test_a_manager_that_is_gone_is_logged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notifier = Notifier(str(tmp_path / "nowhere"))
    with configure_logs(Log(), console=True):
        notifier.send(READY)
        notifier.send(READY)
    assert capsys.readouterr().err.count("The service manager cannot be notified") == 1


def test_a_child_does_not_speak_for_the_service() -> None:
    kept = without_notifications({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin"})
    assert kept == {"PATH": "/bin"}
