"""`make soak` in small, and what it counts as accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.simulator import SentDocument
from discorder.wire import session_label
from tests.endurance.soak import Notes, Soak, run

SENT = [SentDocument("s", seq, "TYPING_START", b"{}") for seq in range(1, 7)]


@pytest.mark.system
async def test_killing_plane_and_bot_in_random_order_loses_nothing() -> None:
    """The file has every event in its order; the bot has it, or a gap that covers it."""
    outcome = await run(Soak(seconds=4.0, every=0.6, away=0.5, rate=300.0, seed=1))
    assert outcome.all_faults() == []
    assert outcome.events > 0
    assert outcome.ends.total() > 3
    assert outcome.bot_has > 0


def test_an_event_in_a_gap_is_accounted_for_and_any_other_must_be_there(tmp_path: Path) -> None:
    label = session_label("s")
    notes = tmp_path / "bot.tsv"
    # the last one is torn
    notes.write_text(f"event\t{label}\t1\ngap\t{label}\t2\t3\nevent\t{label}\t5\nevent\t{label}\t6")
    assert Notes.read(notes).unaccounted(SENT) == [(label, 4), (label, 6)]
    notes.write_text(f"event\t{label}\t1\ngap\t{label}\t2\t-\n")
    assert Notes.read(notes).unaccounted(SENT) == []
    assert len(Notes.read(tmp_path / "none").unaccounted(SENT)) == 6
