"""Read the transitions of a control plane from a log or from a file of DISCORDER_STATE documents, without checking them.

Three kinds of lines are read, in any mixture; all other lines are ignored:

- a JSON log line with the message "Transition" (`log.format = "json"`, `log.level = "debug"`),
- the same in the text log,
- a DISCORDER_STATE document, as ``discorder tail --type DISCORDER_STATE --json`` prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from discorder.errors import UnusableFile
from discorder.statemachine.table import INITIAL, Name, State

_MESSAGE = "Transition"
_TOPIC = "DISCORDER_STATE"
_TEXT = re.compile(rf" {_MESSAGE}(?= source=)(?P<fields>.*)")
_FIELD = re.compile(r' (?P<key>\w+)=(?P<value>"(?:[^"\\]|\\.)*"|\S+)')


@dataclass(frozen=True, slots=True)
class TraceStep:
    """Hold one transition. ``where`` is the file and line for messages."""

    source: State
    trigger: Name
    target: State
    generation: int
    where: str

    def __str__(self) -> str:
        return f"{self.source} --{self.trigger}--> {self.target} (generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Trace:
    """Hold one run of one shard, complete or not."""

    name: str
    steps: tuple[TraceStep, ...]


def read_traces(path: Path) -> list[Trace]:
    """Return the runs of `read_runs`, each with a name."""
    return [Trace(name, tuple(steps)) for name, steps in _named(read_runs(path))]


def read_runs(path: Path) -> dict[int, list[list[TraceStep]]]:
    """Return every run in the file, by shard. A step out of Disconnected starts a new run.

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
    """Return the fields of a transition, including the shard number, or None for any other line."""
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
        return None  # a truncated line, or not JSON
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
