"""The grid shows every pair of the table; the picture of the package shows its imports, and only those that say something."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import discorder
from discorder.pictures import PictureFormat, Subject, render
from discorder.pictures.imports import NOT_PARTS, Part, read_parts, reduced
from discorder.statemachine import State
from discorder.statemachine.table import CELLS, Name, rows_for
from discorder.statemachine.terms import Kind

PARTS = read_parts()


def test_the_grid_has_a_cell_for_every_pair() -> None:
    """Read back, row by row: the targets of the table, a dot for ignore, a cross for reject."""
    table = render(Subject.GRID, PictureFormat.DOT).decode()
    rows = re.findall(r"<tr><td align=\"right\"[^>]*><b>(\w+)</b></td>(.*?)</tr>", table)
    assert [name for name, _ in rows] == [name.value for name in Name]
    for name, cells in rows:
        said = [re.sub(r"<br/>", " or ", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells)]
        for state, cell in zip(State, said, strict=True):
            text = re.sub(r"<[^>]+>", "", cell)
            if (pair := (state, Name(name))) in CELLS:
                assert text == {Kind.IGNORE: "·", Kind.REJECT: "×"}[CELLS[pair].kind]
            else:
                targets = {str(row.target or "stays") for row in rows_for(*pair)}
                assert set(text.split(" or ")) == targets


def test_every_part_of_the_package_is_drawn_with_what_it_says_of_itself() -> None:
    """Modules and sub-packages; none is without a docstring."""
    folder = Path(next(iter(discorder.__path__)))
    expected = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(PARTS) | NOT_PARTS == {name for name in expected if name != "etc"} | NOT_PARTS
    assert [part.name for part in PARTS.values() if not part.says] == []
    drawn = render(Subject.ARCHITECTURE, PictureFormat.DOT).decode()
    assert all(f'id="part-{name}"' in drawn for name in PARTS)


def test_imports_are_those_of_the_code() -> None:
    """A few that everybody knows; and the core imports nothing of ours."""
    assert PARTS["statemachine"].imports == frozenset()
    assert {"publishers", "statemachine", "wire"} <= PARTS["shard"].imports
    assert "simulator" in PARTS["cli"].imports
    assert not {"control_plane", "shard", "plane"} & PARTS["simulator"].imports


def test_arrows_that_follow_from_others_are_left_out() -> None:
    """a imports b and c, b imports c: a to c says nothing new. Everything that is imported can still be reached."""

    def part(name: str, *imports: str) -> Part:
        return Part(name, "", is_package=False, imports=frozenset(imports))

    small = {"a": part("a", "b", "c"), "b": part("b", "c"), "c": part("c")}
    assert reduced(small) == {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset()}
    arrows = reduced(PARTS)
    for name, found in PARTS.items():
        assert arrows[name] <= found.imports <= reached(name, arrows)


def reached(name: str, arrows: dict[str, frozenset[str]]) -> frozenset[str]:
    """Everything below ``name``."""
    return arrows[name].union(*(reached(other, arrows) for other in arrows[name]))


def test_no_arrow_is_drawn_twice() -> None:
    """As many arrows as the reduction has."""
    drawn = Counter(
        re.findall(r"^  (\w+) -> (\w+)$", render(Subject.ARCHITECTURE, PictureFormat.DOT).decode(), re.MULTILINE)
    )
    assert sum(drawn.values()) == len(drawn) == sum(len(others) for others in reduced(PARTS).values())
