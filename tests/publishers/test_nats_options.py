"""The configuration of the publisher ``nats``: defaults, what is refused and how, TLS, log-ins, and a missing library."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme

from discorder.config import load_config
from discorder.config.report import describe
from discorder.errors import ConfigError
from discorder.publishers import registry
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.wire import Event
from tests.publishers.nats_server import NatsServer

MakeEvent = Callable[..., Event]


@pytest.mark.parametrize(
    ("table", "required", "policy"),
    [
        ({}, True, Overflow.BLOCK),
        ({"required": False}, False, Overflow.DROP_OLDEST),
        ({"overflow": "drop_newest"}, False, Overflow.DROP_NEWEST),
        ({"overflow": "block"}, True, Overflow.BLOCK),
        ({"mode": "core"}, False, Overflow.DROP_OLDEST),
    ],
)
def test_a_stream_is_required_unless_the_table_says_otherwise(
    table: dict[str, object], required: bool, policy: Overflow
) -> None:
    publisher, options = registry.build("nats", table)
    assert (options.required, options.policy, publisher.durable) == (required, policy, table.get("mode") != "core")


BAD: list[tuple[dict[str, object], str]] = [
    ({"mode": "core", "required": True}, r"required: what NatsPublisher accepted does not survive"),
    ({"mode": "core", "durability": "sync"}, r'durability: mode "core" stores nothing; remove the key'),
    ({"durability": "disk"}, r'durability: .*allowed: "acks" or "sync"'),
    ({"mode": "stream"}, r'mode: .*allowed: "jetstream" or "core"'),
    ({"servers": "tcp://127.0.0.1:4222"}, r"servers: 'tcp://127\.0\.0\.1:4222' is no URL of a NATS server"),
    ({"servers": "nats://"}, r"servers: 'nats://' is no URL of a NATS server"),
    ({"servers": "nats://127.0.0.1:99999"}, r"servers: 'nats://127\.0\.0\.1:99999' is no URL"),
    ({"servers": []}, r"servers: no server is named"),
    (
        {"servers": "nats://bot:hunter2@nats.example:4222"},
        r"servers: the connection to nats://nats\.example:4222 would carry every event .* set publishers\.nats\.insecure",
    ),
    ({"prefix": "discord.>"}, r"prefix: 'discord\.>' is not allowed"),
    ({"prefix": "discord."}, r"prefix: 'discord\.' is not allowed"),
    ({"stream": "A.B"}, r"stream: 'A\.B' is not allowed"),
    ({"duplicate_window": 10, "stream_seconds": 5}, r"duplicate_window: 10 is more than stream_seconds \(5\)"),
    ({"replicas": 6}, r"replicas: .*allowed: 1 to 5"),
    ({"tls_cert_file": "cert.pem"}, r"tls_cert_file and publishers\.nats\.tls_key_file belong together"),
]


@pytest.mark.parametrize(("table", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_a_bad_value_is_an_error_that_names_key_and_remedy(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^publishers\.nats\.{complaint}") as caught:
        registry.build("nats", table)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"servers": ("nats://127.0.0.1:4222", "nats://[::1]:4222", "nats://localhost")},
        {"servers": "tls://nats.example:4222"},
        {"servers": "nats://nats.example:4222", "tls_ca_file": "ca.pem"},
        {"servers": "nats://nats.example:4222", "insecure": True},
    ],
)
def test_only_an_unencrypted_connection_to_another_host_needs_insecure(settings: dict[str, Any]) -> None:
    assert isinstance(registry.build("nats", settings)[1], DeliveryOptions)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("discorder.publishers.nats")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    with pytest.raises(
        ConfigError, match=r"publishers\.bus\.kind: 'nats' needs the package nats.*pip install 'discorder\[nats\]'"
    ):
        registry.build("bus", {"kind": "nats"})


def test_what_would_run_is_described_without_passwords() -> None:
    servers = '["nats://bot:hunter2@127.0.0.1:1", "tls://bot:p@hunter2@nats.example"]'
    text = describe(
        load_config(
            None, [f"publishers.nats.servers={servers}", "publishers.zmq={bind='ipc://@discorder', insecure=true}"]
        )
    )
    assert "('nats://127.0.0.1:1', 'tls://nats.example')" in text
    assert "ipc://@discorder" in text
    assert "hunter2" not in text
    with pytest.raises(ConfigError, match=r"^publishers\.nats\.servers") as caught:
        registry.build("nats", {"servers": ["nats://bot:hunter2@127.0.0.1:1", 5]})
    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------- TLS and log-ins


async def test_tls_with_a_certificate_authority_and_a_client_certificate(tmp_path: Path, make_event: MakeEvent) -> None:
    """The server of the test accepts only clients with a certificate. Another authority is refused, with the key to check."""
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "server", "server_key", "client", "client_key", "other")}
    authority.cert_pem.write_to_path(files["ca"])
    trustme.CA().cert_pem.write_to_path(files["other"])
    for name in ("server", "client"):
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(files[name])
        issued.private_key_pem.write_to_path(files[f"{name}_key"])
    tls = (
        f"tls {{ cert_file: {files['server']}, key_file: {files['server_key']}, ca_file: {files['ca']}, verify: true }}"
    )
    server = NatsServer(tmp_path / "nats", tls, jetstream=False)
    server.start()
    access = {
        "servers": server.url,
        "prefix": "discord.7",
        "tls_cert_file": str(files["client"]),
        "tls_key_file": str(files["client_key"]),
    }
    try:
        publisher = NatsPublisher(mode="core", tls_ca_file=str(files["ca"]), **access)  # type: ignore[arg-type]
        await publisher.open()
        await publisher.publish([make_event(1)])
        await publisher.close()
        distrusting = NatsPublisher(mode="core", tls_ca_file=str(files["other"]), **access)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"no TLS connection .*check tls_ca_file"):
            await distrusting.open()
    finally:
        server.kill()
    missing = NatsPublisher(mode="core", tls_ca_file=str(tmp_path / "none.pem"), **access)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"^publishers\.nats\.tls_ca_file: /.*none\.pem: .*name a PEM file that can be read"
    ):
        await missing.open()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(tmp_path: Path, make_event: MakeEvent) -> None:
    server = NatsServer(tmp_path / "nats", "authorization { user: bot, password: hunter2 }", jetstream=False)
    server.start()
    try:
        right = NatsPublisher(f"nats://bot:hunter2@127.0.0.1:{server.port}", mode="core", prefix="discord.7")
        await right.open()
        await right.publish([make_event(1)])
        await right.close()
        wrong = NatsPublisher(f"nats://bot:hunter3@127.0.0.1:{server.port}", mode="core", prefix="discord.7")
        with pytest.raises(
            ConfigError, match=r"^publishers\.nats: NATS refused the login .*check credentials_file"
        ) as caught:
            await wrong.open()
        assert "hunter" not in str(caught.value)
    finally:
        server.kill()


async def test_a_log_in_with_a_file_of_credentials(tmp_path: Path, make_event: MakeEvent) -> None:
    operator, account, user = (Identity(prefix) for prefix in (b"O", b"A", b"U"))
    no_limits = {
        "subs": -1,
        "conn": -1,
        "leaf": -1,
        "imports": -1,
        "exports": -1,
        "data": -1,
        "payload": -1,
        "wildcards": True,
    }
    of_operator = operator.signs(operator, {"type": "operator", "version": 2})
    of_account = operator.signs(account, {"type": "account", "version": 2, "limits": no_limits})
    of_user = account.signs(
        user, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    )
    credentials = tmp_path / "bot.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    resolver = f"resolver: MEMORY\nresolver_preload: {{ {account.public}: {of_account} }}"
    server = NatsServer(tmp_path / "nats", f"operator: {of_operator}", resolver, jetstream=False)
    server.start()
    try:
        publisher = NatsPublisher(server.url, mode="core", prefix="discord.7", credentials_file=str(credentials))
        await publisher.open()
        await publisher.publish([make_event(1)])
        await publisher.close()
        with pytest.raises(ConfigError, match="NATS refused the login"):
            await NatsPublisher(server.url, mode="core", prefix="discord.7").open()
        absent = NatsPublisher(
            server.url, mode="core", prefix="discord.7", credentials_file=str(tmp_path / "none.creds")
        )
        with pytest.raises(ConfigError, match=r"^publishers\.nats\.credentials_file: .*none\.creds"):
            await absent.open()
        torn = tmp_path / "torn.creds"
        torn.write_text(credentials.read_text().partition("-----BEGIN USER")[0])
        half = NatsPublisher(server.url, mode="core", prefix="discord.7", credentials_file=str(torn))
        with pytest.raises(
            ConfigError, match=r"torn\.creds has no NATS USER JWT and USER NKEY SEED; name the \.creds file"
        ):
            await half.open()
    finally:
        server.kill()


class Identity:
    """One key pair of NATS' decentralized log-ins. ``kind``: O, A or U."""

    def __init__(self, kind: bytes) -> None:
        prefix = {b"O": nkeys.PREFIX_BYTE_OPERATOR, b"A": nkeys.PREFIX_BYTE_ACCOUNT, b"U": nkeys.PREFIX_BYTE_USER}[kind]
        self.seed = nkeys.encode_seed(kind * 32, prefix)
        self.pair: Any = nkeys.from_seed(bytearray(self.seed))
        self.public = str(self.pair.public_key.decode())

    def signs(self, subject: Identity, claims: dict[str, object]) -> str:
        """Return a JWT about ``subject``."""
        now = int(datetime.now(UTC).timestamp())
        body = {
            "jti": subject.public,
            "iat": now,
            "iss": self.public,
            "sub": subject.public,
            "name": "test",
            "nats": claims,
        }
        parts = [_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        signature = self.pair.sign(".".join(parts).encode())
        return ".".join((*parts, _encoded(signature)))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
