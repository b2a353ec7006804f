"""When `discorder tail` hints that the intent message_content is missing."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from discorder.cli.tail import lacks_content
from discorder.wire import ReceivedEvent


@pytest.mark.parametrize(
    ("type_", "data", "expected"),
    [
        ("MESSAGE_CREATE", b'{"guild_id":"1","type":0,"content":"","embeds":[],"attachments":[]}', True),
        ("MESSAGE_CREATE", b'{"guild_id":"1","type":0,"content":"hi"}', False),
        ("MESSAGE_CREATE", b'{"guild_id":"1","type":0,"content":"","attachments":[{}]}', False),
        ("MESSAGE_CREATE", b'{"guild_id":"1","type":7,"content":""}', False),
        ("MESSAGE_CREATE", b'{"type":0,"content":""}', False),
        ("MESSAGE_CREATE", b'"odd"', False),
        ("TYPING_START", b'{"guild_id":"1"}', False),
    ],
)
def test_a_guild_message_without_anything_in_it(type_: str, data: bytes, expected: bool) -> None:
    event = ReceivedEvent(type_, (0, 1), 1, 0, "s", datetime.now(UTC), msgspec.Raw(data))
    assert lacks_content(event) is expected
