"""Merge the metrics of several processes: each sample gets the label ``process``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from discorder.group.member import Member
from discorder.metrics.exposition import OPEN_METRICS_END
from discorder.statemachine import State

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass
class _Family:
    """The lines of one family: its metadata, and the samples of all processes."""

    head: list[str]
    samples: list[str] = field(default_factory=list)


def merge_metrics(scrapes: Sequence[tuple[int, str]], absent: Iterable[Member]) -> bytes:
    """Return the metrics of the processes as one. ``scrapes``: number and text of each, all in one format.

    The processes of ``absent`` have no metrics; they get samples that say that their shards are not ready, so that alerts fire.
    """
    end = OPEN_METRICS_END.decode()
    families: dict[str, _Family] = {}
    for number, text in scrapes:
        family = _Family([])
        for line in text.removesuffix(end).splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                family = families.setdefault(name, _Family([]))
                if line not in family.head:
                    family.head.append(line)
            else:
                family.samples.append(_labelled(line, number))
    for member in absent:
        for name, samples in _not_ready(member).items():
            families.setdefault(name, _Family([f"# TYPE {name} gauge"])).samples.extend(samples)
    lines = [line for family in families.values() for line in (*family.head, *family.samples)]
    is_open = any(text.endswith(end) for _, text in scrapes)
    return ("\n".join(lines) + "\n" + (end if is_open else "")).encode()


def _not_ready(member: Member) -> dict[str, list[str]]:
    """Return the samples of a process that does not answer, by family."""
    label = f'process="{member.number}"'
    return {
        "discorder_ready": [f"discorder_ready{{{label}}} 0.0"],
        "discorder_shards": [f'discorder_shards{{{label},state="{State.DISCONNECTED}"}} {len(member.shards)}.0'],
        "discorder_paused_shards": [f"discorder_paused_shards{{{label}}} 0.0"],
        "discorder_shard_ready": [f'discorder_shard_ready{{{label},shard="{shard}"}} 0.0' for shard in member.shards],
    }


def _labelled(sample: str, number: int) -> str:
    """Return a sample with the label ``process`` before its own labels."""
    name = _NAME.match(sample)
    if name is None:
        return sample
    rest = sample[name.end() :]
    label = f'process="{number}"'
    return f"{name[0]}{{{label},{rest[1:]}" if rest.startswith("{") else f"{name[0]}{{{label}}}{rest}"
