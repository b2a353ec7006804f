"""Scrape a control plane in a test, and read the values."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from discorder.metrics import Exposition

Key = tuple[str, tuple[tuple[str, str], ...]]  # name and sorted labels of a series


def scrape(exposition: Exposition) -> dict[Key, float]:
    """Return the value of each series."""
    text = exposition.page().body.decode()
    return {
        key_of(sample): sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }


def key_of(sample: Sample) -> Key:
    return sample.name, tuple(sorted(sample.labels.items()))


def key(name: str, **labels: str) -> Key:
    """Return the key of a series."""
    return name, tuple(sorted(labels.items()))


def promtool(*arguments: str, given: str = "") -> str:
    """Run promtool and return what it prints; fail if it does.

    Skips the test where Prometheus is not installed; in CI, which installs it, that is a failure.
    """
    if shutil.which("promtool") is None and os.environ.get("CI") != "true":
        pytest.skip("promtool is not installed (Debian: prometheus)")
    ended = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def fallen(before: dict[Key, float], after: dict[Key, float], *, ignoring: Iterable[str] = ()) -> list[Key]:
    """Return the counters that are lower in ``after``, or not there any more, except those of the publishers ``ignoring``."""
    gone = {("publisher", name) for name in ignoring}
    return [
        series
        for series, value in before.items()
        if is_counter(series[0]) and not gone & set(series[1]) and after.get(series, -1.0) < value
    ]
