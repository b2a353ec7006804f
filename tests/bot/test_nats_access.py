"""Who may read a NATS stream and send commands: the permissions that docs/buses.md names are enough, and TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import discorder
from discorder.errors import CommandRefused, ConfigError, SubscriptionFailed
from tests.bot.nats_streams import events, publish, publisher, seqs, take
from tests.publishers.nats_server import NatsServer

READER = ("STREAM.LIST", "STREAM.INFO.discord_7", "CONSUMER.CREATE.discord_7.>", "CONSUMER.MSG.NEXT.discord_7.>")
WORKER = (
    *READER,
    *(
        "CONSUMER.NAMES.discord_7",
        "CONSUMER.INFO.discord_7.>",
        "CONSUMER.UNPIN.discord_7.>",
        "STREAM.MSG.GET.discord_7",
    ),
)


def user(name: str, *subjects: str) -> str:
    listed = ", ".join(f'"{subject}"' for subject in subjects)
    may = f'{{ publish: [{listed}], subscribe: ["_INBOX.>"] }}'
    return f"{{ user: {name}, password: secret, permissions: {may} }}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with one user for each part that somebody may have."""
    users = [
        "{ user: plane, password: secret }",
        user("reader", *(f"$JS.API.{one}" for one in READER)),
        user("worker", *(f"$JS.API.{one}" for one in WORKER), "$JS.ACK.discord_7.>", "_INBOX.discorder.>"),
        user("commander", "$JS.API.STREAM.LIST", "discord.7.command"),
    ]
    made = NatsServer(tmp_path / "nats", f"authorization {{ users: [ {', '.join(users)} ] }}")
    made.start()
    yield made
    made.kill()


def url(server: NatsServer, name: str) -> str:
    return server.url.replace("//", f"//{name}:secret@")


class Desk:
    """Takes every command."""

    feed = None

    async def command(self, name: str, d: object, **how: object) -> dict[str, object]:
        return {"did": name}

    def last_ready(self, shard: int) -> None:
        return None

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        raise ValueError(door)


async def test_the_documented_permissions_are_enough_and_a_reader_sends_no_command(server: NatsServer) -> None:
    plane = publisher(server, servers=url(server, "plane"), commands=True)
    plane.answer_from(Desk())
    await plane.open()
    await publish(plane, events(1, 3))
    async with discorder.subscribe(url(server, "reader"), start="oldest") as reading:
        assert await seqs(reading, 3) == [1, 2, 3]
    async with discorder.subscribe(url(server, "worker"), group="workers", start="oldest") as reading:
        assert await seqs(reading, 2) == [1, 2]
    async with discorder.subscribe(url(server, "worker"), group="workers") as reading:
        assert await seqs(reading, 2) == [2, 3]  # given back, without a wait
    async with discorder.Commands(url(server, "commander")) as commands:
        assert (await commands.send("presence", {}))["did"] == "presence"
    async with discorder.Commands(url(server, "worker"), timeout=1.0) as commands:
        with pytest.raises(CommandRefused) as refused:
            await commands.presence()
        assert refused.value.reason == "no_answer"
    await plane.close()


async def test_the_documented_permissions_of_the_publisher_are_enough(tmp_path: Path) -> None:
    """They do not include the look for another stream with its subjects: the error does not name it then."""
    subjects = [f"$JS.API.STREAM.{what}.*" for what in ("INFO", "CREATE", "MSG.GET")]
    server = NatsServer(
        tmp_path / "nats", f"authorization {{ users: [ {user('bot', 'discord.7.>', '_INBOX.>', *subjects)} ] }}"
    )
    server.start()
    try:
        for batch in (events(1, 2), events(2, 3)):
            plane = publisher(server, servers=url(server, "bot"))
            await plane.open()
            await publish(plane, batch)
            await plane.close()
        other = publisher(server, servers=url(server, "bot"), stream="OTHER")
        with pytest.raises(ConfigError, match="another stream has these subjects; set another prefix"):
            await other.open()
        await other.close()
    finally:
        server.kill()


def test_the_permissions_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "buses.md").read_text()
    section = text[text.index("## Read from NATS") : text.index("### Commands")]
    for subject in WORKER:
        assert (
            subject.replace("discord_7", "STREAM").replace("CONSUMER.INFO", ".INFO").replace("CONSUMER.UNPIN", ".UNPIN")
            in section
        ), subject


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    server = NatsServer(
        tmp_path / "nats", f"tls {{ cert_file: {tmp_path}/server.pem, key_file: {tmp_path}/server.pem }}"
    )
    server.start()
    try:
        plane = publisher(server, tls_ca_file=str(tmp_path / "ca.pem"))
        await plane.open()
        await publish(plane, events(1, 2))
        secured = server.url.replace("nats:", "tls:")
        async with discorder.subscribe(f"{secured}?tls_ca_file={tmp_path}/ca.pem", start="oldest") as reading:
            assert await seqs(reading, 2) == [1, 2]
        async with discorder.subscribe(f"{secured}?tls_ca_file={tmp_path}/other.pem") as reading:
            with pytest.raises(SubscriptionFailed, match=r"no TLS connection .*check tls_ca_file"):
                await take(reading, 1)
        async with discorder.subscribe(f"{secured}?tls_ca_file={tmp_path}/none.pem") as reading:
            with pytest.raises(SubscriptionFailed, match=r"^tls_ca_file: /.*none\.pem: .*name a PEM file"):
                await take(reading, 1)
        await plane.close()
    finally:
        server.kill()
