"""Conditions and effects as data: how they are simplified when values are known or unused."""

from __future__ import annotations

import pytest

from discorder.proofs.model_dsl import (
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
    """A typing error in the environment must not give a condition that never holds."""
    with pytest.raises(ValueError, match="colour cannot be 'grey'; it is one of: red, green, blue"):
        COLOUR.is_("grey")


def test_what_is_known_decides_a_condition() -> None:
    """The condition is folded to true, to false, or to the part that is still open."""
    known = {COLOUR: COLOUR.index("green")}
    assert given(COLOUR.is_("green", "blue"), known) == TRUE
    assert given(Not(COLOUR.is_not("green")), known) == TRUE
    assert given(all_of(COLOUR.is_("red"), WET.is_(YES)), known) == FALSE
    assert given(either(COLOUR.is_("red"), WET.is_(YES)), known) == WET.is_(YES)
    assert given(all_of(COLOUR.is_("green"), WET.is_(YES)), known) == WET.is_(YES)


def test_a_variable_that_nobody_asks_for_takes_its_effects_along() -> None:
    """Its assignments and the conditions on it are removed; the rest stays."""
    wet = Assign(WET, WET.index(YES))
    effects = (
        wet,
        SEEN.becomes(YES),
        When(COLOUR.is_("red"), (SEEN.becomes(NO),)),
        When(COLOUR.is_("red"), (wet,), (SEEN.becomes(NO),)),
        When(SEEN.is_(YES), (wet,)),
    )
    assert without(effects, {SEEN}) == (wet, When(COLOUR.is_("red"), (wet,)))
