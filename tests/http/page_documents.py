"""Make status documents for tests of the page: one shard or many, well or not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from math import sin
from typing import Any

from discorder.statemachine import State

Document = dict[str, Any]

AT = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
POINTS = 180


def ago(seconds: float) -> str:
    """Return the moment ``seconds`` before `AT`; negative: after it."""
    return (AT - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shard(number: int, state: State = State.READY, **changes: Any) -> Document:
    """Return a shard in ``state``; one in Ready serves unless ``healthy`` says otherwise."""
    ready = state is State.READY
    return {
        "id": number,
        "state": state.value,
        "healthy": ready,
        "parked": False,
        "paused": False,
        "reasons": [],
        "since": ago(86_400 if ready else 4.5),
        "cause": None if ready else "closed: 1006, no close frame",
        "attempt": 0,
        "generation": 3,
        "session": f"{number * 7919 % 0xFFFFFF:06x}…",
        "seq": 100_000 + number * 977,
        "guilds": 900 + number % 250,
        "events_per_s": 9.5,
        "owner": None,
        "ages_s": {
            "frame": 0.3 if ready else None,
            "ack": 12.0 if ready else None,
            "dispatch": 0.4 if ready else None,
            "unanswered_beat": None,
        },
        "heartbeat": {
            "interval_s": 41.25 if ready else None,
            "latency_s": 0.03 + number % 40 / 1000 if ready else None,
        },
        "counts": {"restarts": 2, "resumes": 2, "identifies": 1},
        "next": None if ready else plan("dial", 3.5, "RESUME on the resume host", backoff_s=4.2, attempt=1),
    } | changes


def plan(action: str, seconds: float, text: str, **changes: Any) -> Document:
    """Return what a shard does next, in ``seconds``."""
    return {
        "kind": "planned" if action == "dial" else "deadline",
        "action": action,
        "purpose": "resume",
        "at": ago(-seconds),
        "host": "resume",
        "attempt": None,
        "backoff_s": None,
        "identifies": 0,
        "text": text,
    } | changes


def step(number: int, source: str, trigger: str, target: str, *, age: float, cause: str | None = None) -> Document:
    """Return a transition of shard ``number``."""
    return {
        "at": ago(age),
        "shard": number,
        "source": source,
        "trigger": trigger,
        "target": target,
        "cause": cause,
        "spent_s": 0.25,
        "generation": 3,
    }


def publisher(name: str, **changes: Any) -> Document:
    """Return a publisher that works."""
    return {
        "name": name,
        "kind": "ZmqPublisher",
        "state": "healthy",
        "required": False,
        "overflow": "drop_oldest",
        "lag_s": 0.004,
        "queued_events": 0,
        "queued_bytes": 0,
        "in_flight": 0,
        "accepted": 1_204_331,
        "per_s": 41.5,
        "dropped": 0,
        "gaps": 0,
        "failures": 0,
        "last_error": "",
        "process": None,
    } | changes


def verdict(shards: list[Document], **changes: Any) -> Document:
    """Return the verdict on ``shards``."""
    states = Counter(one["state"] for one in shards)
    ready = sum(one["healthy"] for one in shards)
    well = ready == len(shards)
    return {
        "level": "well" if well else "impaired" if ready else "down",
        "healthy": well,
        "headline": "The gateway is well" if well else f"{len(shards) - ready} of {len(shards)} shards are not well",
        "detail": "Every shard is Ready and its heartbeats are answered." if well else "The sessions are kept.",
        "since": ago(7200 if well else 40),
        "reasons": [],
        "shards": {
            "total": len(shards),
            "ready": ready,
            "by_state": {state.value: states[state.value] for state in State},
        },
    } | changes


def document(shards: list[Document] | None = None, **changes: Any) -> Document:
    """Return a whole document; ``changes`` replaces its keys."""
    shards = [shard(0)] if shards is None else shards
    ready = sum(one["healthy"] for one in shards)
    base = {
        "schema": "discorder.status/1",
        "at": ago(0),
        "process": _process(),
        "verdict": verdict(shards),
        "progress": {"ready": ready, "total": len(shards), "eta_s": 0.0},
        "notes": [],
        "flows": _flows(serving=ready > 0),
        "event_types": [
            {"type": "MESSAGE_CREATE", "per_s": 24.0, "total": 801_200},
            {"type": "PRESENCE_UPDATE", "per_s": 11.5, "total": 400_100},
        ],
        "shards": shards,
        "transitions": _transitions(shards),
        "publishers": [publisher("zmq"), publisher("archive", kind="DelimitedFilePublisher", required=True)],
        "bus": _bus(),
        "facade": None,
        "cluster": None,
        "budget": _budget(len(shards)),
        "store": {"state": "ok", "reason": "", "path": "sessions.sqlite3"},
        "sessions": {"held": len(shards), "stored": len(shards), "last_saved_at": ago(3)},
        "totals": _totals(len(shards)),
        "log": [
            {"at": ago(4.5), "level": "WARNING", "message": "The connection was lost", "fields": {"shard": 0}},
            {"at": ago(30), "level": "INFO", "message": "Heartbeat acknowledged", "fields": {"latency_ms": 43.25}},
        ],
    }
    return base | changes


def bot(name: str, *shards: int, **changes: Any) -> Document:
    """Return a bot of the façade that is connected on ``shards`` and has every event."""
    return {
        "name": name,
        "libraries": ["discord.py"] if shards else [],
        "sessions": len(shards),
        "shards": list(shards),
        "since": ago(7_000) if shards else None,
        "seen_at": None,
        "catch_up_s": 120.0,
        "lag_events": 0,
        "lag_s": 0.0,
        "identifies": len(shards),
        "resumes": 0,
        "invalid_sessions": 0,
        "refused": "",
    } | changes


def facade(*bots: Document) -> Document:
    """Return a façade with ``bots``."""
    return {"url": "http://127.0.0.1:7000", "bots": list(bots), "sessions": []}


def with_bots() -> Document:
    """Return a document with a façade: bots that are connected, behind, away, and have never been there."""
    slow = {"libraries": ["discord.js", "hikari"], "sessions": 6, "lag_events": 1_204_331, "lag_s": 94.25}
    return document(
        [shard(number) for number in range(64)],
        facade=facade(
            bot("main", *range(20), 31, resumes=3, invalid_sessions=1),
            bot("a-name-of-32-characters-00000000", *range(0, 64, 2), libraries=["\x1b[31m<b>\u202e"]),
            bot("slow", 0, 1, 3, **slow),
            bot("near", 2, lag_events=1, lag_s=0.004),
            bot("away", seen_at=ago(95.5), identifies=2_000, resumes=14),
            bot("new"),
            bot("wrong", refused="4014: the control plane has not the intents GUILD_MEMBERS, GUILD_PRESENCES"),
        ),
    )


def several() -> Document:
    """Return a document of two processes, of which one does not answer."""
    lost = "process 1: it does not answer"
    away = shard(1, State.DISCONNECTED, healthy=False, reasons=[lost], cause=lost, owner="process 1", next=None)
    member = {"number": 0, "pid": 41, "shards": 1, "healthy": True, "headline": "Well: the shard serves"}
    use = {"started_at": ago(900), "memory_bytes": 62_914_560, "cpu_ratio": 0.021}
    absent = {"number": 1, "pid": 42, "shards": 1, "healthy": False, "headline": "it does not answer"}
    processes = [member | use, absent | dict.fromkeys(use)]
    return document(
        [shard(0, owner="process 0"), away],
        process=_process() | {"processes": processes},
        publishers=[publisher("zmq", process=0)],
    )


def trouble(shards: int, ill: int) -> Document:
    """Return a document of ``shards`` shards, of which ``ill`` do not serve, each for another reason."""
    parked = {"parked": True, "cause": "the identify budget is spent", "next": None}
    silent = {"healthy": False, "cause": "a heartbeat is unanswered for 38.9 s"}
    silent["ages_s"] = {"frame": 39.4, "ack": 80.1, "dispatch": 39.4, "unanswered_beat": 38.9}
    resumed = {"next": plan("resumed", 25, "RESUMED from the main host")}
    kinds: list[tuple[State, Document]] = [
        (State.RESTARTING, parked),
        (State.RESTARTING, {"attempt": 6}),
        (State.READY, silent),
        (State.RESUMING, resumed),
        (State.RESTARTING, {}),
        (State.CONNECTING, {"next": plan("hello", 12, "Hello, then RESUME")}),
        (State.UNHEALTHY, {"next": plan("verdict", 0.8, "The socket is closed, then RESUME")}),
    ]
    every = [shard(number) for number in range(shards)]
    for index in range(ill):
        number = (311 + 97 * index) % shards
        state, changes = kinds[index % len(kinds)]
        every[number] = shard(number, state, **changes)
    note = {
        "kind": "publisher",
        "title": "Publisher archive is 92 s behind",
        "text": "It is required, so the resume points wait for it.",
        "since": ago(92),
    }
    late = publisher("archive", state="retrying", required=True, lag_s=92.4, queued_events=411_208)
    late |= {"queued_bytes": 611_870_208, "failures": 31, "last_error": "OSError: no space left on device"}
    return document(every, notes=[note], publishers=[publisher("zmq", dropped=14_117, gaps=3), late])


def starting(shards: int, ready: int) -> Document:
    """Return a document of a start: ``ready`` shards serve, the others wait for their turn."""
    waits = plan("identify", 5.2, "IDENTIFY, when it is its turn", kind="estimate", purpose="identify", identifies=1)
    first = {"generation": 1, "cause": None, "session": None, "seq": None, "guilds": None, "next": waits}
    every = [shard(number) if number < ready else shard(number, State.IDENTIFYING, **first) for number in range(shards)]
    changes: Document = {"level": "starting", "headline": f"Starting: {ready} of {shards} shards are ready"}
    changes |= {"detail": "Shards identify 16 at a time, 5.25 s apart.", "since": ago(6.6)}
    budget = _budget(shards) | {"waiting": shards - ready, "last_turn_at": ago(-10)}
    progress = {"ready": ready, "total": shards, "eta_s": 10.6}
    doc = document(every, verdict=verdict(every, **changes), budget=budget, progress=progress)
    doc["process"] |= {"started_at": ago(6.6)}
    doc["totals"] |= {"events": 31_290, "restarts": 0, "resumes": 0, "identifies": ready}
    unknown = [None] * (POINTS - 6)
    latency = {"median": [*unknown, None, None, 0.04, 0.041, 0.043, 0.042]}
    latency["worst"] = [*unknown, None, None, 0.11, 0.13, 0.12, 0.118]
    doc["flows"] |= {"step_s": 1, "from": ago(POINTS), "latency_s": latency}
    doc["flows"]["events_per_s"] = [*unknown, 0.0, 0.0, 41.0, 102.0, 150.0, 198.0]
    doc["flows"]["not_serving"] = [{"from": ago(6.6), "to": ago(3)}]
    doc["transitions"] = [step(number, "Identifying", "ready", "Ready", age=2) for number in range(ready)]
    return doc


# -------------------------------------------------------------------------------------------------- the parts


def _process() -> Document:
    return {
        "version": "0.1.0",
        "host": "gw-1",
        "pid": 4117,
        "started_at": ago(537_000),
        "python": "3.13.1",
        "compression": "zstd-stream",
        "loop_lag_s": {"now": 0.001, "worst": 0.041},
        "memory_bytes": 71_303_168,
        "cpu_ratio": 0.021,
        "open_files": {"used": 34, "limit": 65_536},
        "processes": [],
    }


def _flows(*, serving: bool) -> Document:
    rates: list[float | None] = [
        round(45 + 6 * sin(index / 9) + 3 * sin(index / 2.3) + (index * 37 % 23) / 6, 1) for index in range(POINTS)
    ]
    latencies: list[float | None] = [0.04 + (index * 11 % 7) / 1000 for index in range(POINTS)]
    outage = {"from": ago(40), "to": None}
    if not serving:
        rates[-8:] = [0.0] * 8
        latencies[-8:] = [None] * 8
    worst = [None if value is None else round(value * (4 + sin(index / 4)), 3) for index, value in enumerate(latencies)]
    return {
        "step_s": 5,
        "from": ago(POINTS * 5),
        "events_per_s": rates,
        "latency_s": {"median": latencies, "worst": worst},
        "not_serving": [] if serving else [outage],
    }


def _transitions(shards: list[Document]) -> list[Document]:
    ill = next((one for one in shards if not one["healthy"]), None)
    number = 0 if ill is None else ill["id"]
    before = [
        step(number, "Resuming", "resumed", "Ready", age=90_000),
        step(number, "Connecting", "hello", "Resuming", age=90_001),
        step(number, "Restarting", "restart_due", "Connecting", age=90_002),
    ]
    if ill is None:
        return before
    lost = step(number, "Ready", "closed", "Unhealthy", age=40, cause="closed: 1006, no close frame")
    return [step(number, "Unhealthy", "diagnosed", "Restarting", age=39, cause="back-off 4.2 s"), lost, *before]


def _bus() -> Document:
    return {
        "bind": "tcp://127.0.0.1:6000",
        "router_bind": "tcp://127.0.0.1:6001",
        "connections": [{"peer": "127.0.0.1:51844", "since": ago(190_000)}],
        "subscriptions": [{"topic": "MESSAGE_CREATE", "count": 2}, {"topic": "GUILD_", "count": 1}],
        "ring": {"bytes": 41_203_112, "bytes_limit": 67_108_864, "span_s": 588.2, "span_limit_s": 600},
        "replays_running": 0,
        "replays_total": 14,
        "requests_total": 1204,
        "commands_total": 88,
        "refused_keys_total": 0,
    }


def _budget(shards: int) -> Document:
    return {
        "total": 1000,
        "remaining": 999,
        "reserve": 100,
        "spendable": 899,
        "spent_here": 1,
        "foreign": 0,
        "reset_at": ago(-36_000),
        "looked_up_at": ago(40),
        "max_concurrency": 16,
        "waiting": 0,
        "last_turn_at": None,
        "cold_start": {"identifies": shards, "seconds": 5.25 * (shards // 16)},
    }


def _totals(shards: int) -> Document:
    return {
        "events": 1_201_300,
        "restarts": 2 * shards,
        "resumes": 2 * shards,
        "identifies": shards,
        "gaps": 0,
        "dropped": 0,
        "stale": 3,
        "unexpected": 0,
        "commands_sent": 311,
        "commands_refused": 2,
    }
