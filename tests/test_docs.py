"""The documentation is consistent: links and citations resolve, generated pages are up to date, the index is complete."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discorder.publishers import registry

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
CITATION = re.compile(r"(?<![\w/.-])((?:docs|diagrams|examples)/[\w./-]+\.md)(?:#([\w-]+))?")
FAULT_CASE = re.compile(r"[Ff]ault cases? (\d+)")
ABSENT = re.compile(rf"gateway-protocol\.md|architecture\.md|\.\./shared|{re.escape(str(ROOT))}/|(?<!\d{{4}} )§")
THIS_FILE = Path(__file__).relative_to(ROOT)


@functools.cache
def tracked(*suffixes: str) -> tuple[Path, ...]:
    """Return every text file of the tree with one of these suffixes, except symbolic links."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = (ROOT / name for name in listed.split("\0") if name.endswith(suffixes))
    return tuple(file for file in files if file.is_file() and not file.is_symlink())


@functools.cache
def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def anchors_of(file: Path) -> frozenset[str]:
    """Return the anchors of the headings of a page, as code hosts make them."""
    without_code = re.sub(r"^```.*?^```", "", text_of(file), flags=re.MULTILINE | re.DOTALL)
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", without_code, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = found[anchor] = found.get(anchor, -1) + 1
        anchors.add(f"{anchor}-{count}" if count else anchor)
    return frozenset(anchors)


def broken(page: Path, target: str) -> bool:
    """Return whether a relative link of ``page`` has no target."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return not file.exists() or bool(anchor and file.suffix == ".md" and anchor not in anchors_of(file))


def relative_links(page: Path) -> Iterator[str]:
    without_code = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.finditer(re.sub(r"`[^`\n]*`", "``", without_code)):
        target = link[1] or link[2]
        if "://" not in target and not target.startswith("mailto:"):
            yield target


@pytest.mark.parametrize("page", tracked(".md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    assert [target for target in relative_links(page) if broken(page, target)] == []


def test_every_citation_of_a_page_resolves() -> None:
    """Check code, tests, configuration and pages: the cited file and the cited heading exist."""
    wrong = []
    for file in tracked(".py", ".toml", ".md", ".js", ".pl", "Makefile"):
        for path, anchor in CITATION.findall(text_of(file)):
            page = ROOT / path
            if not (page.is_file() or (file.parent / path).is_file()) or (anchor and anchor not in anchors_of(page)):
                wrong.append(f"{file.relative_to(ROOT)}: {path}#{anchor}")
    assert wrong == []


def test_every_fault_case_that_is_cited_is_in_the_table() -> None:
    cases = set(re.findall(r"^\| (\d+) \|", text_of(ROOT / "docs" / "faults.md"), re.MULTILINE))
    wrong = [
        f"{file.relative_to(ROOT)}: {case}"
        for file in tracked(".py", ".md")
        for case in FAULT_CASE.findall(text_of(file))
        if case not in cases
    ]
    assert wrong == []


def test_nothing_cites_a_paper_that_is_not_in_the_repository() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in tracked(".py", ".toml", ".md", ".js", ".pl")
        if file.relative_to(ROOT) != THIS_FILE
        for line in text_of(file).splitlines()
        if ABSENT.search(line)
    ]
    assert wrong == []


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in relative_links(index)}
    pages = {page.resolve() for page in (ROOT / "docs").glob("*.md")} - {index.resolve()}
    assert pages - linked == set()


def test_the_generated_references_are_up_to_date() -> None:
    """docs/configuration.md matches the schema, and docs/commands.md the command line."""
    checked = subprocess.run(
        [sys.executable, "tools/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_each_configuration_key_has_a_meaning_of_its_own() -> None:
    """A comment of the sample that two keys share explains one of them only."""
    shared = []
    for table in re.split(r"^##", text_of(ROOT / "docs" / "configuration.md"), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `(\w+)` \|.* \| ([^|]+) \|$", table, re.MULTILINE) if "| key |" in table else []
        keys: dict[str, list[str]] = {}
        for key, meaning in rows:
            keys.setdefault(meaning, []).append(key)
        shared += [(table.splitlines()[0], names) for names in keys.values() if len(names) > 1]
    assert shared == []


def test_the_pages_name_every_kind_of_publisher() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", text_of(ROOT / "docs" / "publishers.md"), re.MULTILINE))
    assert listed == set(registry.BUILT_IN)


def test_the_map_of_the_source_names_every_folder() -> None:
    page = text_of(ROOT / "CONTRIBUTING.md")
    folders = {file.relative_to(ROOT).parts[:-1] for file in tracked(".py")}
    named = {parts[-1] if parts[0] in {"discorder", "publishers"} else parts[0] for parts in folders if parts}
    assert {name for name in named if f"{name}/" not in page} == set()


def test_the_readme_stays_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 100, "what is longer belongs to a page"
