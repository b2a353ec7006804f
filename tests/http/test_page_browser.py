"""The page in a browser, on documents and events that the test makes: look, keyboard, screen readers, silence, cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from discorder.statemachine import State
from tests.http.page_browser import OpenPage, Watched
from tests.http.page_documents import (
    Document,
    ago,
    bot,
    document,
    facade,
    publisher,
    several,
    shard,
    starting,
    step,
    trouble,
    verdict,
    with_bots,
)
from tests.http.page_server import PageServer, page_server

pytestmark = [pytest.mark.heavy, pytest.mark.system]

FROZEN = "performance.now = () => 1000;"  # ages stay what they are in the document
LIVE = "document.getElementById('live-text').textContent.startsWith('Live')"


Served = Callable[[Document], PageServer]


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve documents until the end of the test; name it before ``open_page``, so that pages are closed first."""
    with ExitStack() as stack:
        yield lambda doc: stack.enter_context(page_server(doc))


@pytest.fixture
def one() -> Iterator[PageServer]:
    with page_server(document()) as server:
        yield server


@pytest.fixture(scope="module")
def many() -> Iterator[PageServer]:
    with page_server(trouble(500, 7)) as server:
        yield server


# -------------------------------------------------------------------------------------------------- look

SCENARIOS = {
    "well": document(),
    "trouble": document([shard(0, State.RESTARTING, attempt=3)]),
    "starting": starting(64, 22),
    "many": trouble(500, 9),
    "none": document([]),
    "several": several(),
    "bots": with_bots(),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_width_scrolls_sideways_and_nothing_breaks_the_policy(
    name: str, scheme: str, served: Served, open_page: OpenPage
) -> None:
    watched = open_page(served(SCENARIOS[name]).url, color_scheme=scheme)
    watched.until(LIVE)
    for width in (390, 768, 1024, 1440):
        watched.page.set_viewport_size({"width": width, "height": 900})
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.page.locator("[style]").count() == 0


TEXTS = """root => {
  const words = (node) => node.textContent.replace(/\\s+/g, " ").trim();
  const ids = ["where", "headline", "lead", "progress", "answers", "notes", "vitals-list", "problem-rows", "problem-more",
    "flows-cap", "c-rate", "c-latency", "type-rows", "life-cap", "shards-title", "shards-cap", "picked", "tiles-ill",
    "tiles-ready", "walk", "pub-rows", "bus-cap", "bus-rows", "bus-topics-cap", "bus-topics", "bus-pairs", "budget-meter",
    "budget-pairs", "session-pairs", "history-rows", "log-rows", "foot", "lc-desc",
    "bots-cap", "bot-rows"];
  const texts = Object.fromEntries(ids.map((id) => [id, words(root.getElementById(id))]));
  const hidden = [...root.querySelectorAll("section[hidden], p[hidden], dl[hidden]")].map((node) => node.id);
  const drawn = ".plot path:not([d='']), .plot rect, #progress .bar rect, .types rect, .meter rect";
  const shapes = [...root.querySelectorAll(drawn)].map((node) =>
    ["class", "d", "x", "width"].map((key) => node.getAttribute(key) || "").join(" ").trim()).sort();
  const lit = [...root.querySelectorAll(".lc .state, .lc .edge, .lc .count")].map((node) => [...node.classList].sort().join(" "));
  const labels = [...root.querySelectorAll(".box, .meter, progress")].map((node) => node.getAttribute("aria-label"));
  return {texts, hidden, shapes, lit, labels, level: root.getElementById("verdict").dataset.level, title: root.title};
}"""


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_script_writes_what_the_server_has_written(name: str, served: Served, open_page: OpenPage) -> None:
    server = served(SCENARIOS[name])
    live = open_page(server.url, script=FROZEN)
    live.until(LIVE)
    written = live.page.evaluate(f"({TEXTS})(document)")
    body = live.page.request.get(server.url).text()
    reader = open_page("about:blank")
    sent = reader.page.evaluate(f"body => ({TEXTS})(new DOMParser().parseFromString(body, 'text/html'))", body)
    for key, value in sent.items():
        assert written[key] == value, key


def test_without_javascript_it_is_complete_and_offers_no_dead_control(served: Served, open_page: OpenPage) -> None:
    watched = open_page(served(trouble(64, 7)).url, java_script_enabled=False)
    assert "A snapshot: without JavaScript" in watched.text("noscript")
    for selector in ("#headline", "#problem-rows", "#tiles-ready", "#pub-rows", "#budget-pairs", "#history-rows"):
        assert watched.page.locator(selector).is_visible(), selector
    assert watched.page.locator("#lc .count.on").first.is_visible()
    assert watched.page.locator("button:visible, input:visible").count() == 0


# -------------------------------------------------------------------------------------------------- the stream


def test_events_change_the_page_without_a_reload(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    lost = shard(0, State.UNHEALTHY, since=ago(0), cause="closed: 1006, no close frame")
    one.send("shards", {"at": ago(0), "shards": [lost]})
    lost_step = step(0, "Ready", "closed", "Unhealthy", age=0, cause="closed: 1006, no close frame")
    one.send("transition", {"at": ago(0), "transition": lost_step})
    one.send("verdict", {"at": ago(0), "verdict": verdict([lost]), "progress": one.document["progress"], "notes": []})
    watched.until("document.getElementById('verdict').dataset.level === 'down'")
    assert watched.page.title() == "Not well 0/1 · Discorder"
    assert watched.page.locator(".lc .state.current").get_attribute("data-state") == "Unhealthy"
    assert watched.page.locator(".lc .edge.lit .said").text_content() == "closed"
    assert "closed: 1006, no close frame" in watched.text("#answers")
    assert watched.text("#history-rows tr:first-child").startswith("12:00:00")
    line = {"at": ago(0), "level": "ERROR", "message": "Something broke", "fields": {"shard": 0}}
    one.send("log", {"at": ago(0), "log": [line]})
    late = publisher("archive", state="retrying", lag_s=92.4)
    one.send("publishers", {"at": ago(0), "publishers": [late], "bus": None})
    watched.until("document.getElementById('pub-rows').textContent.includes('92 s')")
    assert "Something broke shard=0" in watched.text("#log-rows li:first-child")
    assert not watched.page.locator("#bus").is_visible()


def test_a_bot_that_connects_is_shown(one: PageServer, open_page: OpenPage) -> None:
    """The section comes with the façade, and goes with it."""
    watched = open_page(one.url)
    watched.until(LIVE)
    assert not watched.page.locator("#bots").is_visible()
    one.send("facade", {"at": ago(0), "facade": facade(bot("main", 0), bot("stats", seen_at=ago(42)))})
    watched.until("!document.getElementById('bots').hidden")
    assert watched.text("#bots-cap") == "1 of 2 connected at 127.0.0.1:7000"
    assert watched.text("#bot-rows tr:first-child").split()[:4] == ["main", "discord.py", "connected", "0"]
    assert "not for 42 s" in watched.text("#bot-rows tr:last-child")
    one.send("facade", {"at": ago(0), "facade": None})
    watched.until("document.getElementById('bots').hidden")


def flow(rate: float, *, append: bool, since_s: float = 900) -> Document:
    doc = document()
    return {
        "at": ago(0),
        "append": append,
        "step_s": 5,
        "from": ago(since_s),
        "events_per_s": rate,
        "median": 0.04,
        "worst": 0.05,
        "not_serving": [],
        "total": 1_300_000,
        "event_types": doc["event_types"],
        "process": doc["process"],
    }


def test_a_point_of_the_flows_is_replaced_or_followed(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    path = "document.querySelector('#c-rate .line').getAttribute('d').split('L')"
    before = watched.page.evaluate(path)
    one.send("flow", flow(77.5, append=False))
    watched.until("document.querySelector('#c-rate .val').textContent === '77.5 per s'")
    replaced = watched.page.evaluate(path)
    one.send("flow", flow(80.5, append=True))
    watched.until("document.querySelector('#c-rate .val').textContent === '80.5 per s'")
    assert len(before) == len(replaced) == len(watched.page.evaluate(path)) == 180
    assert "1,300,000 since start" in watched.text("#vitals-list")


def test_silence_is_said_and_the_stream_is_mended(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    watched.page.evaluate(
        "window.changes = []; new MutationObserver((all) => all.forEach((one) => window.changes.push(one.target.textContent)))"
        ".observe(document.getElementById('said'), {childList: true})"
    )
    one.holds = True
    watched.until("document.getElementById('verdict').dataset.level === 'unknown'")
    assert watched.page.title() == "Not known · Discorder"
    assert watched.text("#headline") == "Not known: no news from the control plane"
    assert watched.page.locator("#main.stale").count() == 1
    one.holds = False
    watched.until("document.getElementById('verdict').dataset.level === 'well'")
    changes = watched.page.evaluate("window.changes")
    assert len(changes) == 2, changes
    assert changes[0].startswith("Not known")
    assert changes[1].startswith("The gateway is well")


def test_after_a_new_connection_nothing_is_there_twice(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    rows = watched.page.locator("#history-rows tr").count()
    opened = one.streams_opened
    one.document = document(transitions=[step(0, "Ready", "stable", "Ready", age=1), *one.document["transitions"]])
    one.cut()
    watched.until(f"document.querySelectorAll('#history-rows tr').length === {rows + 1}")
    assert one.streams_opened == opened + 1
    assert watched.page.locator("#log-rows li").count() == len(one.document["log"])


def test_freeze_holds_updates_and_counts_them(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    watched.page.click("#freeze")
    one.document = document(verdict=verdict([shard(0)], headline="Another headline"))
    for _ in range(3):
        one.send("verdict", {"at": ago(0), **{key: one.document[key] for key in ("verdict", "progress", "notes")}})
    watched.until("/Frozen, [3-9] held/.test(document.getElementById('live-text').textContent)")
    assert watched.text("#headline") == "The gateway is well"
    watched.page.click("#freeze")
    watched.until("document.getElementById('headline').textContent === 'Another headline'")


def test_the_clock_of_the_reader_changes_no_age(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url, script=f"{FROZEN} const real = Date.now; Date.now = () => real() + 3600e3;")
    watched.until(LIVE)
    assert "saved 3.0 s ago" in watched.text("#session-pairs")
    assert watched.text("#live-text") == "Live · 12:00:00 UTC"


# -------------------------------------------------------------------------------------------------- keyboard


def active(watched: Watched) -> str:
    found: str = watched.page.evaluate("document.activeElement.id || document.activeElement.dataset.pick || ''")
    return found


def test_a_shard_among_500_is_found_chosen_and_let_go_by_keys(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url)
    keys = watched.page.keyboard
    watched.until(LIVE)
    keys.press("/")
    assert active(watched) == "find"
    keys.type("499")
    assert watched.page.locator(".tile:visible").count() == 1
    assert watched.text("#found") == "1 of 500 shards shown".replace(" shards", "")
    keys.press("Tab")  # to the filter
    keys.press("Tab")  # to the only tile
    assert active(watched) == "499"
    keys.press("Enter")
    assert watched.text("#picked h3") == "Shard 499"
    assert watched.page.locator(".lc .state.current").get_attribute("data-state") == "Ready"
    many.send("shards", {"at": ago(0), "shards": [shard(499, events_per_s=77.0)]})
    watched.until("document.getElementById('picked').textContent.includes('77.0 per s')")
    assert active(watched) == "499"
    keys.press("Escape")
    assert not watched.page.locator("#picked").is_visible()
    assert active(watched) == "499"


def test_arrows_home_and_end_walk_through_the_tiles(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url)
    keys = watched.page.keyboard
    watched.until(LIVE)
    stops = watched.page.locator(".tile[tabindex='0']")
    assert stops.count() == 1
    stops.first.focus()
    first = active(watched)
    keys.press("ArrowRight")
    second = active(watched)
    keys.press("ArrowLeft")
    assert active(watched) == first != second
    keys.press("End")
    assert active(watched) == "499"
    keys.press("ArrowUp")
    assert int(active(watched)) < 499
    keys.press("ArrowDown")
    keys.press("Home")
    assert active(watched) == first
    assert stops.count() == 1


GUILD = 1304838192123904000


@pytest.mark.parametrize(
    ("words", "shown"), [("12", {"12", "120", "129"}), ("park", {"311"}), (str(GUILD), {str((GUILD >> 22) % 500)})]
)
def test_search_takes_a_number_a_state_and_a_guild(
    words: str, shown: set[str], many: PageServer, open_page: OpenPage
) -> None:
    watched = open_page(many.url)
    watched.until(LIVE)
    watched.page.fill("#find", words)
    found = set(watched.page.evaluate("[...document.querySelectorAll('.tile')].map((tile) => tile.dataset.pick)"))
    assert shown <= found
    assert len(found) < 50


def test_the_filter_shows_one_state(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url)
    watched.until(LIVE)
    watched.page.locator("label.chip", has_text="Not serving").click()
    assert watched.page.locator(".tile:visible").count() == 7
    watched.page.locator("label.chip", has_text="Silent").click()
    assert watched.page.locator(".tile:visible").count() == 1
    watched.page.keyboard.press("ArrowLeft")
    assert watched.page.locator(".tile:visible").count() >= 1


def test_the_dialog_gives_the_focus_back(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    watched.page.focus("#labels")
    watched.page.keyboard.press("Enter")
    watched.until("document.querySelector('#lc-dialog[open] .lc.full .meaning')?.checkVisibility()")
    watched.page.keyboard.press("Escape")  # the browser closes a dialog after the key, not during it
    watched.until("document.querySelectorAll('#lc-home .lc:not(.full)').length === 1")
    assert active(watched) == "labels"


def test_a_chart_is_read_with_the_arrow_keys(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    watched.page.focus("#c-rate .box")
    watched.page.keyboard.press("Home")
    assert re.fullmatch(r"45\.0 per s, 11:45:00 UTC", watched.text("#c-rate .val"))
    watched.page.keyboard.press("ArrowRight")
    assert "11:45:05" in watched.text("#chart-said")
    one.send("flow", flow(50, append=False))
    watched.until("document.getElementById('vitals-list').textContent.includes('1,300,000')")
    assert active(watched) == ""
    assert "11:45:05" in watched.text("#c-rate .val")
    watched.page.keyboard.press("Escape")
    assert watched.text("#c-rate .val") == "50.0 per s"


# -------------------------------------------------------------------------------------------------- readers with other needs

AXE_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}


@pytest.mark.parametrize(("name", "scheme"), [("trouble", "light"), ("impaired", "light"), ("impaired", "dark")])
def test_axe_finds_no_violation(name: str, scheme: str, served: Served, open_page: OpenPage) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  # heavy tests alone need it

    watched = open_page(served({**SCENARIOS, "impaired": trouble(24, 9)}[name]).url, color_scheme=scheme)
    watched.until(LIVE)
    found = Axe().run(watched.page, options=AXE_RULES)
    assert found.response["violations"] == [], found.generate_report()


def transition_of(number: int) -> Document:
    return {"at": ago(0), "transition": step(number, "Ready", "closed", "Unhealthy", age=0)}


DOTS = "window.dots = 0; new MutationObserver((all) => all.forEach((one) => window.dots += one.addedNodes.length))" + (
    ".observe(document.getElementById('lc-dots'), {childList: true})"
)


@pytest.mark.parametrize(("motion", "dots"), [("no-preference", 1), ("reduce", 0)])
def test_a_dot_walks_along_the_edge_unless_motion_is_unwanted(
    motion: str, dots: int, many: PageServer, open_page: OpenPage
) -> None:
    watched = open_page(many.url, reduced_motion=motion)
    watched.until(LIVE)
    watched.page.evaluate(DOTS)
    many.send("transition", transition_of(3))
    watched.until("document.querySelector('#walk li').textContent.includes('3Ready')")
    assert watched.page.evaluate("window.dots") == dots
    watched.until("!document.getElementById('lc-dots').children.length")


def test_many_transitions_at_once_share_a_dot(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url)
    watched.until(LIVE)
    watched.page.evaluate(DOTS)
    for number in range(30):
        many.send("transition", transition_of(number))
    watched.until("window.dots >= 7")
    watched.until("!document.getElementById('lc-dots').children.length")
    assert watched.page.evaluate("window.dots") < 15  # six at once; the others wait and share one


def test_forced_colours_still_tell_states_apart(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url, forced_colors="active")
    watched.until(LIVE)
    for tile in watched.page.locator("#tiles-ill .tile").all():
        assert tile.locator("svg.ic").is_visible()
        assert tile.locator(".st").inner_text()
    watched.page.click(".tile[data-pick='4']")
    fill = "node => getComputedStyle(node.querySelector('rect')).fill"
    current = watched.page.locator(".lc .state.current").evaluate(fill)
    assert current != watched.page.locator(".lc [data-state=Connecting]").evaluate(fill)


# -------------------------------------------------------------------------------------------------- cost

# Counts the nodes that are made, removed, or changed.
CHANGES = """window.changes = 0;
new MutationObserver((records) => {
  for (const record of records) window.changes += record.type === 'childList'
    ? [...record.addedNodes, ...record.removedNodes].reduce(
        (sum, node) => sum + 1 + (node.querySelectorAll?.('*').length ?? 0), 0)
    : 1;
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});"""


def test_one_changed_shard_of_500_changes_few_nodes(many: PageServer, open_page: OpenPage) -> None:
    watched = open_page(many.url)
    watched.until(LIVE)
    nodes = watched.page.evaluate("document.querySelectorAll('*').length")
    assert nodes > 500
    watched.page.evaluate(CHANGES)
    for rate in range(70, 80):
        many.send("shards", {"at": ago(0), "shards": [shard(499, events_per_s=float(rate))]})
        many.send("flow", flow(rate, append=True))
        watched.until(f"document.body.textContent.includes('{rate}')")
    assert watched.page.evaluate("window.changes") / 10 < nodes / 2  # measured: 621 of 2,592


def test_what_is_kept_does_not_grow(one: PageServer, open_page: OpenPage) -> None:
    watched = open_page(one.url)
    watched.until(LIVE)
    nodes = "document.querySelectorAll('*').length"

    def send(times: int) -> Any:
        for _ in range(times):
            one.send("transition", transition_of(0))
            line = {"at": ago(0), "level": "INFO", "message": f"Line {times}", "fields": {}}
            one.send("log", {"at": ago(0), "log": [line]})
            one.send("flow", flow(40, append=True))
        one.send(
            "log", {"at": ago(0), "log": [{"at": ago(0), "level": "INFO", "message": f"End {times}", "fields": {}}]}
        )
        watched.until(f"document.getElementById('log-rows').textContent.includes('End {times}')")
        watched.until("!document.getElementById('lc-dots').children.length")
        return watched.page.evaluate(nodes)

    assert send(100) == send(101)


def test_the_script_shows_control_characters_as_escapes(served: Served, open_page: OpenPage) -> None:
    """Those of the document that is in the page, and those of events."""
    controls, escapes = "\x1b[31m\u202egnp\x9b", r"\x1b[31m\u202egnp\x9b"
    server = served(document([shard(0, State.RESTARTING, cause=f"first {controls}")]))
    watched = open_page(server.url)
    watched.until(LIVE)
    assert f"first {escapes}" in watched.text("#answers")
    server.send("shards", {"at": ago(0), "shards": [shard(0, State.RESTARTING, cause=f"second {controls}")]})
    watched.until("document.getElementById('answers').textContent.includes('second')")
    assert f"second {escapes}" in watched.text("#answers")
