"""The code of docs/rest.md runs, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import discorder
from discorder.rest import BotClient, body, http, limits, route_buckets
from discorder.simulator import Simulator

TEXT = (Path(__file__).parent.parent / "docs" / "rest.md").read_text()
CHANNEL = 1345205174045638728  # #general of guild 0


async def test_the_example_runs(tmp_path: Path) -> None:
    (tmp_path / "chart.png").write_bytes(b"\x89PNG")
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"discorder": discorder}
    exec(code[1], names)  # noqa: S102 - our own documentation
    report = names["report"]
    async with Simulator(guilds=1) as sim, BotClient(sim.token, api=sim.api_url) as bot:
        await report(bot, CHANNEL, tmp_path / "chart.png")
        posted, reacted = sim.rest_requests
        assert [file.filename for file in posted.files] == ["chart.png", "notes.txt"]
        assert (posted.status, reacted.status) == (200, 204)


def test_the_numbers_are_the_codes() -> None:
    for number in (
        f"{body.MAX_BODY // 2**20} MiB",
        f"{http.SLOWEST_UPLOAD // 1024} KiB",
        f"{limits.INVALID_STOP:,}",
        f"{limits.GLOBAL_LIMIT} requests per second",
        f"{limits.FIRST_PAUSE:.0f}, 10, 20 … {limits.LONGEST_PAUSE:.0f} s",
    ):
        assert number in TEXT, number
    assert route_buckets.FIRST_PARALLEL == 5
    assert "then five" in TEXT
