"""Start the command `discorder`, and handle interrupts until it has an exit code.

`outcome` runs the application of `app`; `offline`, `operate`, `sessions`, `send` and `facade` have the rest of its commands,
and `options` what they share. What the commands run: `processes`, each a `child` with a `process_watch`; `budget_report` with
`journal`; `stored_sessions`; `doctor/`; `diagram`; `tail` with `bus_hint`; `status`, written by `status_view` and `bots_view`.
A `plane_client` finds its control plane with `target` and follows it with `event_reader`. `demo` and `demo_bot` share the
`demo_narrator`; `demo_subscriber` and `demo_discordpy` are processes of theirs. `tables` and `wording` format.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType, TracebackType

INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line. Every error becomes one line on stderr and an exit code (a contract, see the README)."""
    sys.excepthook, sys.unraisablehook = _quiet_hook, _quiet_unraisable
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, as for a job in the background
        signal.signal(signal.SIGINT, _leave_at_once)  # nothing runs yet that needs a graceful stop
    if sys.argv[1:2] == ["serve"]:  # the other commands end when their terminal does
        signal.signal(signal.SIGHUP, _survive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `serve --processes` blocks it for its children
    if (warning := _require_usable_time_zone()) is not None:  # before the log is imported, which reads the clock
        sys.stderr.write(f"discorder: {warning}\n")
    from discorder.cli.outcome import run  # noqa: PLC0415  # loads typer

    try:
        signal.signal(signal.SIGINT, before)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing may interrupt the interpreter's own end
    sys.exit(code)


def _require_usable_time_zone() -> str | None:
    """Use UTC if ``TZ`` differs from it by a day or more, which Python cannot represent, and return a warning.

    Otherwise every line of the log would raise ValueError.
    """
    try:
        datetime.now(UTC).astimezone()
    except (ValueError, OverflowError):
        odd = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()
        return f"TZ={odd!r} is not a usable time zone: times are in UTC; set TZ to a name such as Europe/Berlin"
    return None


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _survive(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: there is nothing to reload yet. Not SIG_IGN, which a child would inherit."""


def _quiet_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show no traceback of a second or third Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def _quiet_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
