"""Files: the multipart form as Discord takes it, against a server and against the simulator."""

from __future__ import annotations

import email.parser
import email.policy
import json
from pathlib import Path
from typing import Any

import pytest

import discorder
from discorder.rest import BotClient
from discorder.simulator import SentFile, Simulator

MESSAGES = "/channels/{channel_id}/messages"


def parts(seen: Any) -> list[tuple[str, str | None, str, bytes]]:
    """Name, file name, content type and bytes of each part, read by another parser than ours."""
    head = f"Content-Type: {seen.headers['Content-Type']}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + seen.body)
    found = []
    for part in form.iter_parts():
        name = part.get_param("name", header="Content-Disposition")
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        found.append((str(name), part.get_filename(), part.get_content_type(), data))
    return found


async def test_files_are_sent_as_a_form_with_the_json_as_payload_json(client: BotClient, server: Any) -> None:
    picture = discorder.File("cat.png", b"\x89PNG\r\n\x1a\n\x00", "image/png")
    message = {"content": "hé", "attachments": [{"id": 0, "description": "a cat"}]}
    await client.request("POST", MESSAGES, channel_id=1, json=message, files=[picture, ("notes.txt", b"--\r\n--")])
    seen = server.seen[0]
    payload, *files = parts(seen)
    assert (payload[0], payload[2], json.loads(payload[3])) == ("payload_json", "application/json", message)
    assert files == [
        ("files[0]", "cat.png", "image/png", picture.data),
        ("files[1]", "notes.txt", "application/octet-stream", b"--\r\n--"),
    ]
    assert int(seen.headers["Content-Length"]) == len(seen.body)


async def test_files_alone_make_a_form_without_payload_json(client: BotClient, server: Any) -> None:
    await client.request("POST", MESSAGES, channel_id=1, files=[("a.txt", b"1")])
    assert [name for name, *_ in parts(server.seen[0])] == ["files[0]"]


async def test_without_files_the_body_is_json(client: BotClient, server: Any) -> None:
    await client.request("POST", MESSAGES, channel_id=1, json={"content": "x"}, files=[])
    assert server.seen[0].headers["Content-Type"] == "application/json"
    assert server.seen[0].body == b'{"content":"x"}'


async def test_every_try_sends_the_whole_form_again(client: BotClient, server: Any, plays: Any, run: Any) -> None:
    server.script.extend([plays.answer(503, {}), plays.reset, plays.too_many(1.0, "user"), plays.text(502, "bad")])
    data = bytes(range(256)) * 10_000  # more than a mebibyte: the HTTP library would warn of bytes that are that long
    await run(client.request("POST", MESSAGES, channel_id=1, json={"content": "x"}, files=[("a.bin", data)]))
    assert len(server.seen) == 5
    assert {seen.body for seen in server.seen} == {server.seen[0].body}
    assert parts(server.seen[4])[1] == ("files[0]", "a.bin", "application/octet-stream", data)


async def test_what_is_sent_does_not_change_between_two_tries(client: BotClient, server: Any) -> None:
    data: Any = bytearray(b"before")
    file = discorder.File("a", data)
    data[:] = b"after!"
    await client.request("POST", MESSAGES, channel_id=1, files=[file])
    assert parts(server.seen[0])[0][3] == b"before"


@pytest.mark.parametrize(
    ("name", "sent"), [('a"b.txt', "a%22b.txt"), ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"), ("é👍.png", "é👍.png")]
)
async def test_a_name_cannot_break_the_form(client: BotClient, server: Any, name: str, sent: str) -> None:
    await client.request("POST", MESSAGES, channel_id=1, files=[(name, b"1")])
    assert f'name="files[0]"; filename="{sent}"\r\n'.encode() in server.seen[0].body


async def test_a_file_is_read_from_the_disk(client: BotClient, server: Any, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"line\n")
    file = await discorder.File.read(tmp_path / "log.txt", "text/plain")
    assert file == discorder.File("log.txt", b"line\n", "text/plain")
    with pytest.raises(FileNotFoundError):
        await discorder.File.read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("method", "files", "error", "complaint"),
    [
        ("GET", [("a", b"1")], ValueError, "files: GET takes none"),
        ("POST", ["a.txt"], TypeError, "not str"),
        ("POST", "a.txt", TypeError, "files: a list"),
        ("POST", discorder.File("a", b"1"), TypeError, "files: a list"),
        ("POST", [("a", "text")], TypeError, "name .str. and data .bytes., not str and str"),
        ("POST", [("", b"1")], ValueError, "needs a name"),
        ("POST", [("a", b"1", "text/plain\r\nX: 1")], ValueError, "content type"),
        ("POST", [("a", b"1", "b", "c")], TypeError, "not tuple"),
    ],
)
async def test_what_is_no_file_is_named(
    client: BotClient, server: Any, method: str, files: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        await client.request(method, MESSAGES, channel_id=1, files=files)
    assert server.seen == []


def test_a_files_repr_does_not_show_its_data() -> None:
    assert repr(discorder.File("a", b"1")) == "File(filename='a', content_type='application/octet-stream')"


async def test_a_bot_sends_files_to_the_simulator() -> None:
    async with Simulator(guilds=1) as sim, BotClient(sim.token, api=sim.api_url) as client:
        channel = 1345205174045638728  # #general of guild 0
        answer = await client.request(
            "POST", MESSAGES, channel_id=channel, json={"content": "look"}, files=[("a.txt", b"data", "text/plain")]
        )
        assert answer["content"] == "look"
        assert sim.rest_requests[0].files == (SentFile("files[0]", "a.txt", "text/plain", b"data"),)
        answer = await client.request("POST", MESSAGES, channel_id=channel, files=[("a.txt", b"data")])
        assert [(each["filename"], each["size"]) for each in answer["attachments"]] == [("a.txt", 4)]
