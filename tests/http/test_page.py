"""The page as the server sends it: one document, safe to show, complete without JavaScript."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from discorder.http.page import StatusPage, render_page
from discorder.statemachine import State
from discorder.status.document import StatusDocument
from tests.http.page_documents import (
    Document,
    ago,
    document,
    plan,
    publisher,
    several,
    shard,
    starting,
    step,
    trouble,
    verdict,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; $title ${style}"
SCENARIOS = {
    "well": document(),
    "trouble": trouble(12, 7),
    "starting": starting(64, 22),
    "many": trouble(500, 9),
    "none": document([]),
    "several": several(),
}


def render(doc: Document) -> StatusPage:
    return render_page(json.dumps(doc).encode())


def html(doc: Document) -> str:
    return render(doc).body.decode()


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the text of each element that has an id."""

    VOID = frozenset({"meta", "link", "input", "use", "rect", "path", "line", "circle", "polygon", "ellipse"})

    def __init__(self, body: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            if name is not None:
                self.texts[name] = self.texts.get(name, "") + data

    @property
    def is_closed(self) -> bool:
        return not self._open

    def attributes(self) -> Iterator[tuple[str, str]]:
        for _, attributes in self.tags:
            yield from ((key, value or "") for key, value in attributes.items())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_documents_of_these_tests_fit_the_schema(name: str) -> None:
    msgspec.convert(SCENARIOS[name], StatusDocument)


# -------------------------------------------------------------------------------------------------- one safe document


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_policy_allows_the_blocks_of_the_page_and_nothing_else(name: str) -> None:
    page = render(SCENARIOS[name])
    body = page.body.decode()
    for directive, block in (
        ("style-src", r"<style>(.*?)</style>"),
        ("script-src", r'<script type="module">(.*?)</script>'),
    ):
        (content,) = re.findall(block, body, re.DOTALL)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in page.policy
    assert page.policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in page.policy
    assert "unsafe" not in page.policy


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_loads_nothing_and_needs_no_exception_of_the_policy(name: str) -> None:
    reader = Reader(html(SCENARIOS[name]))
    assert reader.is_closed
    for key, value in reader.attributes():
        assert key != "style"
        assert not key.startswith("on")
        assert key not in {"src", "srcset", "action"}
        if key == "href":
            assert value.startswith(("#", "data:,"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_ids_are_unique(name: str) -> None:
    ids = [value for key, value in Reader(html(SCENARIOS[name])).attributes() if key == "id"]
    assert sorted(ids) == sorted(set(ids))


def hostile_document() -> Document:
    one = shard(0, State.RESTARTING, cause=HOSTILE, session=HOSTILE, next=plan("dial", 3, HOSTILE))
    note = {"kind": "token", "title": HOSTILE, "text": HOSTILE, "since": document()["at"]}
    line = {"at": document()["at"], "level": HOSTILE, "message": HOSTILE, "fields": {HOSTILE: HOSTILE, "x": [HOSTILE]}}
    return document(
        [one],
        verdict=verdict([one], headline=HOSTILE, detail=HOSTILE),
        notes=[note],
        publishers=[publisher(HOSTILE, kind=HOSTILE, last_error=HOSTILE)],
        transitions=[step(0, "Ready", "closed", "Unhealthy", age=1, cause=HOSTILE)],
        log=[line],
        event_types=[{"type": HOSTILE, "per_s": 1.0, "total": 1}],
    )


def test_what_a_peer_says_is_text_and_never_markup() -> None:
    reader = Reader(html(hostile_document()))
    assert "img" not in {tag for tag, _ in reader.tags}
    assert [tag for tag, _ in reader.tags].count("script") == 2
    assert reader.texts["headline"] == HOSTILE
    for name in ("lead", "notes", "pub-rows", "history-rows", "log-rows", "type-rows", "answers", "picked"):
        assert HOSTILE in reader.texts[name], name


def test_the_data_in_the_page_are_the_document() -> None:
    doc = hostile_document()
    assert json.loads(Reader(html(doc)).texts["status"]) == doc


def test_with_many_shards_the_details_of_healthy_ones_come_with_the_stream() -> None:
    doc = trouble(500, 3)
    embedded = json.loads(Reader(html(doc)).texts["status"])
    for given, kept in zip(doc["shards"], embedded["shards"], strict=True):
        assert kept.keys() == given.keys()
        assert kept == given or (given["healthy"] and kept["session"] is None)
    assert {**embedded, "shards": None} == {**doc, "shards": None}


# -------------------------------------------------------------------------------------------------- complete without JavaScript


def test_the_snapshot_of_a_shard_in_trouble() -> None:
    texts = Reader(html(document([shard(0, State.RESTARTING, attempt=3)]))).texts
    assert texts["headline"] == "1 of 1 shards are not well"
    assert "closed: 1006, no close frame" in texts["answers"]
    assert "RESUME on the resume host in 3.5 s" in texts["answers"]
    assert "back-off 4.2 s · attempt 1 · costs no IDENTIFY" in texts["answers"]
    assert texts["lc-desc"] == "Shard 0 is in Restarting. It came from Unhealthy by diagnosed."
    assert "Unhealthy → Restarting" in texts["history-rows"]
    assert "archive" in texts["pub-rows"]
    assert "999 of 1000 IDENTIFYs are left" in html(document())
    assert "The connection was lost shard=0" in texts["log-rows"]


def lit(body: str, kind: str) -> list[str | None]:
    """Return the states of the boxes, or the ids of the edges, that have a class."""
    tags = [attributes for tag, attributes in Reader(body).tags if tag == "g"]
    return [one.get("data-state", one.get("id")) for one in tags if kind in (one.get("class") or "").split()]


@pytest.mark.parametrize("state", State)
def test_the_state_of_a_single_shard_is_lit(state: State) -> None:
    assert lit(html(document([shard(0, state)])), "current") == [state.value]


def test_the_last_transitions_are_lit() -> None:
    body = html(document([shard(0, State.RESTARTING)]))
    assert lit(body, "lit") == ["lc-edge-Unhealthy-Restarting-recovery"]
    assert set(lit(body, "was")) == {"lc-edge-live-Unhealthy-failure", "lc-edge-Resuming-Ready-happy"}


def test_with_several_shards_each_state_has_their_number() -> None:
    body = html(trouble(64, 7))
    assert lit(body, "current") == []
    numbers = {"Ready": 58, "Restarting": 3, "Resuming": 1, "Connecting": 1, "Unhealthy": 1}
    for state, number in numbers.items():
        box = re.search(rf'data-state="{state}">.*?class="count on".*?<text y="8">(\d+)</text>', body, re.DOTALL)
        assert box is not None
        assert int(box[1]) == number


def test_a_table_says_which_shards_worst_first_and_what_happens_next() -> None:
    texts = Reader(html(trouble(64, 7))).texts
    words = ["Parked", "Restarting", "Silent", "Resuming", "Unhealthy"]
    places = [texts["problem-rows"].index(word) for word in words]
    assert places[:2] == sorted(places[:2])
    assert "Nothing by itself" in texts["problem-rows"]
    assert "RESUME on the resume hostback-off 4.2 s · attempt 1" in texts["problem-rows"]
    assert texts["shards-cap"] == "57 of 64 serve, worst first"


def test_without_a_shard_the_page_says_so() -> None:
    texts = Reader(html(document([]))).texts
    assert "Shards serving–no shard is here" in texts["vitals-list"]
    assert "all of them" not in texts["vitals-list"]


def test_more_shards_than_the_table_holds_are_counted() -> None:
    texts = Reader(html(trouble(100, 30))).texts
    assert texts["problem-more"] == "and 6 more, below"


def test_a_start_shows_its_progress_and_no_trouble() -> None:
    body = html(starting(64, 22))
    texts = Reader(body).texts
    assert texts["headline"] == "Starting: 22 of 64 shards are ready"
    assert "in about 10 s" in texts["answers"]
    assert 'aria-label="22 of 64 shards ready"' in body
    assert 'id="problems" aria-labelledby="problems-t" hidden' in body


def test_no_control_is_offered_that_needs_the_script() -> None:
    for tag, attributes in Reader(html(trouble(64, 7))).tags:
        if tag in {"button", "input"}:
            assert "hidden" in attributes or attributes.get("id") in {"find", "labels-close"}
    assert re.search(r'class="find" id="finder" hidden', html(trouble(64, 7)))


# -------------------------------------------------------------------------------------------------- what is not known


def not_known() -> Document:
    doc = document([shard(0, State.DISCONNECTED, generation=0, session=None, seq=None, guilds=None, cause=None)])
    empty: dict[str, Any] = {key: None for key in doc["budget"] if key not in {"foreign", "waiting", "cold_start"}}
    doc["budget"] |= empty | {"cold_start": {"identifies": 1, "seconds": None}}
    doc["process"] |= {"memory_bytes": None, "cpu_ratio": None, "open_files": {"used": None, "limit": None}}
    doc["flows"] |= {
        "events_per_s": [None] * 180,
        "latency_s": {"median": [None] * 180, "worst": [None] * 180},
    }
    none: Document = {"bus": None, "store": {"state": "in memory", "reason": "", "path": None}, "log": []}
    return doc | none | {"transitions": [], "publishers": [], "event_types": []}


def test_what_is_not_known_is_a_dash() -> None:
    texts = Reader(html(not_known())).texts
    assert "– memory" in texts["foot"]
    assert texts["budget-meter"] == "Not looked up yet."
    assert "in memory" in texts["session-pairs"]
    assert texts["lc-desc"] == "Shard 0 is in Disconnected."


def test_a_shard_without_an_answered_heartbeat_is_not_without_a_connection() -> None:
    """It is Ready; its first ACK has not come. The number and the curve use the same words."""
    one = shard(0)
    one["heartbeat"] |= {"latency_s": None}
    doc = document([one])
    doc["flows"]["latency_s"]["median"][-1] = None
    shown = re.sub("<script.*?</script>", "", html(doc), flags=re.DOTALL)
    assert (shown.count("none answered yet"), "no connection" in shown) == (2, False)


def test_a_shard_without_a_socket_has_no_ack_that_is_due() -> None:
    away = shard(0, State.RESTARTING)
    away["ages_s"] |= {"frame": None, "ack": None}
    assert "due every" in Reader(html(document())).texts["picked"]
    assert "due every" not in Reader(html(document([away]))).texts["picked"]


def test_a_state_that_the_page_does_not_know_is_shown_by_its_name() -> None:
    one = shard(0) | {"state": "Hibernating", "healthy": False}
    assert "Hibernating" in Reader(html(document([one]))).texts["picked"]


def test_a_paused_shard_says_so_and_stands_among_the_worst() -> None:
    cause = "paused by an operator; it goes on with `discorder shards unpause 4`"
    paused = shard(4, State.RESTARTING, paused=True, cause=cause, next=None)
    every = [shard(number) for number in range(8)]
    every[1], every[4] = shard(1, State.RESTARTING, since=ago(400)), paused
    rows = Reader(html(document(every))).texts["problem-rows"]
    assert rows.startswith("4Paused")
    assert f"{cause}Nothing by itself" in rows


def test_its_title_follows_the_verdict() -> None:
    def title(doc: Document) -> str:
        found = re.search("<title>(.*?)</title>", html(doc))
        assert found is not None
        return found[1]

    assert title(document()) == "Well · Discorder"
    assert title(trouble(64, 7)) == "Not well 57/64 · Discorder"
    assert title(starting(64, 22)) == "Starting 22/64 · Discorder"


CONTROLS = "\x1b[31m\u202egnp\u2066\x9b\x7f"


def test_control_characters_are_shown_as_escapes_and_sent_as_escapes() -> None:
    one = shard(0, State.RESTARTING, cause=CONTROLS)
    doc = document(
        [one],
        verdict=verdict([one], headline=CONTROLS),
        publishers=[publisher(CONTROLS, kind=CONTROLS)],
        event_types=[{"type": CONTROLS, "per_s": 1.0, "total": 1}],
    )
    body = html(doc)
    assert all(character.isprintable() or character == "\n" for character in body)
    reader = Reader(body)
    for name in ("headline", "answers", "pub-rows", "type-rows"):
        assert r"\x1b[31m\u202egnp\u2066\x9b\x7f" in reader.texts[name], name
    assert json.loads(reader.texts["status"])["shards"][0]["cause"] == CONTROLS
