"""The result of many stories as a table: point, kills, and what each of them cost."""

from __future__ import annotations

from collections.abc import Sequence

from tests.kills.story import Kill, Story

COLUMNS = ("point", "kills", "missing", "duplicates", "identifies", "excused")


def table(stories: Sequence[Story]) -> str:
    """One line per point, and a sum. Identifies are those beyond the first; excused are kills before READY was on the disk."""
    by_point: dict[str, list[Kill]] = {}
    for story in stories:
        for kill in story.kills:
            by_point.setdefault(kill.moment.point, []).append(kill)
    rows = [(point, *_sums(kills)) for point, kills in sorted(by_point.items())]
    every = [kill for kills in by_point.values() for kill in kills]
    lines = [COLUMNS, *rows, ("all", *_sums(every))]
    width = max(len(str(line[0])) for line in lines)
    return "\n".join(f"{line[0]!s:<{width}}" + "".join(f"{cell!s:>12}" for cell in line[1:]) for line in lines)


def _sums(kills: Sequence[Kill]) -> tuple[int, int, int, int, int]:
    return (
        len(kills),
        sum(kill.missing for kill in kills),
        sum(kill.duplicates for kill in kills),
        sum(kill.identifies for kill in kills),
        sum(kill.excused for kill in kills),
    )
