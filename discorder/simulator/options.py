"""Define the options of a simulator, checked when they are created."""

from __future__ import annotations

from dataclasses import dataclass, field

from discorder.event_intents import PRIVILEGED

DEFAULT_TOKEN = "MTM0NTE4Nzk4OTMxNTI1NjMzMw.simulated.not-a-secret"  # noqa: S105 - accepted by the simulator only
MAX_GUILDS = 50_000  # ids of generated guilds lie 1 << 22 apart and must not run into the next id of the payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """The options of a `Simulator`. Raises ValueError for a value out of range.

    The world: ``guilds``; ``members``, made-up members added to the nine of each guild; ``rate``, events per second over
    the whole world; ``seed``.

    Addresses: ``port`` (REST and gateway) and ``resume_port`` (the host in ``resume_gateway_url``); 0 = any free one.

    Account: ``token``; ``shards``, the recommended count; ``max_concurrency``; ``session_start_total`` and
    ``session_start_remaining`` (None = all of it) of the 24 h window; ``approved_intents``, the privileged bits that
    the application may ask for; ``max_guilds_per_shard`` (4011 above it).

    Sessions: ``session_ttl``, seconds for which a session without a socket is kept; ``replay_buffer``, its events.

    Timing and size: ``heartbeat_interval_ms``; ``missed_heartbeats``, the silence, in intervals, after which the server
    closes with 4009 (0 = never); ``max_payload``, bytes of one client frame; ``zlib_split``, websocket frames per
    message of a zlib-stream; ``max_backlog``, bytes that may wait for a client that does not read before it is cut off.

    Limits: ``send_limit`` frames per ``send_window`` seconds; ``identify_spacing``, seconds between two IDENTIFYs of a
    bucket; ``member_request_spacing``, seconds between two op 8 for all members of a guild; 0 switches each of them off.
    ``count_rejected_identifies``: an IDENTIFY refused for its spacing costs budget too. ``enforce_budget``: one
    IDENTIFY too many resets the token, as Discord does; otherwise it is only recorded. ``rest_limit``: requests per
    second and bucket, and ``rest_global_limit``, per second; 0 = no limit.

    Records: ``history``, entries kept of each record; ``keep_documents``, whether the bytes of each dispatch are kept.
    """

    guilds: int = 3
    members: int = 0
    rate: float = 0.0
    seed: int = 0
    port: int = 0
    resume_port: int = 0
    token: str = field(default=DEFAULT_TOKEN, repr=False)
    shards: int = 1
    max_concurrency: int = 1
    session_start_total: int = 1000
    session_start_remaining: int | None = None
    approved_intents: int = PRIVILEGED
    max_guilds_per_shard: int = 2500
    session_ttl: float = 180.0
    replay_buffer: int = 10_000
    heartbeat_interval_ms: int = 41_250
    missed_heartbeats: float = 2.0
    max_payload: int = 4096
    zlib_split: int = 1
    max_backlog: int = 64 * 1024 * 1024
    send_limit: int = 120
    send_window: float = 60.0
    identify_spacing: float = 5.0
    member_request_spacing: float = 30.0
    count_rejected_identifies: bool = False
    enforce_budget: bool = True
    rest_limit: int = 20
    rest_global_limit: int = 50
    history: int = 200_000
    keep_documents: bool = False

    def __post_init__(self) -> None:
        at_least_one = (
            "shards",
            "max_concurrency",
            "session_start_total",
            "max_guilds_per_shard",
            "heartbeat_interval_ms",
            "max_payload",
            "zlib_split",
            "max_backlog",
            "history",
        )
        at_least_zero = (
            "guilds",
            "members",
            "rate",
            "session_ttl",
            "replay_buffer",
            "missed_heartbeats",
            "send_limit",
            "send_window",
            "identify_spacing",
            "member_request_spacing",
            "rest_limit",
            "rest_global_limit",
        )
        for minimum, names in ((1, at_least_one), (0, at_least_zero)):
            for name in names:
                _check(name, getattr(self, name), minimum)
        for name in ("port", "resume_port"):
            _check(name, getattr(self, name), 0, 65_535)
        _check("guilds", self.guilds, 0, MAX_GUILDS)
        _check("approved_intents", self.approved_intents & ~PRIVILEGED, 0, 0)
        if self.session_start_remaining is not None:
            _check("session_start_remaining", self.session_start_remaining, 0, self.session_start_total)
        if self.port and self.port == self.resume_port:
            msg = f"port and resume_port are both {self.port}: the two hosts need a port each"
            raise ValueError(msg)
        if not self.token:
            msg = "token is empty"
            raise ValueError(msg)


def _check(name: str, value: float, minimum: float, maximum: float | None = None) -> None:
    if not value >= minimum or (maximum is not None and value > maximum):
        allowed = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
        msg = f"{name} is {value!r}; allowed: {allowed}"
        raise ValueError(msg)
