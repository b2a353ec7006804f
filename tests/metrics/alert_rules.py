"""Scrape a control plane every 15 seconds of its clock, and let promtool judge the scrapes by the alert rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from discorder.metrics import Exposition
from tests.metrics.scrapes import Key, key, promtool, scrape

if TYPE_CHECKING:
    from tests.harness import Stage

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
INTERVAL = 15.0  # seconds, as in deploy/prometheus/prometheus.yaml
STEPS = 6  # of the clock per interval
TARGET = {"job": "discorder", "instance": "127.0.0.1:6080"}
FIRING = 'max by (alertname) (ALERTS{alertstate="firing"})'


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """Return the alert rules."""
    return tuple(rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"])


class Monitor:
    """Keeps the scrapes of one plane, as Prometheus does. The time between two of them passes on the stage's clock."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._exposition = Exposition(stage.tracker)
        self._scrapes: list[dict[Key, float]] = []
        self.scrape()

    def scrape(self) -> None:
        """Scrape now."""
        self._scrapes.append(scrape(self._exposition) | {key("up"): 1.0})

    def fail(self) -> None:
        """Record a scrape that was not answered."""
        self._scrapes.append({key("up"): 0.0})

    async def watch(self, minutes: float) -> None:
        """Scrape for some minutes."""
        for _ in range(round(minutes * 60 / INTERVAL)):
            for _ in range(STEPS):
                await asyncio.sleep(0.001)
                await self._stage.fake.advance(INTERVAL / STEPS)
            self.scrape()

    async def watch_until(self, predicate: Callable[[], object]) -> None:
        """Let time pass until ``predicate()``, then scrape."""
        await self._stage.until(predicate, within=INTERVAL)
        self.scrape()

    def firing(self, folder: Path, *alerts: str) -> None:
        """Check that these alerts fire at the last scrape, and no others; and none at the first one."""
        end = f"{round((len(self._scrapes) - 1) * INTERVAL)}s"
        samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]
        test = {
            "rule_files": [str(RULES)],
            "evaluation_interval": f"{INTERVAL:.0f}s",
            "tests": [
                {
                    "interval": f"{INTERVAL:.0f}s",
                    "input_series": self._series(),
                    "promql_expr_test": [
                        {"expr": FIRING, "eval_time": "0s", "exp_samples": []},
                        {"expr": FIRING, "eval_time": end, "exp_samples": samples},
                    ],
                }
            ],
        }
        file = folder / "test.yaml"
        file.write_text(yaml.safe_dump(test))
        promtool("test", "rules", str(file))

    def _series(self) -> list[dict[str, str]]:
        keys = sorted({one for scraped in self._scrapes for one in scraped})
        return [
            {"series": _written(one), "values": " ".join(_value(scraped.get(one)) for scraped in self._scrapes)}
            for one in keys
        ]


def _written(series: Key) -> str:
    name, labels = series
    listed = ",".join(f"{label}={json.dumps(value)}" for label, value in {**dict(labels), **TARGET}.items())
    return f"{name}{{{listed}}}"


def _value(value: float | None) -> str:
    return "_" if value is None else repr(float(value))
