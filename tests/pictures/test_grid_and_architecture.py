"""The grid shows every pair of the table; the picture of the package shows its imports without the implied ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import discorder
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.imports import ENTRY_POINTS, Component, read_components, reduced
from discorder.pictures.render import render
from discorder.statemachine import State
from discorder.statemachine.table import CELLS, Name, rows_for
from discorder.statemachine.terms import Kind


def test_the_grid_has_a_cell_for_every_pair() -> None:
    """Read back, row by row: the targets of the table, a dot for ignore, a cross for reject, a mark for breach."""
    table = render(Subject.GRID, PictureFormat.DOT).decode()
    rows = re.findall(r"<tr><td align=\"right\"[^>]*><b>(\w+)</b></td>(.*?)</tr>", table)
    assert [name for name, _ in rows] == [name.value for name in Name]
    for name, cells in rows:
        said = [re.sub(r"<br/>", " or ", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells)]
        for state, cell in zip(State, said, strict=True):
            text = re.sub(r"<[^>]+>", "", cell)
            if (pair := (state, Name(name))) in CELLS:
                assert text == {Kind.IGNORE: "·", Kind.REJECT: "×", Kind.BREACH: "!"}[CELLS[pair].kind]
            else:
                targets = {str(row.target or "stays") for row in rows_for(*pair)}
                assert set(text.split(" or ")) == targets


def test_every_part_of_the_package_is_drawn_with_its_summary() -> None:
    """Modules and sub-packages; each has a docstring."""
    folder = Path(next(iter(discorder.__path__)))
    expected = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(read_components()) | ENTRY_POINTS == {name for name in expected if name != "etc"} | ENTRY_POINTS
    assert [component.name for component in read_components().values() if not component.summary] == []
    drawn = render(Subject.ARCHITECTURE, PictureFormat.DOT).decode()
    assert all(f'id="component-{name}"' in drawn for name in read_components())


def test_imports_are_those_of_the_code() -> None:
    """A few known imports; and the core imports no other component."""
    assert read_components()["statemachine"].imports == frozenset()
    assert {"publishers", "statemachine", "wire"} <= read_components()["shard"].imports
    assert "simulator" in read_components()["cli"].imports
    assert not {"control_plane", "shard", "plane"} & read_components()["simulator"].imports


def test_arrows_that_follow_from_others_are_left_out() -> None:
    """a imports b and c, b imports c: a to c is left out. Every imported component can still be reached."""

    def component(name: str, *imports: str) -> Component:
        return Component(name, "", is_package=False, imports=frozenset(imports))

    small = {"a": component("a", "b", "c"), "b": component("b", "c"), "c": component("c")}
    assert reduced(small) == {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset()}
    arrows = reduced(read_components())
    for name, found in read_components().items():
        assert arrows[name] <= found.imports <= reached(name, arrows)


def reached(name: str, arrows: dict[str, frozenset[str]]) -> frozenset[str]:
    """Return all direct and indirect imports of ``name``."""
    return arrows[name].union(*(reached(other, arrows) for other in arrows[name]))


def test_no_arrow_is_drawn_twice() -> None:
    """As many arrows as the reduction has."""
    drawn = Counter(
        re.findall(r"^  (\w+) -> (\w+)$", render(Subject.ARCHITECTURE, PictureFormat.DOT).decode(), re.MULTILINE)
    )
    assert sum(drawn.values()) == len(drawn) == sum(len(others) for others in reduced(read_components()).values())
