"""The check itself: it must see a loss, a swap, an alteration, and must not mind a replay after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.simulator import SentDocument
from discorder.wire import session_label
from tests.endurance.evidence import Row, compare, count_lines, read_rows, split

SENT = [SentDocument("s", seq, "TYPING_START", b"{}") for seq in range(1, 7)]


def rows(*numbers: int, session: str = "s") -> list[Row]:
    return [Row("TYPING_START", session_label(session), seq, b"{}") for seq in numbers]


def test_a_whole_stream_in_one_life_is_sound() -> None:
    account = compare(SENT, [rows(1, 2, 3, 4, 5, 6)])
    assert account.sound
    assert account.duplicates.total() == 0


def test_the_planes_own_records_are_no_part_of_the_stream() -> None:
    record = Row("DISCORDER_STATE", "", 0, b"{}")
    assert compare(SENT, [[record, *rows(1, 2, 3), record, *rows(4, 5, 6)]]).sound


def test_what_comes_twice_after_a_kill_is_a_replay() -> None:
    account = compare(SENT, [rows(1, 2, 3, 4), rows(3, 4, 5), rows(), rows(5, 6)])
    assert account.sound
    assert (account.duplicates[1], account.duplicates[3]) == (2, 1)


@pytest.mark.parametrize(
    ("lives", "fault"),
    [
        ([rows(1, 2, 3, 2, 3, 4, 5, 6)], "comes after 3"),
        ([rows(1, 3, 2, 4, 5, 6)], "comes after 1"),
        ([rows(1, 2), rows(4, 5, 6, 3)], "the newest so far is 2"),
        ([rows(1, 2, 3, 4, 5, 6, 7)], "was never sent"),
        ([[*rows(1, 2, 3, 4, 5), Row("TYPING_START", session_label("s"), 6, b'{"a":1}')]], "not what was sent"),
    ],
    ids=["twice in one life", "swapped", "a life that begins too late", "invented", "altered"],
)
def test_disorder_has_a_sentence(lives: list[list[Row]], fault: str) -> None:
    account = compare(SENT, lives)
    assert not account.sound
    assert any(fault in sentence for sentence in account.faults)


def test_a_hole_is_counted_in_the_life_that_went_on_after_it() -> None:
    account = compare(SENT, [rows(1, 2, 3), rows(5, 6)])
    assert account.missing == {1: 1}


def test_what_is_missing_at_the_end_belongs_to_the_last_life() -> None:
    assert compare(SENT, [rows(1, 2), rows(3, 4)]).missing == {1: 2}


def test_sessions_are_compared_by_themselves_and_a_disowned_one_may_be_missing() -> None:
    sent = [
        document for pair in zip(SENT, [d._replace(session_id="t") for d in SENT], strict=True) for document in pair
    ]
    mixed = [
        row for pair in zip(rows(1, 2, 3, 4, 5, 6, session="t"), rows(1, 2, 3, 4, 5, 6), strict=True) for row in pair
    ]
    assert compare(sent, [mixed]).sound
    assert compare(sent, [rows(1, 2, 3, 4, 5, 6)]).missing == {0: 6}
    assert compare(sent, [rows(1, 2, 3, 4, 5, 6)], disowned=["t"]).sound


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "audit.tsv"
    line = "TYPING_START\t2026-11-25T00:00:00.000000Z\tlabel\t0/1\t{}\t\t{{}}\n"
    for name, seq in (("audit.tsv", 12), ("audit.tsv.2", 10), ("audit.tsv.10", 9), ("audit.tsv.1", 11)):
        (tmp_path / name).write_text(line.format(seq))
    with path.open("a") as file:
        file.write("TYPING")  # torn
    assert count_lines(path) == 4
    path.write_text(line.format(12))
    assert [row.seq for row in read_rows(path)] == [9, 10, 11, 12]


def test_rows_are_split_where_lives_ended() -> None:
    assert split(rows(1, 2, 3, 4), [1, 1, 3]) == [rows(1), [], rows(2, 3), rows(4)]
