"""The command `discorder`: each command in a module of its own, errors turned into one line and an exit code here."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. A `DiscorderError` becomes one line on stderr and its exit code (a contract, see the README)."""
    from discorder.cli.app import app  # noqa: PLC0415  # typer and rich are for the command line only
    from discorder.errors import DiscorderError  # noqa: PLC0415

    try:
        app(prog_name="discorder")
    except DiscorderError as error:
        sys.stderr.write(f"discorder: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT: interrupted before there was anything to stop gracefully
