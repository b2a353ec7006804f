"""Who can connect to the bus: only local clients by default; with CURVE, clients whose keys are listed."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zmq

from discorder.bot.commands import Commands
from discorder.bot.subscriber import CurveKeys, subscribe
from discorder.curve import generate, load_pair
from discorder.errors import CommandRefused, ConfigError, UnusableFile
from discorder.paths import DEFAULT_ADDRESS
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event

MakeEvent = Callable[..., Event]
SECONDS = 20.0
LOOPBACK = {"127.0.0.1", "::1"}


def listening() -> Iterator[tuple[str, int]]:
    """Return address and port of each TCP socket on which this process listens, from the sockets: the kernel's table changes."""
    for link in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(link.name))) as copy:
                listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and copy.family in {socket.AF_INET, socket.AF_INET6}:
                    yield copy.getsockname()[:2]
        except OSError:
            continue  # not a socket, or the descriptor that lists the folder


async def those_left(
    before: set[tuple[str, int]], expected: Callable[[set[tuple[str, int]]], bool]
) -> set[tuple[str, int]]:
    """Return the listeners other than ``before`` once they are ``expected``, or after five seconds.

    If the neighbour of a tried port is taken, ZeroMQ's thread closes the port asynchronously.
    """
    deadline = time.monotonic() + 5.0
    while not expected(opened := set(listening()) - before) and time.monotonic() < deadline:  # noqa: ASYNC110  # a thread
        await asyncio.sleep(0.01)
    return opened


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which sockets listen")
async def test_nothing_listens_for_other_hosts_by_default() -> None:
    before = set(listening())
    bus = ZmqPublisher(DEFAULT_ADDRESS.replace("6000", "0"))  # the default, on a free port
    await bus.open()
    ports = {int(endpoint.rpartition(":")[2]) for endpoint in (*bus.endpoints, bus.replay_endpoint)}
    opened = await those_left(before, lambda opened: {port for _, port in opened} == ports)
    assert {port for _, port in opened} == ports
    assert {address for address, _ in opened} <= LOOPBACK
    await bus.close()
    assert await those_left(before, lambda opened: not opened) == set()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the key pairs of a bus, of an allowed bot, and of one that is not allowed."""
    for name in ("bus", "bot", "stranger"):
        generate(tmp_path / name)
    return tmp_path


def public(keys: Path, name: str) -> str:
    return load_pair(keys / f"{name}.key_secret", "test").public.decode()


@pytest.fixture
async def bus(keys: Path) -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher(
        "tcp://127.0.0.1:0",
        curve_secret_file=str(keys / "bus.key_secret"),
        curve_clients=[public(keys, "bot")],
    )
    await made.open()
    yield made
    await made.close()


async def test_a_bot_whose_key_is_listed_reads_and_asks(bus: ZmqPublisher, keys: Path, make_event: MakeEvent) -> None:
    curve = CurveKeys(public(keys, "bus"), keys / "bot.key_secret")
    bus.publish_nowait([make_event(1, "READY"), make_event(2)])
    async with subscribe(bus.endpoints[0], start="oldest", keys=curve) as events, asyncio.timeout(SECONDS):
        assert [(await anext(events)).type for _ in range(2)] == ["READY", "MESSAGE_CREATE"]
        bus.publish_nowait([make_event(3)])
        assert (await anext(events)).type == "MESSAGE_CREATE"
    async with Commands(bus.endpoints[0], keys=curve) as commands:
        assert (await commands.ask("positions"))["shards"]


@pytest.mark.parametrize("who", ["stranger", "nobody"])
async def test_a_bot_whose_key_is_not_listed_gets_nothing(
    bus: ZmqPublisher, keys: Path, make_event: MakeEvent, who: str
) -> None:
    curve = CurveKeys(public(keys, "bus"), keys / "stranger.key_secret") if who == "stranger" else None
    async with subscribe(bus.endpoints[0], start="oldest", keys=curve) as events:
        reading = asyncio.create_task(anext(events))
        async with Commands(bus.endpoints[0], keys=curve, timeout=1.0) as commands:
            with pytest.raises(CommandRefused, match="no answer"):
                await commands.presence(status="idle")
        bus.publish_nowait([make_event(1)])
        assert bus.subscriptions == 0
        assert not reading.done()
        reading.cancel()


def test_an_address_that_other_hosts_reach_is_fine_with_keys(keys: Path) -> None:
    ZmqPublisher("tcp://*:6000", curve_secret_file=str(keys / "bus.key_secret"), curve_clients=[public(keys, "bot")])


def test_half_of_it_is_refused(keys: Path) -> None:
    with pytest.raises(ConfigError, match="curve_secret_file and curve_clients go together"):
        ZmqPublisher(curve_secret_file=str(keys / "bus.key_secret"))
    with pytest.raises(ConfigError, match="curve_secret_file and curve_clients go together"):
        ZmqPublisher(curve_clients=[public(keys, "bot")])
    with pytest.raises(ConfigError, match=r"curve_clients: 'bot\.key' is not a public key"):
        ZmqPublisher(curve_secret_file="bus.key_secret", curve_clients=["bot.key"])


async def test_a_key_file_that_cannot_be_used_is_named(keys: Path) -> None:
    clients = [public(keys, "bot")]
    for name, reason in (("missing", "is no key file"), ("bot.key", "holds no secret key")):
        (keys / "bot.key").chmod(0o600)
        bus = ZmqPublisher("tcp://127.0.0.1:0", curve_secret_file=str(keys / name), curve_clients=clients)
        with pytest.raises(ConfigError, match=rf"publishers\.zmq\.curve_secret_file: .*{name} {reason}"):
            await bus.open()
    (keys / "bus.key_secret").chmod(0o640)
    bus = ZmqPublisher("tcp://127.0.0.1:0", curve_secret_file=str(keys / "bus.key_secret"), curve_clients=clients)
    with pytest.raises(ConfigError, match="can be read by others than its owner; chmod 600"):
        await bus.open()


def test_key_files_are_as_private_as_they_should_be(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        public_file, secret_file, key = generate(tmp_path / "bus")
    finally:
        os.umask(previous)
    assert secret_file.stat().st_mode & 0o777 == 0o600
    assert public_file.stat().st_mode & 0o777 == 0o644
    pair = load_pair(secret_file, "test")
    assert pair.public.decode() == key
    assert pair.secret.decode() not in public_file.read_text()
    assert repr(pair) == f"KeyPair(public={key!r})"
    assert zmq.curve_public(pair.secret) == pair.public


def test_keys_are_never_written_over(tmp_path: Path) -> None:
    _, secret_file, _ = generate(tmp_path / "bus")
    before = secret_file.read_text()
    with pytest.raises(ConfigError, match="exists; choose another name"):
        generate(tmp_path / "bus")
    assert secret_file.read_text() == before
    with pytest.raises(UnusableFile, match="cannot be written"):
        generate(tmp_path / "no-such-folder" / "bus")


def test_a_bot_is_told_what_is_wrong_with_its_keys(keys: Path) -> None:
    with pytest.raises(ValueError, match="40 characters of Z85; this has 5"):
        subscribe(keys=CurveKeys("short", keys / "bot.key_secret"))
    with pytest.raises(ValueError, match=r"missing is no key file .* discorder keygen NAME writes one"):
        subscribe(keys=CurveKeys(public(keys, "bus"), keys / "missing"))
    (keys / "bot.key").chmod(0o600)
    with pytest.raises(ValueError, match=r"bot\.key holds no secret key"):
        subscribe(keys=CurveKeys(public(keys, "bus"), keys / "bot.key"))
    (keys / "bot.key_secret").chmod(0o640)
    with pytest.raises(ValueError, match=r"can be read by others than its owner; chmod 600"):
        subscribe(keys=CurveKeys(public(keys, "bus"), keys / "bot.key_secret"))
