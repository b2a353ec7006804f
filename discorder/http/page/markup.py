"""Write HTML with every text escaped, control characters too: a `str` is text, an `Html` is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import TypeAlias

from discorder.escapes import escape_controls, escape_controls_but_newlines

VOID = frozenset({"use", "rect", "path", "line"})  # SVG elements without content; HTML has no others here


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attributes: TypeAlias = Mapping[str, str | int | None]


def markup(*children: Child) -> Html:
    """Join children: text is escaped, None is left out, an iterable is taken apart."""
    return Html("".join(_parts(children)))


def element(name: str, attributes: Attributes | None = None, *children: Child) -> Html:
    """Return one element. An attribute that is None is left out."""
    given = "".join(
        f' {key}="{escape(escape_controls(str(value)))}"'
        for key, value in (attributes or {}).items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{markup(*children)}</{name}>")


def _parts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str):
            yield escape(escape_controls_but_newlines(child), quote=False)
        elif child is not None:
            yield from _parts(child)


# -------------------------------------------------------------------------------------------------- the page's elements


def icon(name: str) -> Html:
    """Return one of the signs that page.html defines."""
    return element(
        "svg", {"class": "ic", "aria-hidden": "true", "viewBox": "0 0 20 20"}, element("use", {"href": f"#i-{name}"})
    )


def span(kind: str, *children: Child) -> Html:
    """Return a span of a class."""
    return element("span", {"class": kind}, *children)


def strong(*children: Child) -> Html:
    """Return an important word."""
    return element("strong", None, *children)


def small(*children: Child) -> Html:
    """Return the line below a value."""
    return element("small", None, *children)


def path_text(path: str) -> Iterable[Html]:
    """Return a path that a narrow place breaks between folders."""
    return (span("piece", piece) for piece in re.findall(r"[^/]*/|[^/]+", path))


def unit(text: str) -> Html:
    """Return what follows a number."""
    return element("i", None, text)


ARROW = element("span", {"class": "arrow"}, " → ")


def pair(name: str, value: Child, note: Child = None) -> Html:
    """Return a name with its value, and with a note below it."""
    said = markup(note)
    return element("div", None, element("dt", None, name), element("dd", None, value, small(said) if said else None))


def bar(share: float, kind: str | None = None, label: str | None = None) -> Html:
    """Return a bar of a share between 0 and 1. With a label it is a picture, otherwise an ornament."""
    attributes: dict[str, str | int | None] = {"class": kind, "viewBox": "0 0 100 1", "preserveAspectRatio": "none"}
    attributes |= {"role": "img", "aria-label": label} if label else {"aria-hidden": "true"}
    return element("svg", attributes, element("rect", {"width": f"{share * 100:.1f}", "height": 1}))


Cell: TypeAlias = "tuple[Child, str | None]"


def table(
    rows_id: str,
    label_id: str,
    heads: Iterable[tuple[str, str | None]],
    rows: Iterable[Iterable[Cell]],
    kind: str = "stack",
) -> Html:
    """Return a table whose roles survive the list that it becomes on a narrow screen. ``heads``: (text, class)."""
    heads = list(heads)
    head = [
        element(
            "th",
            {"scope": "col", "role": "columnheader", "class": column},
            span("vh", text) if kind == "types" and not column else text,
        )
        for text, column in heads
    ]
    body = [element("tr", {"role": "row"}, *_cells(heads, row)) for row in rows]
    return element(
        "table",
        {
            "class": kind or None,
            "role": "table",
            "aria-labelledby": label_id,
            "id": f"{rows_id.partition('-')[0]}-table",
        },
        element("thead", {"role": "rowgroup"}, element("tr", {"role": "row"}, *head)),
        element("tbody", {"id": rows_id, "role": "rowgroup"}, *body),
    )


def _cells(heads: list[tuple[str, str | None]], row: Iterable[Cell]) -> Iterable[Html]:
    for (label, _), (content, kind) in zip(heads, row, strict=True):
        yield element("td", {"class": kind, "role": "cell", "data-label": label}, element("div", None, content))
