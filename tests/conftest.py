"""Shared by the tests of every folder: plugins, the marks of suites, the port of the default bus."""

from __future__ import annotations

import csv
import fcntl
import gc
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.harness",
    "tests.transition_checks",
    "tests.commandline",
    "tests.edge",
    "tests.faults.table",
    "tests.serving",
    "tests.http.page_browser",
]


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # pytest was started in the background; commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# bytes; a GUILD_CREATE in one field is larger than the csv module's default, in any test module
csv.field_size_limit(1 << 30)


# The folders that `make test` leaves to `make suites`.
SUITES = ("endurance", "faults", "kills", "proofs", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the folders in `SUITES`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in SUITES:
            item.add_marker("suite")


def pytest_collection_finish() -> None:
    """Exclude the modules and tests from garbage collection; a collection takes a third of a second with them."""
    gc.freeze()


@pytest.fixture
def default_port() -> Iterator[int]:
    """Yield the port of the default bus, locked for one test at a time across workers, or another pair if it is taken."""
    with (Path(tempfile.gettempdir()) / "discorder-tests-port-6000.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield next(port for port in (6000, *range(16000, 17000, 2)) if _is_free(port) and _is_free(port + 1))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports in TIME_WAIT are free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
