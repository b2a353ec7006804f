"""docs/bus.md describes the protocol as it is: every request, every error, every number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import tomli

from discorder import errors
from discorder.bot import bus, progress, replays
from discorder.bot.contiguity import HELD_BYTES, HELD_EVENTS
from discorder.config import load_config
from discorder.curve import generate
from discorder.facade import reports
from discorder.outbound.checks import COMMANDS
from discorder.publishers.zeromq import following, protocol, publisher, router, running_commands
from discorder.publishers.zeromq import replays as served

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "bus.md").read_text()


def first_column(heading: str) -> set[str]:
    """Return the words in the first column of the table whose heading begins with this."""
    return {match[1] for match in re.finditer(r"^\| `(\w+)`", table(heading), re.MULTILINE)}


def table(heading: str) -> str:
    """Return the rows of the table whose heading begins with this."""
    return re.split(rf"\n\| {heading} \|.*\n\|---.*\n", TEXT, maxsplit=1)[1].split("\n\n", 1)[0]


def test_every_request_is_there_with_its_keys() -> None:
    kinds = get_args(protocol.Request)
    assert first_column("`op`") == {kind.__struct_config__.tag for kind in kinds}
    rows = table("`op`")
    for kind in kinds:
        for field in set(kind.__struct_fields__) - {"v", "id"}:
            assert f"`{field}`" in rows, f"{kind.__name__}.{field}"


def test_every_command_is_there() -> None:
    assert first_column("`command`") == set(COMMANDS)


def test_every_error_is_there() -> None:
    sources = [Path(router.__file__), Path(running_commands.__file__), Path(protocol.__file__), Path(errors.__file__)]
    code = "".join(source.read_text() for source in sources)
    words = set(re.findall(r'(?:id_frame, |error: str = |error=|super\(\).__init__\()"([a-z_]+)"', code))
    # raised by the bot's side, or after members: not an answer of the bus
    assert first_column("`error`") == words - {"no_answer"}


@pytest.mark.parametrize(
    ("phrase", "value"),
    [
        ("at most 64 KiB", protocol.MAX_REQUEST_BYTES == 64 * 1024),
        (
            "more than 8 replays of one client, 256 in all",
            (served.STREAMS_PER_CLIENT, served.STREAMS) == (8, 256),
        ),
        ("or 64 commands on their way", running_commands.COMMANDS == 64),
        (
            "1,024 of one client, 4,096 in all",
            (running_commands.WAITING_OF_CLIENT, running_commands.WAITING_COMMANDS) == (1024, 4096),
        ),
        (
            "forgets a report after 15 s",
            reports.SILENT_SECONDS == 15.0,
        ),
        ("at most 4,096 of each, of 16 façades", (reports.MOST_ROWS, reports.MOST_FACADES) == (4096, 16)),
        ("64 readers of the journal", following.MOST_FOLLOWERS == 64),
        ("at most about 256 KiB", following.BYTES_PER_PART == 256 * 1024),
        ("`wait_s`: 0 to 60", protocol.MAX_FOLLOW_SECONDS == 60),
        ("`parts`: 1 (default) to 16", protocol.MAX_FOLLOW_PARTS == 16),
        ("0 (default) to 600", protocol.MAX_WAIT_SECONDS == 600),
        ("At most 32 messages wait for one client", router.CLIENT_HWM == 32),
        (
            "`ring_bytes`, 64 MiB; `ring_seconds`, 10 minutes",
            (publisher.RING_BYTES, publisher.RING_SECONDS) == (64 << 20, 600),
        ),
        ("up to 10,000 messages wait in its socket", bus.RECEIVE_HWM == 10_000),
        ("up to 10,000 events or 64 MiB", (HELD_EVENTS, HELD_BYTES) == (10_000, 64 << 20)),
        ("for six seconds", replays.GIVE_UP == 6.0),
        ("for half a minute", replays.SILENCE == 30.0),
        ("once a second", (progress.SAVE_EVERY, publisher.POSITION_EVERY) == (1.0, 1.0)),
    ],
)
def test_the_numbers_are_those_of_the_code(phrase: str, value: bool) -> None:
    assert phrase in TEXT
    assert value, phrase


def test_the_configuration_with_keys_loads(tmp_path: Path) -> None:
    block = TEXT.split("2. ```toml\n", 1)[1].split("   ```", 1)[0]
    _, _, public = generate(tmp_path / "bot")
    file = tmp_path / "discorder.toml"
    file.write_text(block.replace("…", public))
    assert tomli.loads(file.read_text())["publishers"]["zmq"]["curve_clients"] == [public]
    ((publisher, _),) = load_config(file).build_publishers()
    assert publisher.name == "zmq"


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", TEXT + (ROOT / "examples" / "README.md").read_text())
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists() or (ROOT / "examples" / link).exists(), link
