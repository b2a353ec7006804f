"""Describe the publishers and the bus for the document."""

from __future__ import annotations

from collections.abc import Callable

from discorder.publishers.delivery.health import PublisherHealth
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.status.document import BusClientPart, BusPart, PublisherPart, RingPart, SubscriptionPart, moment
from discorder.tracking.tracker import GatewayTracker

MOST_CLIENTS = 64  # in the document, the newest
MOST_TOPICS = 64  # in the document, the commonest
LONGEST_TOPIC = 64  # characters of one in the document; Discord's longest event name has 38


class DeliveryDescriber:
    """Describes the publishers of one plane; `sample` is called once a second."""

    def __init__(self, tracker: GatewayTracker, redact: Callable[[str], str]) -> None:
        self._tracker = tracker
        self._redact = redact
        self._accepted: dict[str, int] = {}
        self._per_s: dict[str, float] = {}

    def sample(self, seconds: float) -> None:
        """Read what each publisher has accepted, ``seconds`` after the last sample."""
        accepted = {health.name: health.accepted for health in self._tracker.publisher_health}
        self._per_s = {
            name: round(max(0, count - self._accepted.get(name, count)) / seconds, 1)
            for name, count in accepted.items()
        }
        self._accepted = accepted

    def publishers(self) -> list[PublisherPart]:
        """Return the publishers, those of the configuration first."""
        return [self._describe(health) for health in self._tracker.publisher_health]

    def bus(self) -> BusPart | None:
        """Return the ZeroMQ bus, the first one if there are several; None without one."""
        for publisher in self._tracker.publishers:
            if isinstance(publisher, ZmqPublisher):
                return _bus(publisher)
        return None

    def _describe(self, health: PublisherHealth) -> PublisherPart:
        return PublisherPart(
            name=health.name,
            kind=health.kind,
            state=health.state,
            required=health.required,
            overflow=health.overflow,
            lag_s=round(health.lag, 3),
            queued_events=health.queued_events,
            queued_bytes=health.queued_bytes,
            in_flight=health.in_flight,
            accepted=health.accepted,
            per_s=self._per_s.get(health.name, 0.0),
            dropped=health.dropped,
            gaps=health.gaps,
            failures=health.failures,
            last_error=self._redact(health.last_error),
            process=None,
        )


def _bus(publisher: ZmqPublisher) -> BusPart:
    state = publisher.state
    topics = sorted(state.topics.items(), key=lambda topic: (-topic[1], topic[0]))
    clients = sorted(state.clients, key=lambda client: client.since, reverse=True)[:MOST_CLIENTS]
    return BusPart(
        bind=", ".join(state.binds),
        router_bind=state.router_bind,
        connections=[BusClientPart(peer=client.peer, since=moment(client.since)) for client in clients],
        subscriptions=[SubscriptionPart(topic=_cut(topic), count=count) for topic, count in topics[:MOST_TOPICS]],
        ring=RingPart(
            bytes=state.ring_bytes,
            bytes_limit=state.ring_bytes_limit,
            span_s=round(state.ring_span, 1),
            span_limit_s=state.ring_span_limit,
        ),
        replays_running=state.replays_running,
        replays_total=state.replays,
        requests_total=state.requests,
        commands_total=state.commands,
        refused_keys_total=state.refused_keys,
    )


def _cut(topic: str) -> str:
    """Return a topic, one that is too long to be an event name with an ellipsis in place of its end."""
    return topic if len(topic) <= LONGEST_TOPIC else f"{topic[: LONGEST_TOPIC - 1]}…"
