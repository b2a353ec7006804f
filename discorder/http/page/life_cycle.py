"""Light the diagram: the state of a single shard and its last transitions, or how many shards are in each state."""

from __future__ import annotations

from importlib import resources
from xml.etree import ElementTree as ET

from discorder.http.page.looks import Document
from discorder.http.page.markup import ARROW, Html, element, span, strong
from discorder.http.page.words import NO_SHARD, count, moment, seconds_between
from discorder.http.page.words import span as span_text

LAST_STEPS = 5
PICTURE = "life-cycle.svg"  # generated: make diagrams
_XMLNS = ' xmlns="http://www.w3.org/2000/svg"'  # not needed within HTML


def picture_text() -> str:
    """Return the diagram as it was generated."""
    return resources.files("discorder.http.page").joinpath(PICTURE).read_text(encoding="utf-8").replace(_XMLNS, "", 1)


def life_cycle(doc: Document, picture: str) -> Html:
    """Return the diagram with the present states lit."""
    svg = ET.fromstring(picture)  # noqa: S314  # package data
    shard = doc["shards"][0] if len(doc["shards"]) == 1 else None
    for group in svg.iter("g"):
        if (state := group.get("data-state")) is not None:
            _light(group, state, doc, shard)
    if shard is not None:
        _light_edges(svg, doc["transitions"])
    description = svg.find("desc")
    if description is not None:
        description.text = _description(doc, shard)
    return Html(ET.tostring(svg, encoding="unicode"))


def life_caption(doc: Document) -> str:
    """Return what the diagram follows."""
    total = len(doc["shards"])
    if not total:
        return NO_SHARD
    return "one shard" if total == 1 else f"all {count(total)} shards; a number says how many are there"


def last_steps(doc: Document) -> list[Html]:
    """Return the last transitions as a list, with the shard of each unless there is only one."""
    many = len(doc["shards"]) != 1
    return [
        element(
            "li",
            None,
            moment(step["at"], doc["at"]),
            element(
                "span",
                None,
                span("who", span("vh", "Shard "), str(step["shard"])) if many else None,
                step["source"],
                ARROW,
                strong(step["target"]),
            ),
            span("spent", step["trigger"]),
            span("why", step["cause"]) if step["cause"] else None,
        )
        for step in doc["transitions"][:LAST_STEPS]
    ]


def _light(group: ET.Element, state: str, doc: Document, shard: Document | None) -> None:
    here = doc["verdict"]["shards"]["by_state"].get(state, 0)
    if shard is None and here > 0:
        badge = group.find("g")
        if badge is not None:
            badge.set("class", "count on")
            badge[-1].text = count(here)
    if shard is not None and shard["state"] == state:
        group.set("class", "state current waits" if shard["parked"] or shard["paused"] else "state current")
        clock = group.find("text[@class='clock']")
        if clock is not None:
            clock.text = _clock(shard, doc["at"])


def _clock(shard: Document, at: str) -> str:
    """Return the time in the state; in Restarting the time that is left."""
    if shard["state"] == "Restarting" and shard["next"]:
        left = seconds_between(at, shard["next"]["at"])
        return "now" if left <= 0.05 else f"in {span_text(left)}"
    return span_text(seconds_between(shard["since"], at))


def _light_edges(svg: ET.Element, steps: list[Document]) -> None:
    for index, step in reversed(list(enumerate(steps[:3]))):
        edge = _edge_of(svg, step)
        if edge is None:
            continue
        tone = " ".join(edge.get("class", "").split()[:2])
        edge.set("class", f"{tone} {'was' if index else 'lit'}")
        said = edge.find("text[@class='said']")
        if said is not None and not index:
            said.text = step["trigger"]


def _edge_of(svg: ET.Element, step: Document) -> ET.Element | None:
    fired = f"{step['source']}:{step['trigger']}"
    edges = svg.iterfind(f".//g[@data-to='{step['target']}']")
    return next((edge for edge in edges if fired in edge.get("data-on", "").split()), None)


def _description(doc: Document, shard: Document | None) -> str:
    if shard is None:
        present = [(state, number) for state, number in doc["verdict"]["shards"]["by_state"].items() if number]
        return f"{', '.join(f'{number} in {state}' for state, number in present)}."
    steps = doc["transitions"]
    came = f" It came from {steps[0]['source']} by {steps[0]['trigger']}." if steps else ""
    return f"Shard {shard['id']} is in {shard['state']}.{came}"
