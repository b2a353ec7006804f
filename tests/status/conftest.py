"""A status board beside a control plane that runs against a simulator or on in-memory connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from discorder.status.board import Board
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import Op
from tests.harness import TOKEN, Line, MemoryStage, Stage
from tests.test_schemas import schema

Document = dict[str, Any]

SESSION_ID = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"  # never in a document
CONTENT = "the contents of a message"  # as little
# or ages on the real clock
NO_AGES = (
    "interval_s",
    "backoff_s",
    "eta_s",
    "span_s",
    "span_limit_s",
    "step_s",
    "catch_up_s",
)

VALIDATOR = Draft202012Validator(schema("status"))


class Watched:
    """A stage with a board, and a document for every transition of a single shard."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._at_transitions: list[bytes] = []
        self._boards: list[Board] = []
        stage.ref.on_fill = self._start

    def _start(self, tracker: GatewayTracker) -> None:
        board = Board(tracker, self.stage.clock)
        board.start()
        self._boards.append(board)
        if len(tracker.shards) == 1:
            tracker.watch(lambda *_: self._at_transitions.append(board.encoded()))

    @property
    def at_transitions(self) -> list[Document]:
        """Return the document after each transition so far."""
        return [checked(encoded) for encoded in self._at_transitions]

    @property
    def board(self) -> Board:
        return self._boards[0]

    @property
    def document(self) -> Document:
        """Return the document now; it fits the schema and has no secret in it."""
        return checked(self.board.encoded())

    @property
    def shard(self) -> Document:
        """Return the only shard."""
        (shard,) = self.document["shards"]
        return dict(shard)

    def close(self) -> None:
        for board in self._boards:
            board.close()


Watch = Callable[[Stage], Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Return a function that puts a board beside a stage."""
    watched: list[Watched] = []

    def start(stage: Stage) -> Watched:
        watched.append(Watched(stage))
        return watched[-1]

    yield start
    for one in watched:
        one.close()


def checked(encoded: bytes) -> Document:
    """Return a document that fits the schema, has no secret in it, and no milliseconds where seconds should be."""
    document: Document = json.loads(encoded)
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    for secret in (TOKEN, SESSION_ID, CONTENT):
        assert secret not in encoded.decode()
    process = document["process"]
    up = (moment(document["at"]) - moment(process["started_at"])).total_seconds()
    assert [
        (path, value)
        for path, value in seconds_of(document)
        if value > up + 1.0 and not path.endswith(NO_AGES) and ".loop_lag_s" not in path  # on the real clock
    ] == []
    return document


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_of(value: Any, path: str = "", *, inside: bool = False) -> Iterator[tuple[str, float]]:
    """Yield path and value of each number whose key, or the key around it, ends in ``_s``, except rates."""
    if isinstance(value, dict):
        for key, item in value.items():
            in_seconds = inside or (key.endswith("_s") and not key.endswith("per_s"))
            yield from seconds_of(item, f"{path}.{key}", inside=in_seconds)
    elif isinstance(value, list):
        for item in value:
            yield from seconds_of(item, path, inside=inside)
    elif inside and isinstance(value, int | float):
        yield path, value


async def opened(stage: MemoryStage) -> Line:
    """Return the first connection, in Ready, after a message; session id and contents must appear nowhere."""
    line = await stage.line()
    line.hello()
    await stage.until(lambda: line.ops(Op.IDENTIFY))
    line.ready(SESSION_ID)
    line.feed(line.dispatched("MESSAGE_CREATE", {"id": "1", "content": CONTENT}))
    await stage.ready()
    return line
