"""The close-code table, compared with a second copy that was written by hand."""

from __future__ import annotations

import pytest

from discorder.statemachine.close_codes import (
    CLOSE_CODES,
    UNKNOWN_CLOSE,
    CloseClass,
    classify,
)

EXPECTED = {
    None: CloseClass.RESUME,
    1000: CloseClass.RESUME,
    1001: CloseClass.RESUME,
    4000: CloseClass.RESUME,
    4001: CloseClass.RESUME,
    4002: CloseClass.RESUME,
    4003: CloseClass.RESUME,
    4004: CloseClass.FATAL,
    4005: CloseClass.RESUME,
    4007: CloseClass.REIDENTIFY,
    4008: CloseClass.SLOW_DOWN,
    4009: CloseClass.REIDENTIFY,
    4010: CloseClass.FATAL,
    4011: CloseClass.FATAL,
    4012: CloseClass.FATAL,
    4013: CloseClass.FATAL,
    4014: CloseClass.FATAL,
}


@pytest.mark.parametrize(("code", "kind"), EXPECTED.items())
def test_each_code_means_what_the_rules_say(code: int | None, kind: CloseClass) -> None:
    """RESUME first; 4007 and 4009 need a new session; 4008 slows down; facts about token and layout are fatal."""
    assert classify(code).kind is kind


def test_no_line_is_missing_and_none_is_too_many() -> None:
    """The table and this copy of it have the same codes."""
    assert set(CLOSE_CODES) == set(EXPECTED)


@pytest.mark.parametrize("code", [0, 999, 1002, 1006, 1011, 1012, 3000, 4006, 4015, 4200, 4999])
def test_an_unknown_code_is_resumed(code: int) -> None:
    """An undocumented code is no reason to spend an IDENTIFY."""
    assert classify(code) is UNKNOWN_CLOSE
    assert UNKNOWN_CLOSE.kind is CloseClass.RESUME


@pytest.mark.parametrize("code", [code for code, kind in EXPECTED.items() if kind is CloseClass.FATAL])
def test_a_fatal_code_says_what_to_do(code: int) -> None:
    """The operator needs the remedy in the message."""
    assert classify(code).remedy
