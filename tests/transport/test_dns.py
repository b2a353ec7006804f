"""Looking up a host can be cancelled, and never delays the exit of the process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from discorder.transport.dns import DaemonResolver
from tests.stopwatch import Stopwatch


async def test_a_name_becomes_numeric_addresses() -> None:
    found = await DaemonResolver().resolve("localhost", 443, socket.AF_INET)
    assert [(answer["host"], answer["port"]) for answer in found] == [("127.0.0.1", 443)]
    assert found[0]["hostname"] == "localhost"


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
async def test_a_name_that_cannot_be_one_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError, match=r"not a host name|Name"):
        await DaemonResolver().resolve(host, 443)


async def test_a_look_up_that_hangs_can_be_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    started = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        started.set()
        release.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    looking = asyncio.create_task(DaemonResolver().resolve("gateway.invalid", 443))
    await asyncio.to_thread(started.wait, 10)
    watch = Stopwatch()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert watch.seconds < 1
    release.set()
    for thread in threading.enumerate():
        if thread.name == "discorder-dns":
            await asyncio.to_thread(thread.join, 10)


HANGING = """
    import asyncio, socket, threading
    from discorder.transport import AiohttpTransport
    from discorder.errors import ConnectFailed

    socket.getaddrinfo = lambda *a, **k: threading.Event().wait()

    async def main():
        try:
            await asyncio.wait_for(AiohttpTransport().connect("wss://gateway.invalid/", print), 0.05)
        except TimeoutError:
            print("gave up", flush=True)

    asyncio.run(main())
"""


def test_the_interpreter_exits_while_a_look_up_hangs() -> None:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(HANGING)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gave up\n", "")
