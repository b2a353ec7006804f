"""Write the tables of a run as Markdown, and a bar chart of each as SVG."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path

BAR_HEIGHT, GAP, LABEL_WIDTH, PLOT_WIDTH, MARGIN = 22, 8, 190, 420, 90


@dataclass(slots=True)
class Row:
    """One line of a table: a subject, what it does, and one figure per run."""

    name: str
    does: str
    runs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> str:
        """Smallest and largest run."""
        return f"{_number(min(self.runs))} – {_number(max(self.runs))}"


@dataclass(slots=True)
class Comparison:
    """Several subjects under one question. Ratios are to the first row, from the same run."""

    key: str
    title: str
    unit: str
    rows: list[Row]
    better: str = "lower"

    def markdown(self) -> str:
        """Return the table."""
        reference = self.rows[0].median
        lines = [
            f"### {self.title}",
            "",
            f"{self.unit}; {self.better} is better. ![{self.title}]({self.key}.svg)",
            "",
            "| | median | all runs | ratio | what it does with an event |",
            "|---|---:|---:|---:|---|",
        ]
        for row in self.rows:
            ratio = f"{row.median / reference:.2f}" if reference else "–"
            note = f" {row.note}" if row.note else ""
            lines.append(f"| {row.name} | {_number(row.median)} | {row.spread} | {ratio} | {row.does}.{note} |")
        return "\n".join(lines) + "\n"

    def svg(self) -> str:
        """Return a bar chart with the spread of the runs as a line."""
        top = max(max(row.runs) for row in self.rows) or 1.0
        height = len(self.rows) * (BAR_HEIGHT + GAP) + GAP + 26
        width = LABEL_WIDTH + PLOT_WIDTH + MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            f'<text x="8" y="17" font-weight="bold">{escape(self.title)} ({escape(self.unit)})</text>',
        ]
        for place, row in enumerate(self.rows):
            y = 26 + GAP + place * (BAR_HEIGHT + GAP)
            scale = PLOT_WIDTH / top
            middle = y + BAR_HEIGHT / 2
            low, high = LABEL_WIDTH + min(row.runs) * scale, LABEL_WIDTH + max(row.runs) * scale
            colour = "#3b6fb5" if row.name.startswith("discorder") else "#b8c4d6"
            parts += [
                f'<text x="{LABEL_WIDTH - 8}" y="{middle + 4.5}" text-anchor="end">{escape(row.name)}</text>',
                f'<rect x="{LABEL_WIDTH}" y="{y}" width="{row.median * scale:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>',
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#222" stroke-width="1.5"/>',
                f'<text x="{high + 6:.1f}" y="{middle + 4.5}">{_number(row.median)}</text>',
            ]
        return "\n".join([*parts, "</svg>"]) + "\n"


def write(folder: Path, comparisons: Sequence[Comparison], command: str, versions: Mapping[str, str]) -> None:
    """Write the page and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    for comparison in comparisons:
        (folder / f"{comparison.key}.svg").write_text(comparison.svg())
    (folder / "results.md").write_text(page(comparisons, command, versions))


def page(comparisons: Sequence[Comparison], command: str, versions: Mapping[str, str]) -> str:
    """Return the page."""
    against = ", ".join(f"{name} {version}" for name, version in versions.items())
    head = (
        "# Results\n\n"
        f"<!-- Written by `{command}`. Do not edit. -->\n\n"
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {against}. All figures of one "
        "table are from one run on one machine, the subjects in turn; compare ratios, not absolute times. CPU is user and system "
        "time of all threads of the process, what it drains after the round included.\n"
    )
    return "\n".join([head, *(comparison.markdown() for comparison in comparisons)])


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
