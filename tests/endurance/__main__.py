"""The long versions of the tests beside it: ``make scale``, ``make weather``, ``make soak``. Exits 1 when something was lost."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.endurance import scale, soak, unreliable_network
from tests.endurance.outcome import Outcome
from tests.endurance.scale import Scale
from tests.endurance.soak import Soak
from tests.endurance.unreliable_network import Weather


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    for kind, play in ((Scale, _scale), (Weather, _weather), (Soak, _soak)):
        verb = verbs.add_parser(kind.__name__.lower(), help=kind.__doc__)
        for one in dataclasses.fields(kind):
            verb.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
        verb.set_defaults(kind=kind, play=play)
    options = vars(parser.parse_args())
    kind, play = options.pop("kind"), options.pop("play")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        faults: list[str] = play(kind(**options), Path(folder))
    print(f"in          {time.monotonic() - started:.0f} s, seed {options['seed']}")
    print("\n".join(faults or ["nothing was lost"]))
    return 1 if faults else 0


def _scale(wanted: Scale, folder: Path) -> list[str]:
    outcome = asyncio.run(scale.run(wanted, folder))
    print(f"shards      {wanted.shards}, max_concurrency {wanted.max_concurrency}")
    print(f"all Ready   {outcome.ready_after:.1f} s after the first one; the rules allow {wanted.earliest:.1f} s")
    print(f"dropped     {outcome.dropped} sockets in {wanted.seconds:.0f} s")
    _show(outcome)
    return outcome.faults(wanted.shards)


def _weather(wanted: Weather, folder: Path) -> list[str]:
    outcome = asyncio.run(unreliable_network.run(wanted, folder))
    print(f"shards      {wanted.shards}")
    print(f"faults      {_counts(outcome.struck)}")
    _show(outcome)
    return outcome.faults(wanted.shards)


def _soak(wanted: Soak, _: Path) -> list[str]:
    outcome = asyncio.run(soak.run(wanted))
    print(f"ends        {_counts(outcome.ends)}")
    _show(outcome)
    print(f"bot         has {outcome.bot_has}, {outcome.bot_gaps} gaps, {outcome.unaccounted} unaccounted for")
    return outcome.all_faults()


def _show(outcome: Outcome) -> None:
    print(f"resumes     {outcome.resumed}")
    print(f"identifies  {outcome.identifies}")
    print(f"events      {outcome.events}")
    print(f"missing     {outcome.account.missing.total()}, duplicates {outcome.account.duplicates.total()}")
    print(f"violations  {len(outcome.violations)}")


def _counts(counts: dict[Any, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
