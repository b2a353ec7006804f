"""The JSON Schemas in docs/schemas describe what is published: every sample payload, and the records of a real run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from discorder.publishers.zeromq.protocol import POSITION, position_document
from discorder.publishers.zeromq.shard_log import Position
from discorder.records import RecordType
from discorder.simulator import Simulator
from discorder.simulator.payloads import load_payloads
from discorder.statemachine import State
from discorder.statemachine.table import Name
from discorder.wire import MAX_SEQ, Event
from tests.harness import Recorder

if TYPE_CHECKING:
    from tests.harness import StartStage

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"
FILES = {
    "event": None,
    "state": RecordType.STATE,
    "resumed": RecordType.RESUMED,
    "gap": RecordType.GAP,
    "position": POSITION,  # published by the ZeroMQ publisher itself
}


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def validator_for(kind: str) -> Draft202012Validator:
    name = next((name for name, record in FILES.items() if record == kind), "event")
    return Draft202012Validator(schema(name))


def problems(document: bytes | dict[str, Any]) -> list[str]:
    """Return the objections of the schema of the document's type."""
    loaded = json.loads(document) if isinstance(document, bytes) else document
    return [error.message for error in validator_for(loaded["type"]).iter_errors(loaded)]


class Listener(Recorder):
    """A publisher that selects all records, and refuses events while a flag is set."""

    all_records = True
    refusing = False

    async def publish(self, events: Sequence[Event]) -> None:
        super().publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        return 0 if self.refusing else super().publish_nowait(events)


@pytest.fixture
def payload_events() -> Iterator[Event]:
    return iter(
        Event(
            payload.type,
            (3, 4),
            seq,
            None if seq == 7 else seq - 1,
            "0123456789abcdef",
            datetime.now(UTC),
            payload.data,
        )
        for seq, payload in enumerate(load_payloads().values(), 1)
    )


def test_there_is_a_schema_for_each_kind_of_document_and_each_is_a_schema() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {*FILES, "status"}
    assert {record for record in FILES.values() if record} == {*RecordType, POSITION}
    for name in {*FILES, "status"}:
        Draft202012Validator.check_schema(schema(name))


def test_every_sample_payload_makes_a_document_that_fits(payload_events: Iterator[Event]) -> None:
    documents = [event.document for event in payload_events]
    assert len(documents) == 135
    assert {problem for document in documents for problem in problems(document)} == set()
    assert {tuple(json.loads(document)) for document in documents} == {tuple(schema("event")["properties"])}, (
        "the keys, in the order that the schema names them in"
    )


async def test_the_records_of_a_run_fit(sim: Simulator, start_stage: StartStage) -> None:
    """The run has a drop, a resume, events that find no room, and two lost sessions, one at the end: all kinds of records."""
    listener = Listener("listener")
    stage = start_stage(sim, publishers=[listener])
    tracker = await stage.ready()
    await sim.drop()
    await stage.ready(generation=2)
    listener.refusing = True
    for number in range(5):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number), "content": 'é🐾"\\'})
    await stage.until(lambda: tracker.stats.drop_count > 0)
    listener.refusing = False
    await sim.invalidate()
    await stage.ready(generation=3, within=60.0)
    await sim.invalidate()
    await stage.until(lambda: tracker.session is None)
    await stage.stop()
    documents = [json.loads(event.document) for event in listener.everything]
    assert [problem for document in documents for problem in problems(document)] == []
    assert {document["type"] for document in documents} >= set(RecordType)
    gaps = [document["data"] for document in documents if document["type"] == RecordType.GAP]
    assert {(gap["kind"], gap["end"] is None) for gap in gaps} == {
        ("publisher", False),
        ("session", False),
        ("session", True),
    }


def test_the_positions_of_the_bus_fit() -> None:
    for since, types in ((0, {}), (3, {"READY": 1, "MESSAGE_CREATE": MAX_SEQ})):
        position = Position((0, 1), "0123456789abcdef", since, 7, types)
        assert problems(position_document(position, datetime(2026, 1, 1, tzinfo=UTC))) == []


EVENT = {
    "type": "MESSAGE_CREATE",
    "shard": [0, 1],
    "seq": 42,
    "prev": 37,
    "session": "3fa94b2c5d6e7f80",
    "timestamp": "2026-11-23T09:30:01.123456Z",
    "data": {},
}
RECORD = {**EVENT, "seq": None, "prev": None}
STATE = {
    "source": "Ready",
    "trigger": "closed",
    "target": "Unhealthy",
    "cause": "x",
    "generation": 1,
    "milliseconds": 0.5,
}
GAP = {
    "kind": "publisher",
    "publisher": "audit",
    "from_seq": 3,
    "to_seq": 9,
    "cause": "full",
    "start": EVENT["timestamp"],
    "end": EVENT["timestamp"],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "event": EVENT,
    "state": {**RECORD, "type": "DISCORDER_STATE", "data": STATE},
    "resumed": {**RECORD, "type": "DISCORDER_RESUMED", "data": {"replayed": 3}},
    "gap": {**RECORD, "type": "DISCORDER_GAP", "data": GAP},
    "position": {**RECORD, "type": "DISCORDER_POSITION", "data": {"since": 1, "last": 2, "types": {"READY": 2}}},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_key_may_be_missing(name: str) -> None:
    example = EXAMPLES[name]
    validator = Draft202012Validator(schema(name))
    assert validator.is_valid(example)
    for key in example:
        assert not validator.is_valid({k: v for k, v in example.items() if k != key}), key
    for key in example["data"]:
        data = {k: v for k, v in example["data"].items() if k != key}
        assert not validator.is_valid({**example, "data": data}), key


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("event", {"type": "DISCORDER_STATE"}),
    ("event", {"seq": None}),
    ("event", {"seq": MAX_SEQ + 1}),
    ("event", {"session": "3fa9"}),
    ("event", {"shard": [0]}),
    ("event", {"timestamp": "2026-11-23T09:30:01Z"}),
    ("state", {"seq": 1}),
    ("state", {"data": {**STATE, "target": "Happy"}}),
    ("resumed", {"data": {"replayed": -1}}),
    ("resumed", {"session": None}),
    ("gap", {"data": {**GAP, "kind": "session"}}),
    ("gap", {"data": {**GAP, "publisher": None}}),
    ("gap", {"data": {**GAP, "to_seq": None}}),
    ("position", {"data": {"since": 1, "last": 2, "types": {"READY": None}}}),
]


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_what_is_never_published_does_not_fit(name: str, change: dict[str, Any]) -> None:
    assert not Draft202012Validator(schema(name)).is_valid({**EXAMPLES[name], **change})


def test_the_largest_sequence_fits_and_data_may_be_anything() -> None:
    validator = Draft202012Validator(schema("event"))
    for change in ({"seq": MAX_SEQ, "prev": MAX_SEQ - 1}, {"prev": 0}, {"prev": None}, {"data": None}, {"data": [1]}):
        assert validator.is_valid({**EVENT, **change})


def test_the_state_schema_names_the_states_and_triggers_of_the_table() -> None:
    data = schema("state")["properties"]["data"]["properties"]
    states, triggers = [state.value for state in State], [name.value for name in Name]
    for place, written in (("source", states), ("target", states), ("trigger", triggers)):
        assert data[place]["enum"] == written, f"docs/schemas/state.json: the enum of {place} is to be {written}"
