"""Assemble the status page: one document with one style block, one script block, a snapshot, and its data."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

import msgspec

from discorder.escapes import escape_json
from discorder.http.page import bots, charts, delivery, life_cycle, overview, shards
from discorder.http.page.looks import Document
from discorder.http.page.markup import Child, Html, markup

SCRIPTS = ("words", "elements", "looks", "overview", "charts", "life_cycle", "shards", "delivery", "bots", "page")
MANY_SHARDS = 100  # with more, the data in the page has no details of shards that serve; the stream brings them

_UNSAFE_IN_SCRIPT = ("<", ">", "&")  # may end the block; JSON can write them as escapes


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The page, and the value of the header Content-Security-Policy to send with it."""

    body: bytes
    policy: str


def _read(name: str) -> str:
    return resources.files("discorder.http.page").joinpath(name).read_text(encoding="utf-8")


def _hash(block: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


STYLE = f"\n{_read('page.css')}"
SCRIPT = "\n".join(["", *(_read(f"script/{name}.js") for name in SCRIPTS)])
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(SCRIPT)}",
        f"style-src {_hash(STYLE)}",
        "connect-src 'self'",
        "img-src data:",  # the sign in the browser's tab
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_TEMPLATE = Template(_read("page.html"))
_PICTURE = life_cycle.picture_text()


def render_page(status: bytes) -> StatusPage:
    """Return the page of a status document, encoded as JSON. Thread-safe; takes some milliseconds at 500 shards."""
    doc: Document = msgspec.json.decode(status)
    slots: dict[str, Child] = {
        **_overview(doc),
        **_diagram_and_shards(doc),
        **_delivery(doc),
        "style": Html(STYLE),
        "script": Html(SCRIPT),
        "status": Html(_data_block(doc)),
    }
    return StatusPage(_TEMPLATE.substitute({name: markup(content) for name, content in slots.items()}).encode(), POLICY)


def _hidden(hidden: object) -> Html:
    return Html(" hidden" if hidden else "")


def _overview(doc: Document) -> dict[str, Child]:
    answers, notes, troubled = overview.answers(doc), overview.notes(doc), overview.troubled_shards(doc)
    beyond = len(troubled) - overview.MOST_PROBLEMS
    verdict = doc["verdict"]
    return {
        "title": overview.title(doc),
        "clock": doc["at"][11:19],
        "where": delivery.where(doc),
        "level": verdict["level"],
        "level_icon": overview.VERDICT_ICONS[verdict["level"]],
        "headline": verdict["headline"],
        "lead": overview.lead(doc),
        "progress": overview.progress(doc),
        "answers": answers,
        "answers_hidden": _hidden(not answers),
        "notes": notes,
        "notes_hidden": _hidden(not notes),
        "vitals": overview.vitals(doc),
        "problems": overview.problems(doc),
        "problems_hidden": _hidden(not troubled),
        "problem_more": f"and {beyond:,} more, below" if beyond > 0 else None,
        "problem_more_hidden": _hidden(beyond <= 0),
    }


def _diagram_and_shards(doc: Document) -> dict[str, Child]:
    many = len(doc["shards"]) > 1
    ill, fine = shards.tiles(doc)
    return {
        "main_class": "" if many else "single-shard",
        "flows_cap": charts.flows_caption(doc),
        "chart_rate": charts.rate_chart(doc),
        "chart_latency": charts.latency_chart(doc),
        "types": charts.types(doc),
        "life_class": "life" if many else "life single",
        "life_cap": life_cycle.life_caption(doc),
        "life_cycle": life_cycle.life_cycle(doc, _PICTURE),
        "shards_title": "The shard" if len(doc["shards"]) == 1 else "Shards",
        "shards_cap": shards.shards_caption(doc),
        "one": shards.one_shard(doc),
        "one_hidden": _hidden(len(doc["shards"]) != 1),
        "tiles_ill": ill,
        "tiles_ready": fine,
        "tiles_hidden": _hidden(not many),
        "walk": life_cycle.last_steps(doc),
    }


def _delivery(doc: Document) -> dict[str, Child]:
    bus, facade = doc["bus"], doc["facade"]
    return {
        "publishers": delivery.publishers(doc),
        "bots_hidden": _hidden(not facade),
        "bots_cap": bots.bots_caption(facade) if facade else None,
        "bots_table": bots.bots_table(doc),
        "bus_hidden": _hidden(not bus),
        "bus_cap": delivery.bus_caption(bus) if bus else None,
        "bus_table": delivery.bus_table(doc),
        "bus_topics_cap": delivery.topics_caption(bus) if bus else None,
        "bus_topics": delivery.topics(bus) if bus else None,
        "bus_pairs": delivery.bus_pairs(bus) if bus else None,
        "meter": delivery.meter(doc),
        "budget": delivery.budget_pairs(doc),
        "sessions": delivery.session_pairs(doc),
        "history": delivery.history(doc),
        "log": delivery.log(doc),
        "foot": delivery.foot(doc),
    }


# -------------------------------------------------------------------------------------------------- the data


_DETAILS: dict[str, Any] = {
    "session": None,
    "seq": None,
    "ages_s": {"frame": None, "ack": None, "dispatch": None, "unanswered_beat": None},
    "counts": {"restarts": None, "resumes": None, "identifies": None},
    "guilds": None,
    "reasons": [],
}


def _data_block(doc: Document) -> str:
    data = escape_json(msgspec.json.encode(_light_document(doc))).decode()
    for character in _UNSAFE_IN_SCRIPT:
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _light_document(doc: Document) -> Document:
    """Leave out the details of healthy shards if there are many: they are half of the page, and seconds later outdated."""
    if len(doc["shards"]) <= MANY_SHARDS:
        return doc
    return {**doc, "shards": [{**shard, **_DETAILS} if shard["healthy"] else shard for shard in doc["shards"]]}
