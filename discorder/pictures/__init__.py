"""Generate pictures and tables from the transition table, from runs of the machine, and from the imports of the package.

Importing this package loads nothing else of Discorder: the command line reads the names of pictures and formats from it.

Begin with `render`. The life cycle is a `graph_model`, written as `dot`, `mermaid`, `markdown` or `page_svg`, with a
`trace_path` over it; the `grid` shows all pairs. `scenarios` run the machine, `participants` turns the steps into messages,
`sequence` draws them. `imports` are drawn by `architecture`. `renderer` calls Graphviz, and `palette` has the colours.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["PictureFormat", "Subject"]


class Subject(StrEnum):
    """The subjects of pictures."""

    LIFE_CYCLE = "life-cycle"
    GRID = "grid"
    START = "sequence-start"
    RESUME = "sequence-resume"
    ZOMBIE = "sequence-zombie"
    OP_9 = "sequence-op-9"
    SHUTDOWN = "sequence-shutdown"
    ARCHITECTURE = "architecture"

    @property
    def scenario(self) -> str | None:
        """The name of the scenario that a sequence diagram shows, None for another picture."""
        kind, _, name = self.value.partition("-")
        return name if kind == "sequence" else None


class PictureFormat(StrEnum):
    """The formats of ``diagram --format``."""

    SVG = "svg"
    PAGE = "page"  # an SVG of classes instead of colours, for the status page
    PNG = "png"
    MERMAID = "mermaid"
    DOT = "dot"
    MARKDOWN = "markdown"
