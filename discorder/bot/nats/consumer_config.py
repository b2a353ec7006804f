"""The configuration of a group's consumers, and what of an existing one would lose events or mix up their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from discorder.bot.nats.pinned import ACK_WAIT, PIN, PRIORITY_GROUP, WINDOW
from discorder.nats_access import exact

SECOND = 1_000_000_000  # JetStream gives durations in nanoseconds
CHECKED = (
    "ack_policy",
    "deliver_subject",
    "priority_policy",
    "priority_groups",
    "priority_timeout",
    "ack_wait",
    "backoff",
    "max_deliver",
    "max_ack_pending",
    "replay_policy",
    "headers_only",
    "inactive_threshold",
    "max_batch",
    "max_bytes",
    "max_expires",
)
DURATIONS = {"ack_wait", "priority_timeout", "inactive_threshold", "max_expires"}
STARTS = ("all", "by_start_time")  # deliver policies that `subscribe` chooses


class ConsumerConfig(msgspec.Struct, omit_defaults=True):
    """What JetStream says of a consumer. A default here is JetStream's; a field that it adds later is ignored."""

    name: str = ""
    durable_name: str = ""
    deliver_policy: str = "all"
    opt_start_time: str | None = None
    ack_policy: str = "none"
    ack_wait: int = 0
    backoff: tuple[int, ...] | None = None
    max_deliver: int = 0
    max_ack_pending: int = 0
    filter_subject: str = ""
    filter_subjects: tuple[str, ...] | None = None
    replay_policy: str = "instant"
    priority_groups: tuple[str, ...] | None = None
    priority_policy: str = "none"
    priority_timeout: int = 0
    deliver_subject: str = ""
    headers_only: bool = False
    inactive_threshold: int = 0
    max_batch: int = 0
    max_bytes: int = 0
    max_expires: int = 0

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects of the messages that it delivers; none: all of the stream."""
        return self.filter_subjects or ((self.filter_subject,) if self.filter_subject else ())


def group_config(name: str, filters: Sequence[str], start: ConsumerConfig) -> ConsumerConfig:
    """Return the configuration of the consumer ``name``, which begins where ``start`` does."""
    return ConsumerConfig(
        name=name,
        durable_name=name,
        ack_policy="explicit",
        ack_wait=round(ACK_WAIT * SECOND),
        max_deliver=-1,
        max_ack_pending=WINDOW,
        filter_subjects=tuple(filters),
        priority_groups=(PRIORITY_GROUP,),
        priority_policy="pinned_client",
        priority_timeout=round(PIN * SECOND),
        deliver_policy=start.deliver_policy,
        opt_start_time=start.opt_start_time,
    )


def start_fault(found: ConsumerConfig) -> str:
    """Return what is wrong with where a consumer begins, "" if nothing is."""
    return "" if found.deliver_policy in STARTS else _fault("deliver_policy", found.deliver_policy, " or ".join(STARTS))


def faults(found: ConsumerConfig, wanted: ConsumerConfig) -> Iterator[str]:
    """Yield what keeps a worker from using the consumer ``found``, each as a part of a sentence."""
    if fault := start_fault(found):
        yield fault
    if set(found.filters) != set(wanted.filters):
        has = ", ".join(sorted(found.filters)) or "empty, so that it delivers every message of the stream"
        must = ", ".join(sorted(wanted.filters))
        yield f"{_fault('filter_subjects', has, must)} (all workers of a group name the same types)"
    for field in CHECKED:
        is_now, must_be = getattr(found, field), getattr(wanted, field)
        if (is_now or None) != (must_be or None):
            shown = _seconds if field in DURATIONS else _shown
            yield _fault(field, shown(is_now), shown(must_be))


def _fault(field: str, is_now: str, must_be: str) -> str:
    return f"its {field} is {is_now}, and must be {must_be}"


def _seconds(nanoseconds: int) -> str:
    return f"{exact(nanoseconds / SECOND)} s"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in {None, ""} else str(value)
