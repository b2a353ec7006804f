"""Define what a metric family is, and its conversion to the types of prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from discorder.metrics.scrape import Scrape
from discorder.stats import LATENCY_BOUNDS, Latencies
from discorder.tracking.shard_tracker import ShardTracker

Labelled = Iterable[tuple[tuple[str, ...], float]]  # (label values, value)
BOUNDS: Final = (*map(str, LATENCY_BOUNDS), "+Inf")


class MetricKind(StrEnum):
    """Name Prometheus' types of metrics that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """Define one metric of the process as a whole. ``read`` returns its samples; ``text`` is its HELP text."""

    name: str
    kind: MetricKind
    text: str
    read: Callable[[Scrape], Labelled]
    labels: tuple[str, ...] = ()

    def metric(self, reading: Scrape) -> Metric:
        """Return the family with its samples in ``reading``."""
        made = _CLASSES[self.kind](self.name, self.text, labels=self.labels)
        for labels, value in self.read(reading):
            made.add_metric(labels, value)
        return made


@dataclass(frozen=True, slots=True)
class HistogramFamily:
    """Define a histogram of the process as a whole."""

    name: str
    text: str
    read: Callable[[Scrape], Latencies]
    kind: MetricKind = MetricKind.HISTOGRAM
    labels: tuple[str, ...] = ()

    def metric(self, reading: Scrape) -> Metric:
        """Return the family with its buckets in ``reading``."""
        latencies = self.read(reading)
        made = HistogramMetricFamily(self.name, self.text)
        buckets = [(bound, float(count)) for bound, count in zip(BOUNDS, accumulate(latencies.counts), strict=True)]
        made.add_metric((), buckets=buckets, sum_value=latencies.seconds)
        return made


@dataclass(frozen=True, slots=True)
class ShardFamily:
    """Define one metric of each shard, with its id as the label. ``read`` returns None for a shard that has no value now."""

    name: str
    kind: MetricKind
    text: str
    read: Callable[[ShardTracker], float | None]
    labels: tuple[str, ...] = ("shard",)


_CLASSES: Final[dict[MetricKind, type[CounterMetricFamily | GaugeMetricFamily]]] = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
}


def count(name: str, text: str, read: Callable[[Scrape], float]) -> Family:
    """Return a counter without labels."""
    return Family(name, MetricKind.COUNTER, text, lambda reading: [((), read(reading))])


def gauge(name: str, text: str, read: Callable[[Scrape], float | None]) -> Family:
    """Return a gauge without labels; it has no sample while ``read`` returns None."""

    def samples(reading: Scrape) -> Labelled:
        value = read(reading)
        return [] if value is None else [((), value)]

    return Family(name, MetricKind.GAUGE, text, samples)


def states(name: str, text: str, all_states: Iterable[str], now: Callable[[Scrape], str]) -> Family:
    """Return a gauge with one sample per state: 1 for the state ``now``, 0 for the others."""
    listed = tuple(all_states)
    return Family(
        name,
        MetricKind.GAUGE,
        text,
        lambda reading: [((state,), state == now(reading)) for state in listed],
        ("state",),
    )
