"""What Discord answered, as values: status and body, limits, refusals (429), and the text of errors.

Must not: wait, send, or know who asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from discorder.rest.budget import Limits, Scope

UNSPECIFIED_WAIT = 5.0  # seconds after a 429 that names none (an edge server's page)
MAX_LINES = 10  # of a nested error report
MAX_EXCERPT = 100  # characters of a body that is not JSON


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429. ``by_edge``: it came from the network's edge, without JSON, and concerns the address, not one bucket."""

    retry_after: float
    scope: Scope
    by_edge: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end. ``headers`` are case-insensitive."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # may echo a token

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_invalid(self) -> bool:
        """Counted by Discord on the way to a ban: 401, 403, and 429 unless its scope is shared (gateway-protocol.md §15)."""
        return self.status in {401, 403} or (self.status == 429 and self.headers.get("X-RateLimit-Scope") != "shared")

    def json(self) -> Any:
        """The decoded body. Raises ValueError when it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except RecursionError as error:
            msg = "nested too deeply"
            raise ValueError(msg) from error

    def json_object(self) -> dict[str, Any] | None:
        """The decoded body if it is a JSON object."""
        try:
            document = self.json()
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def limits(self) -> Limits | None:
        """The rate limit headers; None when they are absent or make no sense."""
        limit, remaining = self._count("X-RateLimit-Limit"), self._count("X-RateLimit-Remaining")
        reset_after = _seconds(self.headers.get("X-RateLimit-Reset-After"))
        if limit is None or remaining is None or reset_after is None:
            return None
        reset = _seconds(self.headers.get("X-RateLimit-Reset"))
        return Limits(self.headers.get("X-RateLimit-Bucket"), limit, remaining, reset_after, reset)

    def refusal(self) -> Refusal | None:
        """How long to keep away and from what, if this is a 429 (gateway-protocol.md §15)."""
        if self.status != 429:
            return None
        document = self.json_object()
        stated = (document or {}).get("retry_after")
        waits = (_seconds(stated), _seconds(self.headers.get("Retry-After")), UNSPECIFIED_WAIT)
        retry_after = next(seconds for seconds in waits if seconds is not None)
        if document is None:
            return Refusal(retry_after, "global", by_edge=True)
        return Refusal(retry_after, self._scope(document), by_edge=False)

    def error(self) -> tuple[int, str]:
        """Discord's code (0 if none) and a message for people, nested reports included."""
        document = self.json_object()
        if document is None:
            kind = self.headers.get("Content-Type", "no content type").partition(";")[0]
            excerpt = self.body[:MAX_EXCERPT].decode(errors="replace")
            return 0, f"{self.reason or 'no reason given'} (the answer is {kind}, not JSON: {excerpt!r})"
        code, text = document.get("code"), document.get("message")
        message = text if isinstance(text, str) and text else self.reason
        lines = list(_reports(document.get("errors"), ""))
        if lines:
            more = f"; and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
            message = f"{message} ({'; '.join(lines[:MAX_LINES])}{more})"
        return (code if isinstance(code, int) else 0), message

    def _scope(self, document: dict[str, Any]) -> Scope:
        if document.get("global") is True or self.headers.get("X-RateLimit-Global", "").lower() == "true":
            return "global"
        match self.headers.get("X-RateLimit-Scope"):
            case "global":
                return "global"
            case "shared":
                return "shared"
            case _:
                return "user"

    def _count(self, name: str) -> int | None:
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _seconds(value: object) -> float | None:
    """A finite number of seconds, zero or more; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _reports(node: object, where: str) -> Iterator[str]:
    """Flatten Discord's nested ``errors``: one ``embeds.0.title: This field is required`` per report."""
    if not isinstance(node, dict):
        return
    for key, below in node.items():
        if key != "_errors":
            yield from _reports(below, f"{where}.{key}" if where else str(key))
        elif isinstance(below, list):
            for report in below:
                text = report.get("message") if isinstance(report, dict) else report
                yield f"{where}: {text}" if where else str(text)
