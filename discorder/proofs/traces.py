"""What a control plane left of its transitions: the runs in a log or in a file of DISCORDER_STATE documents. Judges nothing.

Three kinds of lines are understood, mixed or not; all others are passed over:

- a JSON log line with the message "Transition" (`log.format = "json"`, `log.level = "debug"`),
- the same in the text log,
- a DISCORDER_STATE document, as ``discorder tail --type DISCORDER_STATE --json`` prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from discorder.errors import UnusableFile
from discorder.statemachine.table import INITIAL, Name, State

_MESSAGE = "Transition"
_TOPIC = "DISCORDER_STATE"
_TEXT = re.compile(rf" {_MESSAGE}(?= source=)(?P<fields>.*)")
_FIELD = re.compile(r' (?P<key>\w+)=(?P<value>"(?:[^"\\]|\\.)*"|\S+)')


class Recorded(Protocol):
    """A transition as the ring of a tracker holds it."""

    @property
    def source(self) -> State: ...
    @property
    def trigger(self) -> Name: ...
    @property
    def target(self) -> State: ...
    @property
    def generation(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One transition; ``where`` says where it was read, for a message."""

    source: State
    trigger: Name
    target: State
    generation: int
    where: str

    def __str__(self) -> str:
        return f"{self.source} --{self.trigger}--> {self.target} (generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of one shard, or what is left of it."""

    name: str
    steps: tuple[TraceStep, ...]


def trace_of(name: str, ring: Iterable[Recorded]) -> Trace:
    """A tracker's ring."""
    return Trace(
        name,
        tuple(
            TraceStep(one.source, one.trigger, one.target, one.generation, f"transition {count}")
            for count, one in enumerate(ring, 1)
        ),
    )


def read_traces(path: Path) -> list[Trace]:
    """`read_runs`, each run with a name."""
    return [Trace(name, tuple(steps)) for name, steps in _named(read_runs(path))]


def read_runs(path: Path) -> dict[int, list[list[TraceStep]]]:
    """Every run in the file, by shard; a step out of Disconnected begins a new one.

    Raises `UnusableFile` for a file that cannot be read, holds no transitions, or names a state or trigger that the table
    does not know.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise UnusableFile(msg) from error
    runs: dict[int, list[list[TraceStep]]] = {}
    for number, line in enumerate(lines, 1):
        if (fields := _fields(line)) is not None:
            shard, step = _step(fields, f"{path.name}:{number}")
            of_shard = runs.setdefault(shard, [])
            if not of_shard or step.source is INITIAL:
                of_shard.append([])
            of_shard[-1].append(step)
    if not runs:
        msg = (
            f"{path} holds no transitions; record them with 'discorder tail --type {_TOPIC} --json', "
            "or with log.level=debug in the log"
        )
        raise UnusableFile(msg)
    return runs


def _named(runs: Mapping[int, list[list[TraceStep]]]) -> Iterator[tuple[str, list[TraceStep]]]:
    for shard, of_shard in sorted(runs.items()):
        for count, steps in enumerate(of_shard, 1):
            yield f"shard {shard}, run {count}", steps


def _fields(line: str) -> Mapping[str, object] | None:
    """The fields of a transition, with the shard's number; None for any other line."""
    if line.startswith("{"):
        return _from_json(line)
    found = _TEXT.search(line)
    if found is None:
        return None
    return {field["key"]: field["value"] for field in _FIELD.finditer(found["fields"])}


def _from_json(line: str) -> Mapping[str, object] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None  # a torn line, or no JSON after all
    if document.get("message") == _MESSAGE:
        return cast("Mapping[str, object]", document)
    if document.get("type") == _TOPIC:
        return {**document["data"], "shard": document["shard"][0]}
    return None


def _step(fields: Mapping[str, object], where: str) -> tuple[int, TraceStep]:
    try:
        source, target = State(str(fields["source"])), State(str(fields["target"]))
        trigger = Name(str(fields["trigger"]))
        shard, generation = int(str(fields["shard"])), int(str(fields["generation"]))
    except (KeyError, ValueError) as error:
        msg = f"{where} is no transition of this version's table: {error}"
        raise UnusableFile(msg) from error
    return shard, TraceStep(source, trigger, target, generation, where)
