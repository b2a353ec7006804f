"""The long versions of the tests beside it: ``make scale``, ``make weather``, ``make soak``. Exits 1 when something was lost."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.endurance import scale, soak, weather
from tests.endurance.evidence import Account


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    many = verbs.add_parser("scale", help="many shards, sockets that are reset all the time")
    many.add_argument("--shards", type=int, default=64)
    many.add_argument("--seconds", type=float, default=60.0)
    many.add_argument("--drops", type=float, default=20.0, help="sockets per second")
    many.add_argument("--rate", type=float, default=500.0, help="events per second over all shards")
    many.add_argument("--seed", type=int, default=0)
    many.set_defaults(run=_scale)
    storm = verbs.add_parser("weather", help="proxies that reset, cut, stall and leave half-open")
    storm.add_argument("--shards", type=int, default=4)
    storm.add_argument("--seconds", type=float, default=120.0)
    storm.add_argument("--every", type=float, default=0.5, help="seconds between two faults")
    storm.add_argument("--rate", type=float, default=200.0, help="events per second over all shards")
    storm.add_argument("--seed", type=int, default=0)
    storm.set_defaults(run=_weather)
    long = verbs.add_parser("soak", help="control plane and bot are killed and restarted in random order")
    long.add_argument("--seconds", type=float, default=300.0)
    long.add_argument("--every", type=float, default=3.0, help="seconds between two ends of a life, on average")
    long.add_argument("--rate", type=float, default=500.0, help="events per second")
    long.add_argument("--seed", type=int, default=0)
    long.set_defaults(run=_soak)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        faults: list[str] = options.run(options, Path(folder))
    print(f"in          {time.monotonic() - started:.0f} s, seed {options.seed}")
    print("\n".join(faults or ["nothing was lost"]))
    return 1 if faults else 0


def _scale(options: argparse.Namespace, folder: Path) -> list[str]:
    wanted = scale.Scale(
        shards=options.shards, seconds=options.seconds, drops=options.drops, rate=options.rate, seed=options.seed
    )
    outcome = asyncio.run(scale.run(wanted, folder))
    print(f"shards      {wanted.shards}, max_concurrency {wanted.max_concurrency}")
    print(f"all Ready   {outcome.ready_after:.1f} s after the first one; the rules allow {wanted.earliest:.1f} s")
    print(f"dropped     {outcome.dropped} sockets in {wanted.seconds:.0f} s; {outcome.resumed} resumes")
    _show(outcome.identifies, outcome.events, outcome.account, outcome.violations)
    return scale.faults(wanted, outcome)


def _weather(options: argparse.Namespace, folder: Path) -> list[str]:
    wanted = weather.Weather(
        shards=options.shards, seconds=options.seconds, every=options.every, rate=options.rate, seed=options.seed
    )
    outcome = asyncio.run(weather.run(wanted, folder))
    print(f"shards      {wanted.shards}")
    print("faults      " + ", ".join(f"{fault} {count}" for fault, count in sorted(outcome.faults.items())))
    print(f"resumes     {outcome.resumed}")
    _show(outcome.identifies, outcome.events, outcome.account, outcome.violations)
    return weather.faults(wanted, outcome)


def _soak(options: argparse.Namespace, _: Path) -> list[str]:
    wanted = soak.Soak(seconds=options.seconds, every=options.every, rate=options.rate, seed=options.seed)
    outcome = asyncio.run(soak.run(wanted))
    print("ends        " + ", ".join(f"{what} {count}" for what, count in sorted(outcome.ends.items())))
    print(f"resumes     {outcome.resumed}")
    _show(outcome.identifies, outcome.events, outcome.account, outcome.violations)
    print(f"bot         has {outcome.bot_has}, {outcome.bot_gaps} gaps, {outcome.unaccounted} unaccounted for")
    return soak.faults(outcome)


def _show(identifies: int, events: int, account: Account, violations: list[str]) -> None:
    print(f"identifies  {identifies}")
    print(f"events      {events}")
    print(f"missing     {account.missing.total()}, duplicates {account.duplicates.total()}")
    print(f"violations  {len(violations)}")


if __name__ == "__main__":
    sys.exit(main())
