"""What tests of every folder share."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.stage", "tests.rings", "tests.commandline", "tests.faults.table", "tests.serving"]


@pytest.fixture
def port_6000() -> Iterator[None]:
    """The default port is for one test at a time, whichever worker runs it."""
    with (Path(tempfile.gettempdir()) / "discorder-tests-port-6000.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
