"""List every metric: its name, its type, its HELP text, and where its value comes from.

docs/metrics.md is generated from these tables. Names follow Prometheus' rules: base units, ``_total`` for counters.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from typing import Final

from discorder.escapes import escape_controls
from discorder.metrics.families import (
    Family,
    HistogramFamily,
    Labelled,
    MetricKind,
    ShardFamily,
    count,
    gauge,
    states,
)
from discorder.metrics.scrape import Scrape
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.sessions import Budget
from discorder.sessions.store import StoreState
from discorder.statemachine import State
from discorder.tracking.facade_status import FacadeClientStatus
from discorder.version import installed_version


def _build(reading: Scrape) -> Labelled:
    return [((installed_version(), platform.python_version(), reading.tracker.compression.value), 1)]


def _shards_by_state(reading: Scrape) -> Labelled:
    now = Counter(shard.state for shard in reading.shards)
    return [((state.value,), now[state]) for state in State]


def _states_entered(reading: Scrape) -> Labelled:
    return [((state.value,), reading.stats.states_entered[state.value]) for state in State]


def _events_by_type(reading: Scrape) -> Labelled:
    return [((kind,), events) for kind, events in reading.events_by_type]


def _odd_frames(reading: Scrape) -> float:
    return reading.stats.odd_frames.total()


def _foreign_identifies(reading: Scrape) -> float:
    other = reading.tracker.plane.other_use
    return 0 if other is None else other.identifies


def _label(publisher: PublisherHealth) -> str:
    """Return the name of a publisher, which may be any key of TOML, as a label."""
    return escape_controls(publisher.name)


def _publisher_info(reading: Scrape) -> Labelled:
    return [
        ((_label(one), escape_controls(one.kind), "true" if one.required else "false"), 1) for one in reading.publishers
    ]


def _publisher_states(reading: Scrape) -> Labelled:
    return [((_label(one), state.value), one.state is state) for one in reading.publishers for state in PublisherState]


def _budget(name: str, text: str, read: Callable[[Budget], float]) -> Family:
    return gauge(name, text, lambda reading: None if reading.budget is None else read(reading.budget))


def _publisher(kind: MetricKind, name: str, text: str, read: Callable[[PublisherHealth], float]) -> Family:
    return Family(
        name, kind, text, lambda reading: [((_label(one),), read(one)) for one in reading.publishers], ("publisher",)
    )


def _bot(kind: MetricKind, name: str, text: str, read: Callable[[FacadeClientStatus], float]) -> Family:
    return Family(
        name, kind, text, lambda reading: [((one.name,), read(one)) for one in reading.facade.clients], ("client",)
    )


PROCESS: Final[tuple[Family | HistogramFamily, ...]] = (
    Family(
        "discorder_build_info",
        MetricKind.GAUGE,
        "Always 1; the labels have the version of Discorder and Python, and the compression of the gateway's stream.",
        _build,
        ("version", "python", "compression"),
    ),
    gauge(
        "discorder_ready",
        "1 if every shard is ready and the event loop is not blocked, else 0.",
        lambda reading: reading.is_ready,
    ),
    Family(
        "discorder_shards",
        MetricKind.GAUGE,
        "Number of shards of this process in each state.",
        _shards_by_state,
        ("state",),
    ),
    gauge(
        "discorder_paused_shards",
        "Number of shards that an operator has paused.",
        lambda reading: sum(shard.paused_since is not None for shard in reading.shards),
    ),
    # what happened to the connections
    Family(
        "discorder_transitions_total",
        MetricKind.COUNTER,
        "Transitions of all shards into each state.",
        _states_entered,
        ("state",),
    ),
    count(
        "discorder_restarts_total",
        "Connections that were opened to replace an earlier one.",
        lambda reading: reading.stats.restart_count,
    ),
    count(
        "discorder_resumes_total",
        "Sessions that Discord resumed.",
        lambda reading: reading.stats.resume_count,
    ),
    count(
        "discorder_identifies_total",
        "IDENTIFYs that this process sent.",
        lambda reading: reading.stats.identify_count,
    ),
    count(
        "discorder_stale_triggers_total",
        "Reports of a connection that had been replaced; they were dropped.",
        lambda reading: reading.stats.stale_count,
    ),
    count(
        "discorder_rejected_triggers_total",
        "Triggers that the transition table rejected in the state in which they came.",
        lambda reading: reading.stats.rejected_count,
    ),
    # heartbeats and ages
    count(
        "discorder_heartbeats_sent_total",
        "Heartbeats written to the gateway.",
        lambda reading: reading.stats.heartbeat_sent_count,
    ),
    count(
        "discorder_heartbeats_acknowledged_total",
        "ACKs that the gateway sent for heartbeats.",
        lambda reading: reading.stats.heartbeat_received_count,
    ),
    HistogramFamily(
        "discorder_heartbeat_latency_seconds",
        "Time from a heartbeat to its ACK, all shards together.",
        lambda reading: reading.stats.heartbeat_latency,
    ),
    gauge(
        "discorder_oldest_frame_age_seconds",
        "Age of the last frame, of the shard for which it is the oldest.",
        lambda reading: reading.oldest.frame,
    ),
    gauge(
        "discorder_oldest_ack_age_seconds",
        "Age of the last heartbeat ACK, of the shard for which it is the oldest.",
        lambda reading: reading.oldest.ack,
    ),
    gauge(
        "discorder_oldest_dispatch_age_seconds",
        "Age of the last event, of the shard for which it is the oldest.",
        lambda reading: reading.oldest.dispatch,
    ),
    gauge(
        "discorder_oldest_unanswered_heartbeat_age_seconds",
        "Age of the oldest heartbeat without an ACK; no sample while every heartbeat is answered.",
        lambda reading: reading.oldest.unanswered_heartbeat,
    ),
    # events
    count(
        "discorder_frames_total",
        "Payloads received from the gateway after Hello: events, ACKs and control messages.",
        lambda reading: reading.stats.event_count,
    ),
    Family(
        "discorder_events_total",
        MetricKind.COUNTER,
        'Events of each type that were received; "other" has the types beyond the first 128.',
        _events_by_type,
        ("type",),
    ),
    count(
        "discorder_odd_frames_total",
        "Frames that broke the gateway's protocol and were tolerated or dropped.",
        _odd_frames,
    ),
    count(
        "discorder_gaps_total",
        "Gaps that every publisher has: lost sessions, and events that did not come from the gateway.",
        lambda reading: reading.tracker.gaps_for_all,
    ),
    count(
        "discorder_dropped_events_total",
        "Events that publishers dropped, including publishers that were removed.",
        lambda reading: reading.stats.drop_count,
    ),
    count(
        "discorder_commands_sent_total",
        "Commands of the bot that were written to the gateway.",
        lambda reading: reading.stats.command_sent_count,
    ),
    count(
        "discorder_commands_refused_total",
        "Commands of the bot that a shard refused.",
        lambda reading: reading.stats.command_refused_count,
    ),
    # the identify budget
    _budget(
        "discorder_identify_limit",
        "IDENTIFYs that Discord allows in its window of 24 hours.",
        lambda budget: budget.total,
    ),
    _budget(
        "discorder_identify_remaining",
        "IDENTIFYs left until the window ends.",
        lambda budget: budget.remaining,
    ),
    _budget(
        "discorder_identify_spendable",
        "IDENTIFYs left above the reserve, which this process does not touch.",
        lambda budget: budget.spendable,
    ),
    _budget(
        "discorder_identify_reset_timestamp_seconds",
        "Unix time at which the window ends and all IDENTIFYs are available again.",
        lambda budget: budget.reset_at.timestamp(),
    ),
    count(
        "discorder_foreign_identifies_total",
        "IDENTIFYs of this bot that no process with this session store has sent.",
        _foreign_identifies,
    ),
    gauge(
        "discorder_look_up_failing",
        "1 while GET /gateway/bot has no usable answer, else 0.",
        lambda reading: reading.tracker.look_up_trouble is not None,
    ),
    states(
        "discorder_store_state",
        "1 for the present state of the session store, 0 for the other states.",
        StoreState,
        lambda reading: reading.tracker.store.state.value,
    ),
    # the event loop
    gauge(
        "discorder_loop_lag_seconds",
        "Last measured delay of the event loop, or the present one if that is longer.",
        lambda reading: reading.tracker.loop_lag.now,
    ),
    gauge(
        "discorder_loop_lag_longest_seconds",
        "Longest delay of the event loop since the start.",
        lambda reading: reading.tracker.loop_lag.worst,
    ),
    count(
        "discorder_loop_stalls_total",
        "Delays of the event loop of half a second or more.",
        lambda reading: reading.tracker.loop_lag.stalls,
    ),
    # publishers
    Family(
        "discorder_publisher_info",
        MetricKind.GAUGE,
        "Always 1; the labels have the class of the publisher, and whether the resume point waits for it.",
        _publisher_info,
        ("publisher", "kind", "required"),
    ),
    Family(
        "discorder_publisher_state",
        MetricKind.GAUGE,
        "1 for the present state of the publisher, 0 for the other states.",
        _publisher_states,
        ("publisher", "state"),
    ),
    _publisher(
        MetricKind.GAUGE,
        "discorder_publisher_lag_seconds",
        "Age of the oldest event that the publisher has not accepted, 0 if there is none.",
        lambda one: one.lag,
    ),
    _publisher(
        MetricKind.GAUGE,
        "discorder_publisher_queued_events",
        "Events that wait for the publisher.",
        lambda one: one.queued_events,
    ),
    _publisher(
        MetricKind.GAUGE,
        "discorder_publisher_queued_bytes",
        "Size of the events that wait for the publisher.",
        lambda one: one.queued_bytes,
    ),
    _publisher(
        MetricKind.GAUGE,
        "discorder_publisher_in_flight_events",
        "Events that are being published.",
        lambda one: one.in_flight,
    ),
    _publisher(
        MetricKind.COUNTER,
        "discorder_publisher_accepted_events_total",
        "Events that the publisher accepted.",
        lambda one: one.accepted,
    ),
    _publisher(
        MetricKind.COUNTER,
        "discorder_publisher_dropped_events_total",
        "Events that were dropped for this publisher.",
        lambda one: one.dropped,
    ),
    _publisher(
        MetricKind.COUNTER,
        "discorder_publisher_gaps_total",
        "Runs of events that were dropped for this publisher.",
        lambda one: one.gaps,
    ),
    _publisher(
        MetricKind.COUNTER,
        "discorder_publisher_failures_total",
        "Attempts to open the publisher or to publish that failed.",
        lambda one: one.failures,
    ),
    # the bots of the façade
    gauge(
        "discorder_facade_up",
        "1 if a façade serves the bots of the configuration, here or in a process of its own, else 0; no sample without bots.",
        lambda reading: reading.facade.url is not None if reading.tracker.config.facade.clients else None,
    ),
    _bot(
        MetricKind.GAUGE,
        "discorder_facade_sessions",
        "Sessions of the bot that are connected to the façade.",
        lambda one: one.sessions,
    ),
    _bot(
        MetricKind.GAUGE,
        "discorder_facade_lag_events",
        "Events that the bot has yet to get, on the shard on which it is furthest behind.",
        lambda one: one.lag,
    ),
    _bot(
        MetricKind.GAUGE,
        "discorder_facade_lag_seconds",
        "Age of the oldest event that the bot has yet to get, 0 if there is none.",
        lambda one: one.lag_s,
    ),
    _bot(
        MetricKind.GAUGE,
        "discorder_facade_away_seconds",
        "Time since the bot last had a session, at most since the façade was opened; 0 while it has one.",
        lambda one: one.away_s,
    ),
    _bot(
        MetricKind.GAUGE,
        "discorder_facade_catch_up_seconds",
        "Time after its last session within which the bot gets the events that it missed.",
        lambda one: one.catch_up,
    ),
    _bot(
        MetricKind.COUNTER,
        "discorder_facade_identifies_total",
        "Sessions that the bot began at the façade; none of them costs an IDENTIFY at Discord.",
        lambda one: one.identifies,
    ),
    _bot(
        MetricKind.COUNTER,
        "discorder_facade_resumes_total",
        "Sessions that the bot resumed at the façade.",
        lambda one: one.resumes,
    ),
    _bot(
        MetricKind.COUNTER,
        "discorder_facade_invalid_sessions_total",
        "Times that the bot got op 9, because its session could not go on.",
        lambda one: one.invalid_sessions,
    ),
)

# At most four: each costs a line per shard at every scrape.
PER_SHARD: Final = (
    ShardFamily(
        "discorder_shard_ready",
        MetricKind.GAUGE,
        "1 if the shard is in state Ready and its heartbeats are answered, else 0.",
        lambda shard: shard.serves,
    ),
    ShardFamily(
        "discorder_shard_ack_age_seconds",
        MetricKind.GAUGE,
        "Age of the last heartbeat ACK on the shard's connection; no sample before the first one.",
        lambda shard: None if shard.pulse is None else shard.age_of(shard.pulse.last_ack_at),
    ),
    ShardFamily(
        "discorder_shard_restarts_total",
        MetricKind.COUNTER,
        "Connections of the shard that were opened to replace an earlier one.",
        lambda shard: shard.stats.restart_count,
    ),
    ShardFamily(
        "discorder_shard_events_total",
        MetricKind.COUNTER,
        "Events of the shard that were passed to the publishers.",
        lambda shard: shard.stats.published_event_count,
    ),
)
