"""Say how an error ends a process: one line on stderr without tokens, and an exit code."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Final

from discorder.errors import DiscorderError
from discorder.escapes import escape_controls_but_newlines
from discorder.redaction import REDACTED, TOKEN_VARIABLE, Redactor

TRACEBACK_VARIABLE: Final = "DISCORDER_TRACEBACK"  # set to anything: show where an internal error came from
UNWRITABLE: Final = 74  # EX_IOERR of sysexits.h, as for a log or store that cannot be written

EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "stopped on request",
        1: "internal error",
        2: "wrong usage of the command line",
        69: "the gateway could not be reached within `gateway.max_attempts`, or a bus or a control plane did not answer",
        73: "another process has the port, the shards, the journal or the cursor",
        74: "the log, the session store or the operator token could not be written at the start",
        75: "the identify budget is spent, under `fail_on_error`",
        76: "another failure under `fail_on_error`",
        77: "Discord refused the token or the intents; or the control plane refused the operator token",
        78: "wrong configuration",
    }
)
"""The exit codes of the commands, and of a script that calls `run`. They follow sysexits.h where it covers the case."""

HOPELESS: Final = frozenset({2, 77, 78})
"""The exit codes after which the same start fails again until the operator has changed something."""

# From the beginning of a word only: else a long argument without a dot is searched anew from each of its characters.
_TOKEN_LIKE = re.compile(r"(?:Bot )?(?<![\w-])([\w-]{4,})\.[\w-]+\.[\w-]+", re.ASCII)
_ENDS_PROCESS = "_discorder_ends_process"  # attribute of an exception that `end_quietly` got


def report(error: Exception) -> int:
    """Write what ended the process to stderr, in one line, and return the exit code."""
    if isinstance(error, DiscorderError):
        say("; ".join([str(error), *getattr(error, "__notes__", ())]))
        return error.exit_code
    code = 1
    if isinstance(error, OSError):
        code = UNWRITABLE
        where = "" if error.filename is None else f"{error.filename}: "
        text = f"{where}{error.strerror or error}"
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119  # a name, no path to work with
        what = f"internal error: {type(error).__name__}: {error} ({at})"
        text = f"{what}; please report it, with what {TRACEBACK_VARIABLE}=1 shows"
    if os.environ.get(TRACEBACK_VARIABLE):
        say("".join(traceback.format_exception(error)))
    say(text)
    return code


def end_quietly(error: Exception) -> None:
    """End the process as `report` says, without a traceback, if nothing in it catches ``error``."""
    global _hook_before  # as sys.excepthook itself, it belongs to the process
    setattr(error, _ENDS_PROCESS, True)
    if sys.excepthook is not _hook:
        _hook_before, sys.excepthook = sys.excepthook, _hook


_hook_before = sys.excepthook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, Exception) and getattr(error, _ENDS_PROCESS, False):
        sys.exit(report(error))  # the interpreter ends with the code of a SystemExit from this hook
    _hook_before(kind, error, trace)


def say(text: str) -> None:
    """Write one message to stderr, without tokens and control characters. Ignore a stderr that cannot be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"discorder: {escape_controls_but_newlines(Redactor(_secrets())(text))}\n")
            sys.stderr.flush()


def without_tokens(arguments: Iterable[str]) -> list[str]:
    """Replace arguments that are bot tokens, pasted by mistake, since any message may repeat an argument."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    kept = []
    for argument in arguments:
        is_token = has_token_form(argument) or (argument == token and _TOKEN_LIKE.fullmatch(argument) is not None)
        kept.append(REDACTED if is_token else argument)
    return kept


def has_token_form(text: str) -> bool:
    """Return whether ``text`` has the form of a bot token: three parts, the first of which is the id of a bot."""
    found = _TOKEN_LIKE.fullmatch(text)
    return found is not None and _is_bots(found)


def _secrets() -> Iterator[str]:
    token = os.environ.get(TOKEN_VARIABLE, "")
    yield token.strip()
    yield from (found[0] for argument in sys.argv[1:] for found in _TOKEN_LIKE.finditer(argument) if _is_bots(found))


def _is_bots(found: re.Match[str]) -> bool:
    """Return whether the first of the three parts is a bot's id."""
    part = found[1]
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).isdigit()
    except ValueError:
        return False
