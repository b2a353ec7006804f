"""How many files this process may have open. For those who own the process (`run`, the command line): `serve` is a guest."""

from __future__ import annotations

import contextlib
import resource

ENOUGH = 65_536  # two for each shard, its socket and its lock, of the largest process that anybody would run


def raise_open_file_limit() -> None:
    """Lift the soft limit, which is 1,024 on most systems, towards the hard one, which is the operator's word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError):  # a system with a lower bound of its own, as macOS has: its limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
