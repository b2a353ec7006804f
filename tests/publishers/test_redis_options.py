"""The configuration of the publisher ``redis``: defaults, what is refused and how, TLS, log-ins, and a missing library."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from discorder.config import load_config
from discorder.config.report import describe
from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.publishers import registry
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.wire import Event
from tests.publishers.nats_server import NatsServer, in_thread
from tests.publishers.redis_server import RedisServer, client_of, read_stream

MakeEvent = Callable[..., Event]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.kill()


@pytest.mark.parametrize(
    ("table", "required", "policy"),
    [
        ({}, True, Overflow.BLOCK),
        ({"required": False}, False, Overflow.DROP_OLDEST),
        ({"overflow": "drop_newest"}, False, Overflow.DROP_NEWEST),
        ({"overflow": "block"}, True, Overflow.BLOCK),
    ],
)
def test_it_is_required_unless_the_table_says_otherwise(
    table: dict[str, object], required: bool, policy: Overflow
) -> None:
    publisher, options = registry.build("redis", {"maxlen": 10, **table})
    assert (options.required, options.policy, publisher.durable) == (required, policy, required)


BAD: list[tuple[dict[str, object], str]] = [
    ({"maxlen": 0}, r"maxlen: .*allowed: an integer from 1 to"),
    ({"url": "valkey://127.0.0.1"}, r"url: 'valkey://127\.0\.0\.1' is no URL of a Redis server; allowed: redis://HOST"),
    ({"url": "redis://"}, r"url: 'redis://' is no URL"),
    ({"url": "redis://127.0.0.1:99999"}, r"url: 'redis://127\.0\.0\.1:99999' is no URL"),
    ({"url": "redis://:hunter2@127.0.0.1/first"}, r"url: 'redis://127\.0\.0\.1/first' is no URL"),
    ({"url": "rediss://127.0.0.1?ssl_cert_reqs=none"}, r"url: 'rediss://127\.0\.0\.1\?ssl_cert_reqs=none' is no URL"),
    (
        {"url": "redis://bot:hunter2@redis.example"},
        r"url: the connection to redis://redis\.example would carry every event .*set publishers\.redis\.insecure = true",
    ),
    ({"prefix": "discord:"}, r"prefix: 'discord:' is not allowed"),
    ({"prefix": "discord.7"}, r"prefix: 'discord\.7' is not allowed"),
    ({"tls_cert_file": "cert.pem"}, r"tls_cert_file and publishers\.redis\.tls_key_file belong together"),
    ({"tls_ca_file": "ca.pem"}, r"url: redis://127\.0\.0\.1:6379 is not encrypted, .*write rediss://"),
]


@pytest.mark.parametrize(("table", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_a_bad_value_is_an_error_that_names_key_and_remedy(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^publishers\.redis\.{complaint}") as caught:
        registry.build("redis", {"maxlen": 10, **table})
    assert "hunter2" not in str(caught.value)


def test_maxlen_must_be_set() -> None:
    """A stream without a limit fills the memory of the server."""
    with pytest.raises(ConfigError, match=r"^publishers\.redis\.maxlen is missing; it must be an integer from 1"):
        registry.build("redis", {})


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "redis://[::1]:6379/2"},
        {"url": "redis://localhost"},
        {"url": "rediss://redis.example:6380"},
        {"url": "rediss://redis.example", "tls_ca_file": "ca.pem"},
        {"url": "redis://redis.example", "insecure": True},
    ],
)
def test_only_an_unencrypted_connection_to_another_host_needs_insecure(settings: dict[str, Any]) -> None:
    assert isinstance(registry.build("redis", {"maxlen": 10, **settings})[1], DeliveryOptions)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("discorder.publishers.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(
        ConfigError, match=r"publishers\.bus\.kind: 'redis' needs the package redis.*pip install 'discorder\[redis\]'"
    ):
        registry.build("bus", {"kind": "redis", "maxlen": 10})


def test_what_would_run_is_described_without_passwords() -> None:
    text = describe(load_config(None, ["publishers.redis={maxlen=10, url='rediss://bot:hunter2@redis.example/3'}"]))
    assert "rediss://redis.example/3" in text
    assert "hunter2" not in text


# ---------------------------------------------------------------- what the server keeps


WEAK: list[tuple[dict[str, str], str]] = [
    ({"appendonly": "no"}, "the server has no append-only file, .*set appendonly yes"),
    (
        {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"},
        r"the server drops whole streams when its memory is full \(maxmemory-policy allkeys-lru\); set maxmemory-policy noev",
    ),
]


@pytest.mark.parametrize("user", ["default on nopass ~* &* +@all", "default on nopass ~* &* +@all -config"])
@pytest.mark.parametrize(("settings", "complaint"), WEAK, ids=["no file", "evicting"])
async def test_a_server_that_may_lose_events_is_refused_where_they_are_required(
    tmp_path: Path, settings: dict[str, str], complaint: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By CONFIG GET, and by INFO where that is forbidden. Where nothing is required, a warning says the same."""
    weak = RedisServer(tmp_path / "weak", **{"user": user, **settings})
    weak.start()
    try:
        with pytest.raises(ConfigError, match=rf"^publishers\.redis\.required: {complaint}.*required = false"):
            await RedisPublisher(weak.url, maxlen=10, prefix="discord:7").open()
        best_effort = RedisPublisher(weak.url, maxlen=10, prefix="discord:7", durable=False)
        await best_effort.open()
        await best_effort.close()
        assert len(caplog.records) == 1
        assert caplog.records[0].getMessage().startswith("Publisher redis: the server ")
    finally:
        weak.kill()


@pytest.mark.parametrize(
    "settings",
    [{"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, {"maxmemory_policy": "allkeys-lru"}],
    ids=["keys with an expiry only", "no limit"],
)
async def test_a_policy_that_cannot_drop_a_stream_is_accepted(tmp_path: Path, settings: dict[str, str]) -> None:
    fine = RedisServer(tmp_path / "fine", **settings)
    fine.start()
    try:
        publisher = RedisPublisher(fine.url, maxlen=10, prefix="discord:7")
        await publisher.open()
        await publisher.close()
    finally:
        fine.kill()


async def test_a_server_that_does_not_say_is_refused_with_the_remedy(tmp_path: Path) -> None:
    silent = RedisServer(tmp_path / "silent", user="default on nopass ~* &* +@all -config -info")
    silent.start()
    try:
        with pytest.raises(
            ConfigError, match=r"does not say how it keeps its data; allow its user CONFIG GET .*\+info"
        ):
            await RedisPublisher(silent.url, maxlen=10, prefix="discord:7").open()
    finally:
        silent.kill()


async def test_a_server_that_comes_back_without_its_file_is_used_and_logged(
    tmp_path: Path, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    """While the control plane runs, events matter more than the promise."""
    changed = RedisServer(tmp_path / "changed")
    changed.start()
    publisher = RedisPublisher(changed.url, maxlen=10, prefix="discord:7")
    try:
        await publisher.open()
        changed.kill()
        changed.settings["appendonly"] = "no"
        await in_thread(changed.start)
        with pytest.raises(PublisherError, match="Connection closed by server"):
            await publisher.publish([make_event(1)])
        await publisher.publish([make_event(1)])
        assert "Publisher redis: the server has no append-only file" in caplog.text
        assert len(await read_stream(changed, "discord:7:1:0")) == 1
    finally:
        await publisher.close()
        changed.kill()


# ---------------------------------------------------------------- TLS and log-ins


@asynccontextmanager
async def encrypted(server: RedisServer, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Yield the port of a door to ``server`` that speaks TLS: the test server itself was built without it."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    door = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with door:
        yield door.sockets[0].getsockname()[1]


async def test_tls_with_a_certificate_authority_and_a_client_certificate(
    server: RedisServer, tmp_path: Path, make_event: MakeEvent
) -> None:
    """The server of the test accepts only clients with a certificate. Another authority is refused, with the key to check."""
    authority = trustme.CA()
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "client", "client_key", "other")}
    authority.cert_pem.write_to_path(files["ca"])
    trustme.CA().cert_pem.write_to_path(files["other"])
    client = authority.issue_cert("bot.example")
    client.cert_chain_pems[0].write_to_path(files["client"])
    client.private_key_pem.write_to_path(files["client_key"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with encrypted(server, context) as port:
        access: dict[str, Any] = {
            "url": f"rediss://127.0.0.1:{port}",
            "prefix": "discord:tls",
            "maxlen": 10,
            "tls_cert_file": files["client"],
            "tls_key_file": files["client_key"],
        }
        publisher = RedisPublisher(**access, tls_ca_file=files["ca"])
        await publisher.open()
        await publisher.publish([make_event(1)])
        await publisher.close()
        with pytest.raises(ConfigError, match=r"^publishers\.redis: no TLS connection .*check tls_ca_file"):
            await RedisPublisher(**access, tls_ca_file=files["other"]).open()
        with pytest.raises(ConfigError, match=r"^publishers\.redis\.tls_ca_file: .*name a PEM file that can be read"):
            await RedisPublisher(**access, tls_ca_file=str(tmp_path / "none.pem")).open()
        with pytest.raises(PublisherUnreachable, match="If it has TLS, write rediss://"):
            await RedisPublisher(url=f"redis://127.0.0.1:{port}", prefix="discord:tls", maxlen=10).open()
    with pytest.raises(PublisherUnreachable, match=r"no answer in time.*If it has no TLS, write redis://"):
        await RedisPublisher(url=server.url.replace("redis", "rediss"), prefix="discord:tls", maxlen=10).open()
    assert len(await read_stream(server, "discord:tls:1:0")) == 1


async def test_a_wrong_password_is_an_error_that_does_not_show_it(tmp_path: Path, make_event: MakeEvent) -> None:
    """The user may do only what the documentation says."""
    rights = "~discord:7:* +multi +exec +xadd +xinfo|stream +xrange +xrevrange +hset +hmget +sadd +info +client|setname"
    guarded = RedisServer(tmp_path / "guarded")
    guarded.start()
    async with client_of(guarded) as client:
        await client.execute_command("ACL", "SETUSER", "bot", "on", ">p@ss:word", *rights.split())
        await client.config_set("requirepass", "hunter1")
    try:
        publisher = RedisPublisher(f"redis://bot:p%40ss%3Aword@127.0.0.1:{guarded.port}", maxlen=10, prefix="discord:7")
        await publisher.open()
        await publisher.publish([make_event(1), make_event(2)])
        await publisher.close()
        await publisher.open()
        await publisher.publish([make_event(2), make_event(3)])
        await publisher.close()
        for login in ("bot:hunter2@", ""):
            wrong = RedisPublisher(f"redis://{login}127.0.0.1:{guarded.port}", maxlen=10, prefix="discord:7")
            with pytest.raises(ConfigError, match="check user and password") as caught:
                await wrong.open()
            assert "hunter2" not in str(caught.value)
    finally:
        guarded.kill()


async def test_a_database_that_the_server_does_not_have(server: RedisServer) -> None:
    with pytest.raises(
        ConfigError, match=r"^publishers\.redis\.url: the server has no database 99 .*choose one from 0 on"
    ):
        await RedisPublisher(url=f"{server.url}/99", prefix="discord:7", maxlen=10).open()


@pytest.mark.parametrize(("scheme", "what"), [("redis", "Redis"), ("rediss", "TLS")])
async def test_a_server_of_nats_at_the_address(tmp_path: Path, scheme: str, what: str) -> None:
    """Its banner is not repeated."""
    other = NatsServer(tmp_path / "nats")
    other.start()
    try:
        url = other.url.replace("nats", scheme)
        with pytest.raises(
            (PublisherUnreachable, ConfigError), match=f"what answers at {url} does not speak {what};"
        ) as caught:
            await RedisPublisher(url=url, prefix="discord:7", maxlen=10).open()
        assert "INFO" not in str(caught.value)
    finally:
        other.kill()


async def test_each_bot_may_have_a_database_of_its_own(server: RedisServer, make_event: MakeEvent) -> None:
    publisher = RedisPublisher(f"{server.url}/3", maxlen=10, prefix="discord:db")
    await publisher.open()
    await publisher.publish([make_event(1)])
    await publisher.close()
    assert await read_stream(server, "discord:db:1:0") == []
    async with client_of(server, db=3) as client:
        assert await client.xlen("discord:db:1:0") == 1
