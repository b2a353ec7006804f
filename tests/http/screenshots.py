"""Take the pictures of the status page for docs/pictures/ (`make screenshots`). The documents are made up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from discorder.statemachine import State
from tests.http.page_browser import chromium
from tests.http.page_documents import Document, ago, document, shard, starting, step, trouble, verdict
from tests.http.page_server import page_server

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"
FROZEN = "performance.now = () => 1000;"  # ages stay what they are in the document
SETTLE_MS = 500  # for the stream to open and the fonts to be there


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: a document at a size and in a colour scheme."""

    name: str
    document: Document
    width: int = 1280
    height: int = 1000
    scheme: Literal["light", "dark"] = "light"


def _types(rate: float) -> list[Document]:
    shares = {
        "MESSAGE_CREATE": 0.42,
        "PRESENCE_UPDATE": 0.31,
        "TYPING_START": 0.12,
        "GUILD_MEMBER_UPDATE": 0.06,
        "MESSAGE_UPDATE": 0.04,
        "VOICE_STATE_UPDATE": 0.03,
        "MESSAGE_REACTION_ADD": 0.02,
    }
    return [
        {"type": name, "per_s": round(rate * share, 1), "total": int(1_201_300 * share)}
        for name, share in shares.items()
    ]


def _well() -> Document:
    return document(event_types=_types(45))


def _reconnecting() -> Document:
    cause = "zombie: a heartbeat was unanswered for 41.3 s"
    one = shard(0, State.RESTARTING, cause="closed: 1006, no close frame", attempt=3)
    one["next"] |= {"text": "RESUME on the main host", "attempt": 3}
    steps = [
        step(0, "Unhealthy", "diagnosed", "Restarting", age=4.5, cause="closed: 1006, no close frame"),
        step(0, "Resuming", "closed", "Unhealthy", age=4.6, cause="closed: 1006, no close frame"),
        step(0, "Connecting", "hello", "Resuming", age=35),
        step(0, "Restarting", "restart_due", "Connecting", age=35.4),
        step(0, "Unhealthy", "diagnosed", "Restarting", age=39.5, cause=cause),
        step(0, "Ready", "zombie", "Unhealthy", age=40, cause=cause),
    ]
    words = {"headline": "Not well: the shard waits to connect again"}
    words["detail"] = (
        "Its session is kept: Discord keeps the missed events for some minutes and sends them after RESUME."
    )
    note = {
        "kind": "token",
        "title": "Another process uses this token",
        "text": "895 IDENTIFYs were not spent here. Give it the same session store, or stop it.",
        "since": ago(1400),
    }
    return document([one], transitions=steps, verdict=verdict([one], **words), notes=[note], event_types=_types(0))


def _many() -> Document:
    doc = trouble(500, 7)
    parked = next(one for one in doc["shards"] if one["parked"])
    silent = next(one for one in doc["shards"] if one["state"] == "Ready" and not one["healthy"])
    wait: Document = {"kind": "planned", "action": "dial", "purpose": "identify", "at": ago(-5800), "host": "main"}
    wait |= {"attempt": None, "backoff_s": None, "identifies": 1, "text": "IDENTIFY when the budget is renewed"}
    parked["next"] = wait
    silent["next"] = {**wait, "kind": "deadline", "action": "beat", "purpose": "resume", "at": ago(-2.3)}
    silent["next"] |= {"identifies": 0, "text": "An ACK for the heartbeat; without one RESUME"}
    doc["verdict"]["detail"] = "493 serve events. Six are expected back within 30 s; shard 311 is parked for 97 min."
    doc["flows"]["events_per_s"] = [round(rate * 100, 1) for rate in doc["flows"]["events_per_s"]]
    doc["event_types"] = _types(4500)
    return doc


PICTURES = (
    Picture("healthy", _well(), height=1500),
    Picture("trouble", _reconnecting(), height=1680),
    Picture("dark", _reconnecting(), height=1000, scheme="dark"),
    Picture("64", starting(64, 22) | {"event_types": _types(198)}, height=1500),
    Picture("500", _many(), height=1900),
    Picture("phone", _reconnecting(), width=390, height=1500),
)


def take(folder: Path) -> None:
    """Write every picture into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for picture in PICTURES:
            with page_server(picture.document) as server:
                page = browser.new_page(
                    viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.scheme
                )
                page.add_init_script(FROZEN)
                page.goto(server.url)
                page.wait_for_timeout(SETTLE_MS)
                page.screenshot(path=folder / f"status-page-{picture.name}.png")
                page.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
