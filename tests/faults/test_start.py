"""Case 26: a start that is impossible. One clear error that names the key, the value and the remedy; nothing is started."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from discorder.simulator import Simulator
from tests.commandline import Command
from tests.faults.table import Case

pytestmark = pytest.mark.system
FREE_PORT = "publishers.zmq.bind=tcp://127.0.0.1:0"


@pytest.fixture
async def untouched() -> AsyncIterator[Simulator]:
    """A simulator that must have got no request when the case is over."""
    async with Simulator() as simulator:
        yield simulator
        assert (simulator.connects, simulator.rest_requests) == (0, [])


@pytest.fixture
def taken_port_6000(default_port: int) -> Iterator[None]:
    """Another program listens where the bus is by default: this test, or whoever had it before."""
    with contextlib.ExitStack() as stack:
        if default_port == 6000:
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed a moment ago is free
            taken.bind(("127.0.0.1", 6000))
            taken.listen()
        yield


async def refused(
    discorder: Command, case: Case, code: int, *words: str, arguments: tuple[str, ...], token: str | None
) -> str:
    """Run `discorder serve` with ``arguments``: it must end with ``code``, say all ``words``, and make no file."""
    outcome = await discorder("serve", *arguments, token=token)
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    said = " ".join(outcome.err.split())
    assert [word for word in words if word not in said] == [], outcome.err
    case.note(note=f"exit code {outcome.code}")
    return said


async def test_26_port_6000_is_taken(
    case: Case, discorder: Command, untouched: Simulator, taken_port_6000: None
) -> None:
    """The default publisher; the error says which endpoint, which key, and what to do."""
    arguments = ("--set", f"gateway.api={untouched.api_url}")
    words = ("tcp://127.0.0.1:6000", "publishers.zmq")
    await refused(discorder, case, 73, *words, arguments=arguments, token=untouched.token)


async def test_26_the_log_file_is_not_writable(
    case: Case, discorder: Command, untouched: Simulator, tmp_path: Path
) -> None:
    """A directory in its place: that nobody can write to, root neither."""
    settings = (f"gateway.api={untouched.api_url}", FREE_PORT, f"log.file={tmp_path}")
    arguments = tuple(word for setting in settings for word in ("--set", setting))
    await refused(discorder, case, 74, str(tmp_path), "log", arguments=arguments, token=untouched.token)


async def test_26_there_is_no_token(case: Case, discorder: Command, untouched: Simulator) -> None:
    """Both ways to give one are named."""
    arguments = ("--set", FREE_PORT, "--set", f"gateway.api={untouched.api_url}")
    await refused(discorder, case, 78, "DISCORD_BOT_TOKEN", "token_file", arguments=arguments, token=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway\n", ("line 1",)),
        ("[gateway]\nintent = 1\n", ("gateway.intent", "did you mean", "intents")),
        ('[gateway]\nfail_on_error = "yes"\n', ("gateway.fail_on_error", "yes", "true")),
        ("[gateway]\nmax_attempts = -1\n", ("gateway.max_attempts", "-1")),
        ('[gateway]\ntoken = "MTIz.a.b"\n', ("gateway.token", "DISCORD_BOT_TOKEN")),
    ],
    ids=["bad TOML", "unknown key", "wrong type", "out of range", "token in the file"],
)
async def test_26_the_configuration_is_wrong(
    case: Case, discorder: Command, untouched: Simulator, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    """`serve` and `check-config` name the file, the key, what it is and what it may be; a token is not repeated."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    said = await refused(
        discorder, case, 78, "bad.toml", *words, arguments=("--config", str(path)), token="MTIz.some.token"
    )
    outcome = await discorder("check-config", str(path), token="MTIz.some.token")
    assert outcome.code == 78
    assert [word for word in words if word not in " ".join(outcome.err.split())] == []
    assert "MTIz.a.b" not in said + outcome.err + outcome.out
