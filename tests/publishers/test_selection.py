"""The function that applies a publisher's selection."""

from __future__ import annotations

from collections.abc import Callable

from discorder.publishers.options import EventSelection, selector
from discorder.wire import Event


def test_who_wants_everything_is_asked_nothing() -> None:
    """The batch is passed on unchanged."""
    assert selector(EventSelection()) is None
    assert selector(EventSelection(include=("MESSAGE_*", "*"))) is None


def test_what_is_left_is_included_and_not_excluded_whatever_the_case(make_event: Callable[..., Event]) -> None:
    batch = [make_event(seq, kind) for seq, kind in enumerate(["READY", "MESSAGE_CREATE", "MESSAGE_DELETE"], 1)]

    def left(selection: EventSelection) -> list[int | None]:
        select = selector(selection)
        assert select is not None
        return [event.seq for event in select(batch)]

    assert left(EventSelection(include=("message_*",))) == [2, 3]
    assert left(EventSelection(exclude=("*_delete",))) == [1, 2]
    assert left(EventSelection(include=("MESSAGE_*",), exclude=("*_DELETE",))) == [2]
