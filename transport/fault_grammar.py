"""Parse the faults of `discorder serve --fault`: ``KIND[=VALUE][@MOMENT][/PERIOD]``, as in ``drop@30s`` and ``stall=10s/2m``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

EXAMPLES = "drop@30s, drop/5m, stall=10s@1m, close=4000@1m, zombie@1m, slow-dial=3s"
DEFAULT_MOMENT = 30.0  # seconds from the start, where neither moment nor period is written
LONGEST = 86_400.0  # seconds; of each duration
SHORTEST_PERIOD = 1.0  # seconds; a shorter one would leave no time to connect
CODES = range(1000, 5000)
NOT_SENT = {1004, 1005, 1006, 1015}  # close codes that no frame can hold (RFC 6455 §7.4.1)

_FAULT = re.compile(r"(?P<kind>[a-z-]+)(?:=(?P<value>[^@/]*))?(?:@(?P<at>[^@/]*))?(?:/(?P<every>[^@/]*))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class FaultKind(StrEnum):
    """What happens to the connections that are open at the moment. SLOW_DIAL concerns every dial from then on."""

    DROP = "drop"  # the socket is reset
    STALL = "stall"  # nothing is read for VALUE
    CLOSE = "close"  # the gateway seems to close with the code VALUE
    ZOMBIE = "zombie"  # no heartbeat is acknowledged any more
    SLOW_DIAL = "slow-dial"  # a dial takes VALUE longer


_WITH_DURATION = (FaultKind.STALL, FaultKind.SLOW_DIAL)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as it was written. ``at`` and ``every`` in seconds from the start; ``every`` 0: it happens once.

    ``seconds``: how long it lasts (STALL, SLOW_DIAL); ``code``: of CLOSE.
    """

    text: str
    kind: FaultKind
    at: float
    every: float = 0.0
    seconds: float = 0.0
    code: int = 0

    def __str__(self) -> str:
        return self.text


def parse_fault(text: str) -> Fault:
    """Return the fault that ``text`` describes. Raises ValueError, with a sentence that names it and the allowed forms."""
    try:
        return _parse(text)
    except ValueError as error:
        msg = f"{text!r}: {error}; examples: {EXAMPLES}"
        raise ValueError(msg) from None


def _parse(text: str) -> Fault:
    match = _FAULT.fullmatch(text)
    if match is None:
        msg = "not a fault: write KIND, KIND=VALUE, and behind it @MOMENT or /PERIOD"
        raise ValueError(msg)
    try:
        kind = FaultKind(match["kind"])
    except ValueError:
        msg = f"there is no fault {match['kind']!r}, only {', '.join(FaultKind)}"
        raise ValueError(msg) from None
    at, every = match["at"], match["every"]
    if kind is FaultKind.SLOW_DIAL and every is not None:
        msg = "slow-dial holds for every dial from its moment on, and takes no period"
        raise ValueError(msg)
    period = 0.0 if every is None else _duration(every, "the period")
    if every is not None and period < SHORTEST_PERIOD:
        msg = f"the period is shorter than {SHORTEST_PERIOD:g} s"
        raise ValueError(msg)
    moment = _first_moment(kind, period) if at is None else _duration(at, "the moment")
    seconds, code = _value(kind, match["value"])
    return Fault(text, kind, moment, period, seconds, code)


def _first_moment(kind: FaultKind, period: float) -> float:
    return 0.0 if kind is FaultKind.SLOW_DIAL else period or DEFAULT_MOMENT


def _value(kind: FaultKind, value: str | None) -> tuple[float, int]:
    """Return the duration and the close code that ``value`` gives."""
    if kind in _WITH_DURATION:
        if value is None:
            msg = f"it needs a duration: {kind}=10s"
            raise ValueError(msg)
        seconds = _duration(value, "the duration")
        if seconds <= 0:
            msg = "the duration is 0"
            raise ValueError(msg)
        return seconds, 0
    if kind is FaultKind.CLOSE:
        code = int(value) if value is not None and re.fullmatch(r"\d{4}", value, re.ASCII) else 0
        if code not in CODES or code in NOT_SENT:
            msg = "it needs a close code from 1000 to 4999 but 1004, 1005, 1006 and 1015: close=4000"
            raise ValueError(msg)
        return 0.0, code
    if value is not None:
        msg = f"{kind} takes no value"
        raise ValueError(msg)
    return 0.0, 0


def _duration(text: str, what: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not 0 <= seconds <= LONGEST:
        msg = f"{what} {text!r} is no duration: a number with ms, s, m or h, at most 24h"
        raise ValueError(msg)
    return seconds
