"""What is measured: each scenario starts the gateway and a client anew, sends a round, and returns figures of that run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processes import FEED_CPU, WORK_CPU, Failed, Process, python
from tests.bench.subjects import Subject, Where
from tests.ports import free_port

LIVE_RATE = 4_000  # events per second
WARM_UP = 2_000  # events before a round, which are not measured
START_SECONDS = 30.0  # until every shard is identified
JOIN_SECONDS = 0.5  # for subscriptions to arrive, which nobody acknowledges


@dataclass(slots=True)
class Figures:
    """Figures of one run. ``lost``: events that the last process in the chain did not get."""

    events: int
    seconds: float
    cpu: float  # CPU seconds of the client
    readers_cpu: list[float] = field(default_factory=list)
    peak_kib: int = 0
    lost: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_event(self) -> float:
        """Microseconds of CPU per event in the client."""
        return self.cpu / self.events * 1e6

    @property
    def bill(self) -> float:
        """Microseconds of CPU per event in the client and its readers together."""
        return (self.cpu + sum(self.readers_cpu)) / self.events * 1e6

    @property
    def per_cpu_second(self) -> float:
        """Events per CPU second of the client."""
        return self.events / self.cpu


class Authority:
    """A certificate authority for tests, and a certificate of localhost that it has signed."""

    def __init__(self) -> None:
        import trustme  # noqa: PLC0415  # of the extra dev; only where TLS is measured

        self._folder = tempfile.TemporaryDirectory()
        authority = trustme.CA()
        self.certificate = str(Path(self._folder.name, "localhost.pem"))
        self.authority = str(Path(self._folder.name, "authority.pem"))
        authority.cert_pem.write_to_path(self.authority)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self.certificate)


@dataclass(slots=True)
class Bench:
    """A gateway and one client that is connected to it."""

    gateway: Process
    client: Process
    where: Where


@contextmanager
def connected(
    subject: Subject,
    *,
    shards: int = 1,
    authority: Authority | None = None,
    interval: float = 45.0,
) -> Iterator[Bench]:
    """Start both and wait until every shard is identified."""
    with ExitStack() as stack:
        tls = ["--certificate", authority.certificate] if authority else []
        gateway = stack.enter_context(
            python("gateway", "--shards", str(shards), "--interval", str(interval), *tls, cpu=FEED_CPU)
        )
        port = gateway.answer()["port"]
        web, socket = ("https", "wss") if authority else ("http", "ws")
        trusted = (
            {"SSL_CERT_FILE": authority.authority, "NODE_EXTRA_CA_CERTS": authority.authority} if authority else {}
        )
        where = Where(
            api=f"{web}://localhost:{port}/api/v10",
            gateway=f"{socket}://localhost:{port}",
            bus=f"tcp://127.0.0.1:{free_port(following=3)}",
            shards=shards,
            environment=trusted,
        )
        client = stack.enter_context(subject.start(where))
        gateway.answer(START_SECONDS)
        yield Bench(gateway, client, where)


def run(
    subject: Subject,
    *,
    events: int,
    rate: float = 0.0,
    shards: int = 1,
    readers: Sequence[str] = (),
    authority: Authority | None = None,
    stamps: bool = False,
) -> Figures:
    """Send one round and return what it cost. ``readers``: modules of `clients`, each with its arguments behind the endpoint.

    A subject that publishes has at least one reader, so that its events are really sent.
    """
    chain = list(readers) or (["raw_reader drain"] if subject.publishes else [])
    with connected(subject, shards=shards, authority=authority) as bench, ExitStack() as stack:
        followers = []
        for reader in chain:
            module, *arguments = reader.split()
            cpu = WORK_CPU if readers else FEED_CPU
            followers.append(stack.enter_context(python(f"clients.{module}", bench.where.bus, *arguments, cpu=cpu)))
        if followers:
            time.sleep(JOIN_SECONDS)
            _until_all_follow(bench, followers)
        else:
            _round(bench.gateway, WARM_UP, rate)
        return _measure(bench, followers, events, rate, stamps=stamps)


def _until_all_follow(bench: Bench, followers: Sequence[Process]) -> None:
    """Send warm-up rounds until every reader has got a whole one."""
    for _ in range(20):
        before = [follower.ask()["events"] for follower in followers]
        sent = _round(bench.gateway, WARM_UP, LIVE_RATE)
        for follower in followers:
            follower.come_to_rest()
        got = [follower.ask()["events"] - was for follower, was in zip(followers, before, strict=True)]
        if all(count == sent for count in got):
            return
    msg = f"a reader of {bench.client.name} never got a whole round"
    raise Failed(msg)


def _round(gateway: Process, events: int, rate: float) -> int:
    prepared: int = gateway.ask({"do": "prepare", "events": events})["prepared"]
    gateway.ask({"do": "send", "rate": rate})
    return prepared


def _measure(bench: Bench, followers: Sequence[Process], events: int, rate: float, *, stamps: bool) -> Figures:
    prepared = bench.gateway.ask({"do": "prepare", "events": events})["prepared"]
    before = [follower.ask()["events"] for follower in followers]
    cpus = [process.come_to_rest() for process in (bench.client, *followers)]
    told = bench.gateway.ask({"do": "send", "rate": rate, "stamps": stamps})
    spent = [process.come_to_rest() - was for process, was in zip((bench.client, *followers), cpus, strict=True)]
    answers = [follower.ask() for follower in followers]
    got = [answer["events"] - was for answer, was in zip(answers, before, strict=True)]
    figures = Figures(prepared, told["seconds"], spent[0], spent[1:], bench.client.memory())
    figures.lost = sum(prepared - count for count in got)
    if stamps:
        arrivals = answers[0]["arrivals"]
        figures.latencies = sorted(arrivals[seq] - at for seq, at in told["sent"].items() if seq in arrivals)
    return figures


def idle(subject: Subject, *, shards: int, seconds: float, interval: float) -> tuple[float, float]:
    """Return the share of a core that ``shards`` quiet shards cost, and their KiB of memory per shard after some traffic."""
    with connected(subject, shards=1) as alone:
        _round(alone.gateway, WARM_UP, 0)
        base = alone.client.memory("VmRSS")
    with connected(subject, shards=shards, interval=interval) as bench:
        _round(bench.gateway, 20 * shards, 0)
        time.sleep(2 * interval)  # what was accounted to the start has gone by then
        memory = bench.client.memory("VmRSS")
        before = bench.client.cpu_seconds
        time.sleep(seconds)
        return (bench.client.cpu_seconds - before) / seconds, max(0.0, (memory - base) / max(1, shards - 1))


def lateness(subject: Subject, *, events: int, interval: float) -> list[float]:
    """Return by how many seconds each beat was late (negative: early) while the client read as fast as it could."""
    with connected(subject, interval=interval) as bench, ExitStack() as stack:
        if subject.publishes:
            stack.enter_context(python("clients.raw_reader", bench.where.bus, "drain", cpu=FEED_CPU))
        time.sleep(2 * interval)
        bench.gateway.ask({"do": "beats"})
        for _ in range(3):
            _round(bench.gateway, events, 0)
        late: list[float] = sorted(bench.gateway.ask({"do": "beats"})["lateness"])
        return late


def start_up(subject: Subject) -> float:
    """Return the CPU seconds from the start of the process to its first READY."""
    with connected(subject) as bench:
        return bench.client.cpu_seconds


def command_cpu(*arguments: str) -> float:
    """Return the CPU seconds of a command of this Python's environment."""
    script = (
        "import os, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    return float(subprocess.check_output([sys.executable, "-c", script, *arguments]))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
