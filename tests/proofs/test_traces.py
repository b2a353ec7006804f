"""Transitions are read from every kind of file that a control plane writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.errors import UnusableFile
from discorder.proofs.traces import TraceStep, read_traces
from discorder.statemachine import State
from discorder.statemachine.table import Name

JSON_LOG = (
    '{"time": "2026-11-25T08:00:00.000+00:00", "level": "DEBUG", "message": "Transition", "file": "chronicle.py", "line": 64, '
    '"source": "Disconnected", "trigger": "start", "target": "Connecting", "cause": null, "milliseconds": 0.0, "shard": 3, '
    '"generation": 1}'
)
TEXT_LOG = (
    "2026-11-25 08:06:13.165+00:00 DEBUG    Transition source=Connecting trigger=connect_failed target=Unhealthy "
    'cause="connect_failed: refused, target=Ready" milliseconds=0.0 shard=3 generation=1 [chronicle.py:64]'
)
DOCUMENT = (
    '{"type":"DISCORDER_STATE","shard":[3,4],"seq":null,"prev":null,"session":null,"timestamp":"2026-11-25T08:00:01Z",'
    '"data":{"source":"Unhealthy","trigger":"diagnosed","target":"Restarting","cause":"x","generation":1,"milliseconds":0.1}}'
)
EVENT = '{"type":"MESSAGE_CREATE","shard":[3,4],"seq":4,"prev":0,"session":"a","timestamp":"2026-11-25T08:00:01Z","data":{}}'


def test_three_kinds_of_lines_are_read_and_others_passed_over(tmp_path: Path) -> None:
    """JSON log, text log and state documents, even mixed; an incomplete line at the end is not an error."""
    path = tmp_path / "mixed"
    path.write_text("\n".join([JSON_LOG, "noise", EVENT, TEXT_LOG, DOCUMENT, JSON_LOG[:40]]))
    (trace,) = read_traces(path)
    assert trace.name == "shard 3, run 1"
    assert trace.steps == (
        TraceStep(State.DISCONNECTED, Name.START, State.CONNECTING, 1, "mixed:1"),
        TraceStep(State.CONNECTING, Name.CONNECT_FAILED, State.UNHEALTHY, 1, "mixed:4"),
        TraceStep(State.UNHEALTHY, Name.DIAGNOSED, State.RESTARTING, 1, "mixed:5"),
    )


def test_shards_and_processes_are_told_apart(tmp_path: Path) -> None:
    """Each shard and each start is a separate run."""
    path = tmp_path / "log"
    other = JSON_LOG.replace('"shard": 3', '"shard": 0')
    path.write_text("\n".join([JSON_LOG, other, TEXT_LOG, JSON_LOG]))
    assert [(trace.name, len(trace.steps)) for trace in read_traces(path)] == [
        ("shard 0, run 1", 1),
        ("shard 3, run 1", 2),
        ("shard 3, run 2", 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EVENT, "holds no transitions; record them with 'discorder tail --type DISCORDER_STATE --json'"),
        (JSON_LOG.replace("Connecting", "Dreaming"), "log:1 is no transition of this version's table: 'Dreaming'"),
        (
            JSON_LOG.replace('"generation": 1', '"gen": 1'),
            "log:1 is no transition of this version's table: 'generation'",
        ),
    ],
)
def test_a_file_that_is_no_trace_says_why(tmp_path: Path, text: str, message: str) -> None:
    """The message also says which files are accepted."""
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(UnusableFile, match=message):
        read_traces(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It is reported like every other error of the command."""
    with pytest.raises(UnusableFile, match="nowhere cannot be read: No such file"):
        read_traces(tmp_path / "nowhere")
