"""Parse Discord's answers: status and body, rate limits, refusals (429) and error texts.

A number outside its bounds counts as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from discorder.redaction import EXCERPT_WINDOW, Redactor
from discorder.rest.limits import FIRST_PAUSE, Limits, Scope

# seconds; no limit of Discord's lasts longer than a day (commands: 200 new ones a day and guild)
LONGEST_LIMIT = 86_400.0
LARGEST_EPOCH = 1e11  # seconds, the year 5138: what is above is not a time in seconds
DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)  # of a count; Discord's have two or three
DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?", re.ASCII)
CLOCK_SLACK = 1.0  # seconds by which ``retry_after`` and the reset of the same bucket may differ
LARGEST_CODE = 10**9  # of an error; Discord's have five or six digits
MAX_LINES = 10  # of a nested error report
MAX_DEPTH = 20  # levels of a nested error report; Discord's have a handful
MAX_EXCERPT = 100  # characters of a body that is not JSON
MAX_MESSAGE = 1_000  # characters of an error's message


@dataclass(frozen=True, slots=True)
class RateLimitResponse:
    """A 429. ``retry_after`` in seconds, `FIRST_PAUSE` when the answer states none that can be believed (``is_stated``).

    ``address``: the whole address is refused, not one bucket: the answer came from the network's edge, without JSON, or has
    nothing of a rate limit's (a ban: "You are being blocked from accessing our API …").
    ``sub_limit``: its bucket has requests left, so that a limit of its own refused the request (a channel's name: 2 in 10 min).
    """

    retry_after: float
    scope: Scope
    address: bool
    is_stated: bool
    sub_limit: bool


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer. ``headers`` are case-insensitive; ``cut``: the body was longer than `body.MAX_BODY`."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # may echo a token
    cut: bool = False

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_invalid(self) -> bool:
        """Whether Discord counts it towards a ban: 401, 403, and 429 unless its scope is shared (docs/protocol.md#rest)."""
        return self.status in {401, 403} or (self.status == 429 and self.headers.get("X-RateLimit-Scope") != "shared")

    @property
    def refuses_credential(self) -> bool:
        """Whether it is a 401 in Discord's format, and not that of a proxy or another service."""
        document = self.json_object() if self.status == 401 else None
        return document is not None and document.get("code") == 0 and isinstance(document.get("message"), str)

    def json(self) -> Any:
        """Decode the body. Raises ValueError when it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except RecursionError:
            problem = "nested too deeply"
        except msgspec.MsgspecError:
            decoded, problem = _decode_leniently(self.body)
            if not problem:
                return decoded
        # not in a handler: the decoders' frames and errors hold the text, which may echo a token
        raise ValueError(problem)

    def json_object(self) -> dict[str, Any] | None:
        """Return the decoded body if it is a JSON object, else None."""
        try:
            document = self.json()
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def limits(self) -> Limits | None:
        """Return the rate limit headers; None when they are absent or invalid."""
        limit, remaining = self._count("X-RateLimit-Limit"), self._count("X-RateLimit-Remaining")
        reset_after = _seconds(self.headers.get("X-RateLimit-Reset-After"))
        if limit is None or remaining is None or reset_after is None:
            return None
        reset = _seconds(self.headers.get("X-RateLimit-Reset"), longest=LARGEST_EPOCH)
        return Limits(self.headers.get("X-RateLimit-Bucket"), limit, min(remaining, limit), reset_after, reset)

    def rate_limit(self) -> RateLimitResponse | None:
        """Return the wait and the scope of a 429, None for another status (docs/protocol.md#rest)."""
        if self.status != 429:
            return None
        document = self.json_object()
        stated = _seconds((document or {}).get("retry_after"))
        if stated is None:
            stated = _seconds(self.headers.get("Retry-After"))
        address = document is None or not ("retry_after" in document or self._mentions_limits())
        scope: Scope = "global" if document is None or address else self._scope(document)
        limits = self.limits()
        if stated is None and limits is not None and limits.remaining == 0:
            stated = limits.reset_after
        wait = FIRST_PAUSE if stated is None else stated
        if address or scope == "global" or limits is None:
            return RateLimitResponse(wait, scope, address=address, is_stated=stated is not None, sub_limit=False)
        is_other_limit = limits.remaining > 0 or wait > limits.reset_after + CLOCK_SLACK
        return RateLimitResponse(wait, scope, address=False, is_stated=stated is not None, sub_limit=is_other_limit)

    def error(self, redact: Redactor) -> tuple[int, str]:
        """Return Discord's error code (0 if none) and a readable message with the nested reports. Redacts before it cuts."""
        document = self.json_object()
        if document is None:
            kind = self.headers.get("Content-Type", "no content type").partition(";")[0]
            excerpt = redact.excerpt(self.body[: 4 * EXCERPT_WINDOW].decode(errors="replace"), MAX_EXCERPT)
            what = f"{self.reason or 'no reason given'} (the answer is {kind}, not JSON: {excerpt!r})"
            return 0, redact.excerpt(what, MAX_MESSAGE)
        code, text = document.get("code"), document.get("message")
        message: str = text if isinstance(text, str) and text else self.reason
        lines = list(_reports(document.get("errors"), ""))
        if lines:
            more = f"; and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
            message = f"{message} ({'; '.join(lines[:MAX_LINES])}{more})"
        if type(code) is not int or abs(code) > LARGEST_CODE:
            code = 0
        return code, redact.excerpt(message, MAX_MESSAGE)

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

    def _mentions_limits(self) -> bool:
        return any(f"X-RateLimit-{name}" in self.headers for name in ("Bucket", "Limit", "Scope", "Global"))

    def _count(self, name: str) -> int | None:
        text = self.headers.get(name, "")
        return int(text) if DIGITS.fullmatch(text) else None


def _seconds(value: object, longest: float = LONGEST_LIMIT) -> float | None:
    """Return a number of seconds from zero to ``longest``, None for any other value."""
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= longest else None


def _decode_leniently(body: bytes) -> tuple[Any, str]:
    """Decode JSON that msgspec refuses (the escape of a lone surrogate). Returns the value and "", or None and the problem."""
    try:
        return json.loads(body.decode(), parse_constant=_reject), ""
    except UnicodeDecodeError as error:
        return None, f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at character {error.pos}"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:  # from `_reject`, or an integer of thousands of digits
        return None, str(error)


def _reject(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _reports(node: object, where: str, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Flatten Discord's nested ``errors``: one ``embeds.0.title: This field is required`` per report."""
    if not isinstance(node, dict) or depth == 0:
        return
    for key, below in node.items():
        if key != "_errors":
            yield from _reports(below, f"{where}.{key}" if where else str(key), depth - 1)
        elif isinstance(below, list):
            for report in below:
                text = report.get("message") if isinstance(report, dict) else report
                shown = text if isinstance(text, str | int | float) else type(text).__name__
                yield f"{where}: {shown}" if where else str(shown)
