"""Compare what a broker keeps with what the simulator sent: each event once, in order, or told as lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from discorder.records import RecordType
from discorder.wire import ReceivedEvent, session_label

Place = tuple[str, int]  # label of a session, sequence


@dataclass(slots=True)
class Verdict:
    """Count events. ``untold``: missing, and in no gap record; ``wrongly_told``: in a gap record, and kept all the same."""

    sent: int = 0
    missing: int = 0
    untold: int = 0
    wrongly_told: int = 0
    twice: int = 0
    unknown: int = 0
    out_of_order: int = 0
    gaps: list[str] = field(default_factory=list)

    def faults(self, *, may_lose: bool) -> list[str]:
        """Return what must not be, as sentences. ``may_lose``: events may be missing if that is told."""
        found = {
            "events are missing": 0 if may_lose else self.missing,
            "events are missing and not told": self.untold,
            "events are told as lost and are there": self.wrongly_told,
            "events are there twice": self.twice,
            "events were never sent": self.unknown,
            "events of a shard come before earlier ones": self.out_of_order,
        }
        return [f"{count} {what}" for what, count in found.items() if count]


def judge(sent: Iterable[tuple[str, int, str]], kept: Sequence[ReceivedEvent]) -> Verdict:
    """Compare ``kept`` with `Simulator.sent`; ``kept`` is in order for each shard."""
    wanted = [(session_label(session), seq) for session, seq, _ in sent]
    sessions = {session: number for number, session in enumerate(dict.fromkeys(session for session, _ in wanted))}
    places = Counter(place for one in kept if (place := _place(one)) is not None)
    missing = {place for place in wanted if place not in places}
    gaps = [one for one in kept if one.type == RecordType.GAP]
    told = {place for gap in gaps for place in _told(gap, wanted)}
    return Verdict(
        sent=len(wanted),
        missing=len(missing),
        untold=len(missing - told),
        wrongly_told=len(told & places.keys()),
        twice=sum(count - 1 for count in places.values()),
        unknown=len(places.keys() - set(wanted)),
        out_of_order=_inversions(kept, sessions),
        gaps=[f"shard {gap.shard[0]}: {gap.json()}" for gap in gaps],
    )


def _place(event: ReceivedEvent) -> Place | None:
    return None if event.seq is None or event.session is None else (event.session, event.seq)


def _told(gap: ReceivedEvent, wanted: Iterable[Place]) -> set[Place]:
    lost = gap.json()
    first, last = lost["from_seq"], lost["to_seq"]
    return {
        (session, seq)
        for session, seq in wanted
        if session == gap.session and seq >= first and (last is None or seq <= last)
    }


def _inversions(kept: Sequence[ReceivedEvent], sessions: dict[str, int]) -> int:
    newest: dict[int, tuple[int, int]] = {}
    inversions = 0
    for event in kept:
        if event.seq is None or event.session not in sessions:
            continue
        place = (sessions[event.session], event.seq)
        inversions += place < newest.get(event.shard[0], place)
        newest[event.shard[0]] = max(place, newest.get(event.shard[0], place))
    return inversions
