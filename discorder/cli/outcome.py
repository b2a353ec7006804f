"""Run the command line; turn its errors into an exit code and one line on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from discorder.cli.app import app
from discorder.exits import UNWRITABLE, report, say, without_tokens


def run(arguments: Sequence[str]) -> int:
    """Run ``arguments`` and return the exit code."""
    _escape_unencodable_text()
    code = 1
    try:
        app(args=without_tokens(arguments), prog_name="discorder")
        code = 0
    except SystemExit as ended:  # how typer returns
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except Exception as error:  # noqa: BLE001  # a command never ends with a traceback
        code = report(error)
    return _flushed(code)


def _escape_unencodable_text() -> None:
    """Escape characters that a terminal or file cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flush stdout and report a failure; the interpreter would only end with 120."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        if not isinstance(error, BrokenPipeError) and code != UNWRITABLE:  # otherwise it was said when it was written
            say(f"the output cannot be written: {error}")
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or UNWRITABLE
    return code
