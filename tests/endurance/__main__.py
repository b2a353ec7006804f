"""The long versions of the tests beside it: ``python -m tests.endurance scale``. Exits 1 when something was lost."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.endurance import scale


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    many = verbs.add_parser("scale", help="many shards, sockets that are reset all the time")
    many.add_argument("--shards", type=int, default=64)
    many.add_argument("--seconds", type=float, default=60.0)
    many.add_argument("--drops", type=float, default=20.0, help="sockets per second")
    many.add_argument("--rate", type=float, default=500.0, help="events per second over all shards")
    many.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        return _scale(options, Path(folder))


def _scale(options: argparse.Namespace, folder: Path) -> int:
    wanted = scale.Scale(
        shards=options.shards, seconds=options.seconds, drops=options.drops, rate=options.rate, seed=options.seed
    )
    started = time.monotonic()
    outcome = asyncio.run(scale.run(wanted, folder))
    print(f"shards      {wanted.shards}, max_concurrency {wanted.max_concurrency}")
    print(f"all Ready   {outcome.ready_after:.1f} s after the first one; the rules allow {wanted.earliest:.1f} s")
    print(f"identifies  {outcome.identifies}")
    print(f"dropped     {outcome.dropped} sockets in {wanted.seconds:.0f} s; {outcome.resumed} resumes")
    print(f"events      {outcome.events}")
    print(f"missing     {outcome.account.missing.total()}, duplicates {outcome.account.duplicates.total()}")
    print(f"violations  {len(outcome.violations)}")
    print(f"in          {time.monotonic() - started:.0f} s, seed {wanted.seed}")
    faults = scale.faults(wanted, outcome)
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
