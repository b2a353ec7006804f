"""`make bench`: measure everything and write docs/performance/. `make bench-quick`: guard the ratio to the bare loop.

python -m tests.bench [--only KEY]… [--rounds N] [--events N] [--plain] [--output FOLDER]
python -m tests.bench --quick
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from tests.bench import scenarios, subjects
from tests.bench.processes import ROOT, Failed
from tests.bench.report import Comparison, Row, write
from tests.bench.scenarios import LIVE_RATE, Authority, Figures, median, quantile, run
from tests.bench.subjects import BARE, DISCORDER, FACADE, HIKARI, JOURNALED, PEERS, SHOWN, STORED, UNMODERATED, Subject
from tests.publishers.nats_server import NatsServer
from tests.publishers.redis_server import RedisServer

QUICK_EVENTS = 12_000
QUICK_ROUNDS = 3
QUICK_LIVE, QUICK_SATURATED = 0.8, 1.2  # CPU per event, the control plane's to the bare loop's
LATE_INTERVAL = 0.5  # seconds between beats where their lateness is measured
BROKER_RATE = 1_500  # events per second: a bot in some thousand guilds
IDLE_INTERVAL, IDLE_SECONDS = 4.0, 20.0

T = TypeVar("T")
Measure = Callable[[], float]
Entry = tuple[str, str, Measure]  # name, what it does with an event, one run


class Suite:
    """Runs comparisons, all subjects of one in turn, and collects what came of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._rounds: int = options.rounds
        self._events: int = options.events
        self._only: list[str] = options.only
        self._authorities = [("", None)] if options.plain else [("", None), ("-tls", Authority())]
        self._output: Path = options.output
        self._comparisons: list[Comparison] = []

    def all(self) -> None:
        """Run every comparison."""
        for suffix, authority in self._authorities:
            over = " over TLS" if authority else ""
            live = _Round(events=self._events, rate=LIVE_RATE, authority=authority)
            full = replace(live, events=2 * self._events, rate=0.0)
            shared = replace(live, shards=100)
            at_rate = f"{LIVE_RATE:,} events/s"
            self._compare(f"live{suffix}", f"CPU at {at_rate}{over}", "µs per event", _live(live))
            self._compare(f"bill{suffix}", f"The whole bill at {at_rate}{over}", "µs per event", _bill(live))
            self._compare(
                f"saturated{suffix}",
                f"Saturated, zlib-stream{over}",
                "events per CPU second",
                _saturated(full),
                "higher",
            )
            self._compare(f"shards{suffix}", f"{at_rate} shared by 100 shards{over}", "µs per event", _many(shared))
            self._compare(
                f"latency{suffix}", f"Socket to subscriber at {at_rate}{over}", "milliseconds", _latency(live)
            )
        live = _Round(events=self._events, rate=LIVE_RATE)
        full = replace(live, events=2 * self._events, rate=0.0)
        self._compare(
            "compression", "Saturated, by compression", "events per CPU second", _compressions(full), "higher"
        )
        self._compare("publishers", "Saturated, by publisher", "events per CPU second", _publishers(full), "higher")
        self._compare(
            "brokers",
            f"CPU at {BROKER_RATE:,} events/s, by bus",
            "µs per event",
            _brokers(replace(live, rate=BROKER_RATE)),
        )
        self._compare("reader", f"A reader at {LIVE_RATE:,} events/s", "µs per event", _readers(live))
        self._compare("page", f"Status page and metrics at {LIVE_RATE:,} events/s", "µs per event", _shown(live))
        self._compare("facade", f"Journal and façade at {LIVE_RATE:,} events/s", "µs per event", _behind_facade(live))
        self._compare(
            "lateness", "How late heartbeats are while saturated", "milliseconds", _lateness(10 * self._events)
        )
        self._compare("idle", "500 quiet shards, a beat every 4 s", "per cent of a core", _idle(_share_of_core))
        self._compare("memory", "Memory of 500 shards", "KiB per shard", _idle(_kib_per_shard))
        self._compare("start", "CPU until the first READY", "seconds", _start())

    def _compare(self, key: str, title: str, unit: str, entries: Iterable[Entry], better: str = "lower") -> None:
        if self._only and key not in self._only:
            return
        rows = {name: (Row(name, does), measure) for name, does, measure in entries}
        for number in range(self._rounds):
            for name, (row, measure) in rows.items():
                try:
                    row.runs.append(measure())
                except Failed as error:
                    row.note = f"Failed: {error}"
                    print(f"{key}: {name}: {error}", file=sys.stderr)
                else:
                    print(f"{key} {number + 1}/{self._rounds} {name}: {row.runs[-1]:,.2f} {unit}", flush=True)
        measured = [row for row, _ in rows.values() if row.runs]
        if measured:
            self._comparisons.append(Comparison(key, title, unit, measured, better))
            self._write()

    def _write(self) -> None:
        versions = {name: version(name) for name in ("aiohttp", "pyzmq", "hikari", "discord.py")}
        arguments = f' ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else ""
        write(self._output, self._comparisons, f"make bench{arguments}", versions)


@dataclass(frozen=True, slots=True)
class _Round:
    """What is sent in a run; calling it measures one figure of a subject."""

    events: int
    rate: float
    shards: int = 1
    authority: Authority | None = None
    readers: tuple[str, ...] = ()

    def __call__(self, subject: Subject, figure: Callable[[Figures], float]) -> Measure:
        figures = self.figures(subject)
        return lambda: figure(figures())

    def figures(self, subject: Subject) -> Callable[[], Figures]:
        """Return what measures one run of ``subject``."""
        return partial(
            run,
            subject,
            events=self.events,
            rate=self.rate,
            shards=self.shards,
            readers=self.readers,
            authority=self.authority,
            stamps=any("arrivals" in reader for reader in self.readers),
        )


def _live(send: _Round) -> Iterator[Entry]:
    for subject in (DISCORDER, BARE, *_present(PEERS)):
        yield subject.name, subject.does, send(subject, _per_event)
    yield UNMODERATED.name, UNMODERATED.does, send(UNMODERATED, _per_event)


def _shown(send: _Round) -> Iterator[Entry]:
    yield DISCORDER.name, DISCORDER.does, replace(send, readers=("raw_reader drain",))(DISCORDER, _per_event)
    yield SHOWN.name, SHOWN.does, replace(send, readers=("page_reader",))(SHOWN, _per_event)


def _behind_facade(send: _Round) -> Iterator[Entry]:
    drained = ("raw_reader drain",)
    for subject in (DISCORDER, STORED, JOURNALED):
        yield subject.name, subject.does, replace(send, readers=drained)(subject, _per_event)
    yield FACADE.name, FACADE.does, replace(send, readers=(*drained, "facade_bot"))(FACADE, _per_event)
    yield (
        f"{FACADE.name}, 3 bots",
        FACADE.does,
        replace(send, readers=(*drained, *["facade_bot"] * 3))(FACADE, _per_event),
    )


def _bill(send: _Round) -> Iterator[Entry]:
    does = "the control plane publishes; each bot reads with `discorder.subscribe` and parses each event"
    yield "discorder + 1 bot", does, replace(send, readers=("reader",))(DISCORDER, _whole_bill)
    yield "discorder + 3 bots", does, replace(send, readers=("reader",) * 3)(DISCORDER, _whole_bill)
    for subject in _present(PEERS[1:]):
        yield subject.name, subject.does, send(subject, _whole_bill)


def _saturated(send: _Round) -> Iterator[Entry]:
    for subject in (DISCORDER, BARE, *_present(PEERS)):
        yield subject.name, subject.does, send(subject, _per_cpu_second)


def _many(send: _Round) -> Iterator[Entry]:
    for subject in (DISCORDER, *_present(subject for subject in PEERS if subject.many_shards)):
        yield subject.name, subject.does, send(subject, _per_event)
    yield UNMODERATED.name, UNMODERATED.does, send(UNMODERATED, _per_event)


def _compressions(send: _Round) -> Iterator[Entry]:
    for mode in ("zlib-stream", "zstd-stream", "none"):
        start = subjects.discorder(f"gateway.compress={mode}", "publishers.zmq.bind={bus}")
        subject = Subject(f"discorder, {mode}", DISCORDER.does, start, publishes=True)
        yield subject.name, subject.does, send(subject, _per_cpu_second)


def _publishers(send: _Round) -> Iterator[Entry]:
    file = ("publishers.f.kind=delimited_file", "publishers.f.path=/dev/shm/discorder-bench.tsv")  # in memory
    for name, does, settings in (
        ("zmq", "publishes and keeps it for replay", ("publishers.zmq.bind={bus}",)),
        ("zmq, no replay", "publishes", ("publishers.zmq.bind={bus}", "publishers.zmq.replay=")),
        ("file", "writes a line", file),
    ):
        subject = Subject(f"discorder, {name}", does, subjects.discorder(*settings), publishes=name != "file")
        yield subject.name, subject.does, send(subject, _per_cpu_second)


def _brokers(send: _Round) -> Iterator[Entry]:
    """The control plane alone; the broker is a process of its own, and new in each run."""
    yield "discorder, zmq", DISCORDER.does, send(DISCORDER, _per_event)
    for name, does, make, settings in (
        ("nats", "stores each event in a stream", _nats_server, ("publishers.nats.servers={url}",)),
        (
            "nats, sync",
            "and waits for the disk",
            _nats_server,
            ("publishers.nats.servers={url}", "publishers.nats.durability=sync"),
        ),
        (
            "redis",
            "adds each event to a stream",
            RedisServer,
            ("publishers.redis.url={url}", "publishers.redis.maxlen=100000"),
        ),
    ):
        yield f"discorder, {name}", does, partial(_beside_broker, send, make, settings)
    yield FACADE.name, FACADE.does, replace(send, readers=("raw_reader drain", "facade_bot"))(FACADE, _per_event)


def _nats_server(folder: Path) -> NatsServer:
    return NatsServer(folder, "max_payload: 8MB")


def _beside_broker(send: _Round, make: Callable[[Path], NatsServer | RedisServer], settings: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        broker = make(Path(folder, "store"))
        broker.start()
        try:
            start = subjects.discorder(*(one.format(url=broker.url) for one in settings))
            return send(Subject("discorder", "", start), _per_event)()
        finally:
            broker.kill()


def _readers(send: _Round) -> Iterator[Entry]:
    subscribe, raw = "checks for gaps, parses each event", "parses each event"
    yield "discorder.subscribe", subscribe, replace(send, readers=("reader",))(DISCORDER, _reader_cost)
    yield "pyzmq + msgspec", raw, replace(send, readers=("raw_reader",))(DISCORDER, _reader_cost)


def _latency(send: _Round) -> Iterator[Entry]:
    stamped = replace(send, readers=("raw_reader arrivals",))
    for subject in (DISCORDER, UNMODERATED, BARE):
        for name, measure in _shares(stamped.figures(subject), lambda figures: figures.latencies):
            yield f"{subject.name}, {name}", subject.does, measure


def _lateness(events: int) -> Iterator[Entry]:
    # Without compression, ACKs can be sent between the events that were encoded before.
    start = subjects.discorder("gateway.compress=none", "publishers.zmq.bind={bus}")
    subject = Subject("discorder, none", DISCORDER.does, start, publishes=True)
    late = partial(scenarios.lateness, subject, events=events, interval=LATE_INTERVAL)
    for name, measure in _shares(late, lambda seconds: sorted(map(abs, seconds))):
        yield f"discorder, {name}", "reads as fast as it can", measure


def _shares(measured: Callable[[], T], seconds: Callable[[T], Sequence[float]]) -> Iterator[tuple[str, Measure]]:
    """Yield the quantiles and the maximum, in milliseconds, all of the same run."""
    found: list[Sequence[float]] = []

    def first() -> float:
        found.clear()
        found.append(seconds(measured()))
        return share(0.5)

    def share(which: float) -> float:
        if not found:
            msg = "the run failed"
            raise Failed(msg)
        return quantile(found[0], which) * 1e3

    yield "p50", first
    for name, which in (("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
        yield name, partial(share, which)


def _idle(figure: Callable[[tuple[float, float]], float]) -> Iterator[Entry]:
    def once(subject: Subject) -> float:
        return figure(scenarios.idle(subject, shards=500, seconds=IDLE_SECONDS, interval=IDLE_INTERVAL))

    for subject in (DISCORDER, *_present([HIKARI])):
        yield subject.name, subject.does, partial(once, subject)


def _start() -> Iterator[Entry]:
    for subject in (DISCORDER, *_present([HIKARI])):
        yield subject.name, "until READY", partial(scenarios.start_up, subject)
    command = str(Path(sys.executable).parent / "discorder")
    yield "discorder --help", "prints", partial(scenarios.command_cpu, command, "--help")
    code = "import discorder; discorder.subscribe"
    yield "import discorder", "as a bot does", partial(scenarios.command_cpu, sys.executable, "-c", code)


def _per_event(figures: Figures) -> float:
    return figures.per_event


def _whole_bill(figures: Figures) -> float:
    return figures.bill


def _per_cpu_second(figures: Figures) -> float:
    return _complete(figures).per_cpu_second


def _reader_cost(figures: Figures) -> float:
    return figures.readers_cpu[0] / _complete(figures).events * 1e6


def _share_of_core(measured: tuple[float, float]) -> float:
    return measured[0] * 100


def _kib_per_shard(measured: tuple[float, float]) -> float:
    return measured[1]


def _present(wanted: Iterable[Subject]) -> Sequence[Subject]:
    found = []
    for subject in wanted:
        if subject.missing:
            print(f"{subject.name} is left out: {subject.missing}", file=sys.stderr)
        else:
            found.append(subject)
    return found


def _complete(figures: Figures) -> Figures:
    """Drops would make a client look faster than it is."""
    if figures.lost:
        msg = f"{figures.lost} of {figures.events} events did not reach the subscriber"
        raise Failed(msg)
    return figures


def quick() -> int:
    """Compare CPU per event with the bare loop's, in turn; return 1 if a ratio is above its bound."""
    failed = False
    for name, rate, bound in (("live", float(LIVE_RATE), QUICK_LIVE), ("saturated", 0.0, QUICK_SATURATED)):
        ratios = []
        for _ in range(QUICK_ROUNDS):
            ours, bare = (_complete(run(subject, events=QUICK_EVENTS, rate=rate)) for subject in (DISCORDER, BARE))
            ratios.append(ours.per_event / bare.per_event)
        found = median(ratios)
        failed = failed or found > bound
        runs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name}: {found:.2f} x the bare loop's CPU per event (runs {runs}; at most {bound:g})")
    return int(failed)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="compare with the bare loop only, and fail above a bound")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KEY", help="one comparison, such as live or idle"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--plain", action="store_true", help="no TLS")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance")
    options = parser.parse_args()
    if options.quick:
        return quick()
    Suite(options).all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
