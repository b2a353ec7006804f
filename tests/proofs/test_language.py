"""Conditions and effects as data: what is left of them where something is known, or nobody asks."""

from __future__ import annotations

import pytest

from discorder.proofs.language import (
    FALSE,
    NO,
    TRUE,
    YES,
    Assign,
    Not,
    Variable,
    When,
    all_of,
    either,
    flag,
    given,
    without,
)

COLOUR = Variable("colour", ("red", "green", "blue"))
WET, SEEN = flag("wet"), flag("seen")


def test_a_value_that_a_variable_cannot_have_is_named() -> None:
    """A slip of the pen in the world does not make a condition that never holds."""
    with pytest.raises(ValueError, match="colour cannot be 'grey'; it is one of: red, green, blue"):
        COLOUR.is_("grey")


def test_what_is_known_decides_a_condition() -> None:
    """Folded to true, to false, or to the part that is still open."""
    known = {COLOUR: COLOUR.index("green")}
    assert given(COLOUR.is_("green", "blue"), known) == TRUE
    assert given(Not(COLOUR.is_not("green")), known) == TRUE
    assert given(all_of(COLOUR.is_("red"), WET.is_(YES)), known) == FALSE
    assert given(either(COLOUR.is_("red"), WET.is_(YES)), known) == WET.is_(YES)
    assert given(all_of(COLOUR.is_("green"), WET.is_(YES)), known) == WET.is_(YES)


def test_a_variable_that_nobody_asks_for_takes_its_effects_along() -> None:
    """What sets it is gone, what depends on it too; the rest stays."""
    wet = Assign(WET, WET.index(YES))
    effects = (
        wet,
        SEEN.becomes(YES),
        When(COLOUR.is_("red"), (SEEN.becomes(NO),)),
        When(COLOUR.is_("red"), (wet,), (SEEN.becomes(NO),)),
        When(SEEN.is_(YES), (wet,)),
    )
    assert without(effects, {SEEN}) == (wet, When(COLOUR.is_("red"), (wet,)))
