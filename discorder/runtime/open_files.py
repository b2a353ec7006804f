"""Raise the limit of open files. Only for `run` and the command line: `serve` does not change the process."""

from __future__ import annotations

import contextlib
import resource

ENOUGH = 65_536  # two per shard: its socket and its lock


def raise_open_file_limit() -> None:
    """Raise the soft limit, which is 1,024 on most systems, towards the hard limit, which the operator sets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError):  # some systems, such as macOS, have a lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
