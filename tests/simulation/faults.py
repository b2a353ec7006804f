"""Every kind of fault that a plan can hold: a sentence, the cases of the fault list that it belongs to, and how long it lasts.

What a kind does to the world is written where that part of the world is: network, gateway, look-up, sinks, store, hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from discorder.statemachine import State


class Kind(StrEnum):
    """The kinds; a value is what a plan and the coverage table call it."""

    # the network
    REFUSE_MAIN = "refuse-main"
    REFUSE_RESUME = "refuse-resume"
    DIAL_HANGS = "dial-hangs"
    DIAL_RESET = "dial-reset"
    HALF_OPEN = "half-open"
    RESET = "reset"
    DELAY = "delay"
    TRUNCATED = "truncated"
    WRITE_HANGS = "write-hangs"
    CLOSE_UNANSWERED = "close-unanswered"
    # the gateway
    NO_HELLO = "no-hello"
    RECONNECT = "op7"
    RECONNECT_STORM = "op7-storm"
    RECONNECT_FIRST = "op7-before-hello"
    INVALID_RESUMABLE = "op9-true"
    INVALID = "op9-false"
    INVALID_FIRST = "op9-before-hello"
    CLOSE = "close"
    CLOSE_FATAL = "close-fatal"
    NO_ACK = "no-ack"
    ASK_BEAT = "op1"
    READY_SLOW = "ready-slow"
    READY_NEVER = "ready-never"
    IDENTIFY_INVALID = "identify-op9"
    RESUME_INVALID = "resume-op9-false"
    RESUME_AGAIN = "resume-op9-true"
    RESUME_CLOSED = "resume-closed"
    RESUME_SILENT = "resume-silent"
    FLAPPING = "flapping"
    REPLAY_LOST = "replay-lost"
    EXPIRED = "expired"
    SECOND_READY = "second-ready"
    GARBAGE = "garbage"
    BURST = "burst"
    LOOKUP_5XX = "lookup-5xx"
    LOOKUP_429 = "lookup-429"
    LOOKUP_HANGS = "lookup-hangs"
    # the publishers
    SINK_FAILS = "sink-fails"
    SINK_HANGS = "sink-hangs"
    SINK_SLOW = "sink-slow"
    SINK_REPEATS = "sink-repeats"
    FLOOD = "flood"
    # the host
    WALL_JUMP = "wall-jump"
    HOST_SLEEP = "host-sleep"
    DISK_FULL = "disk-full"
    DISK_SLOW = "disk-slow"
    # the process
    KILL = "kill"
    CRASH_LOOP = "crash-loop"
    STOP = "stop"
    GOODBYE = "goodbye"
    THROW = "throw"
    SECOND_OWNER = "second-owner"
    RESTART = "restart"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Nature:
    """``lasts``: bounds of its duration in seconds, (0, 0) for what happens at one moment. ``variants``: how many there are."""

    sentence: str
    cases: str  # numbers of the fault list, "" = none of them
    lasts: tuple[float, float] = (0.0, 0.0)
    variants: int = 1
    weight: int = 4


CLOSE_CODES = (4000, 4001, 4002, 4003, 4005, 4007, 4008, 4009, 1000, 1001, 1012, 4321, None)
FATAL_CODES = (4004, 4010, 4011, 4012, 4013, 4014)
THROWN = ("processor", "heartbeat", "doctor", "master")
BREACHES = (
    b"{",
    b'{"op":0,"t":"X","s":9,"d":{"a":"\xff\xfe"}}',
    b'{"op":0,"t":"X","s":9223372036854775808,"d":{}}',
    b'{"op":0,"t":"X","s":0,"d":{}}',
    b'{"op":0,"t":"X","s":7}',
    b'{"op":0,"s":7,"d":{}}',
    b'{"op":10,"d":{"heartbeat_interval":0}}',
    b'{"op":9,"d":"perhaps"}',
    b'["op"]',
    b"",
)
"""Frames after which the connection must be given up; the rest of `GARBAGE` must be passed over."""
ODDITIES = (b'{"op":99,"d":{"x":1}}', b'{"op":11,"d":null,"new":1}', b'{"op":3,"d":null,"s":null,"t":null}')

NATURES: dict[Kind, Nature] = {
    Kind.REFUSE_MAIN: Nature("the main host refuses connections", "1", (5, 900)),
    Kind.REFUSE_RESUME: Nature("the resume host answers 503", "1", (5, 900)),
    Kind.DIAL_HANGS: Nature("a dial is never answered", "2", (5, 120)),
    Kind.DIAL_RESET: Nature("connections are reset before Hello", "5", (5, 120)),
    Kind.HALF_OPEN: Nature("nothing passes any more, in either direction, and nobody is told", "3", weight=8),
    Kind.RESET: Nature("the connection is reset", "8", weight=8),
    Kind.DELAY: Nature("every frame takes up to this many seconds longer", "18", (10, 300), 3),
    Kind.TRUNCATED: Nature("half a frame arrives, then the connection is reset", "21"),
    Kind.WRITE_HANGS: Nature("what is written stays in a full buffer", "3"),
    Kind.CLOSE_UNANSWERED: Nature("close frames are not answered", "16", (10, 120)),
    Kind.NO_HELLO: Nature("the upgrade succeeds, Hello does not come", "2", (5, 120)),
    Kind.RECONNECT: Nature("op 7", "4, 5", weight=6),
    Kind.RECONNECT_STORM: Nature("op 7 about once a second", "4", (20, 60)),
    Kind.RECONNECT_FIRST: Nature("op 7 instead of Hello", "5", (2, 20)),
    Kind.INVALID_RESUMABLE: Nature("op 9 true", "5, 6", weight=6),
    Kind.INVALID: Nature("op 9 false: the session is gone", "5, 6"),
    Kind.INVALID_FIRST: Nature("op 9 before Hello", "21", (2, 20)),
    Kind.CLOSE: Nature("the gateway closes", "8", variants=len(CLOSE_CODES), weight=12),
    Kind.CLOSE_FATAL: Nature(
        "the gateway closes for good; an operator starts anew", "7", variants=len(FATAL_CODES), weight=8
    ),
    Kind.NO_ACK: Nature("heartbeats are not acknowledged on this connection", "3", weight=10),
    Kind.ASK_BEAT: Nature("op 1: a beat at once", ""),
    Kind.READY_SLOW: Nature("READY takes 10 to 50 s", "", (30, 300)),
    Kind.READY_NEVER: Nature("IDENTIFY is not answered", "2", (10, 100), weight=2),
    Kind.IDENTIFY_INVALID: Nature("IDENTIFY is answered by op 9", "6", (2, 300), 2),
    Kind.RESUME_INVALID: Nature("RESUME is answered by op 9 false: the session is gone", "6", (1, 10), weight=2),
    Kind.RESUME_AGAIN: Nature("RESUME is answered by op 9 true", "5, 6", (2, 40)),
    Kind.RESUME_CLOSED: Nature("RESUME is answered by a close", "19", (5, 600), 3),
    Kind.RESUME_SILENT: Nature("RESUME is not answered", "19", (30, 200)),
    Kind.FLAPPING: Nature("the connection is closed as soon as it is up", "20", (5, 120)),
    Kind.REPLAY_LOST: Nature("the replay buffer is emptied and the connection reset", "", weight=2),
    Kind.EXPIRED: Nature("the connection is reset and the session has expired", "", weight=2),
    Kind.SECOND_READY: Nature("a second READY", "21", weight=2),
    Kind.GARBAGE: Nature("a frame that the protocol does not know", "21", variants=len(BREACHES) + len(ODDITIES)),
    Kind.BURST: Nature("some hundred or thousand events at once", "18", variants=2),
    Kind.LOOKUP_5XX: Nature("GET /gateway/bot answers 503", "", (10, 600)),
    Kind.LOOKUP_429: Nature("GET /gateway/bot answers 429", "", (10, 300)),
    Kind.LOOKUP_HANGS: Nature("GET /gateway/bot is not answered", "", (10, 300)),
    Kind.SINK_FAILS: Nature("a publisher raises", "11, 12", (5, 150), 3, 8),
    Kind.SINK_HANGS: Nature("a publisher hangs", "11, 12", (5, 150), 3, 12),
    Kind.SINK_SLOW: Nature("a publisher takes 2 s for a batch, so its queue fills", "12, 18", (20, 300), 3),
    Kind.SINK_REPEATS: Nature("a publisher accepts, then raises", "", (5, 60), 2),
    Kind.FLOOD: Nature(
        "a publisher that must not lose hangs, and more comes than can be held for it", "12, 18", (5, 40), 4
    ),
    Kind.WALL_JUMP: Nature("the wall clock jumps by an hour", "15", variants=2),
    Kind.HOST_SLEEP: Nature("the host sleeps", "14", (5, 900)),
    Kind.DISK_FULL: Nature("the session store cannot be written", "25", (5, 300)),
    Kind.DISK_SLOW: Nature("a write to the store takes a second", "25", (5, 300)),
    Kind.KILL: Nature("kill -9, and a restart within seconds", "9", weight=16),
    Kind.CRASH_LOOP: Nature("killed every 5 s", "10", (20, 90), weight=2),
    Kind.STOP: Nature("a graceful stop, and a restart within seconds", "16, 29", weight=8),
    Kind.GOODBYE: Nature("a stop that ends the sessions, and a restart", "16", weight=1),
    Kind.THROW: Nature("an error is thrown into a task", "", variants=len(THROWN)),
    Kind.SECOND_OWNER: Nature("another host runs the same token, without our store", "28", (100, 900), weight=1),
    Kind.RESTART: Nature("an operator restarts the shard", ""),
    Kind.PAUSE: Nature("an operator pauses the shard, and ends the pause later", "", (1, 600), weight=6),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """``at``: seconds from the start. With ``aim`` it waits, for a minute at most, until the shard is in that state, and
    strikes ``lag`` seconds later. ``seconds``: how long it lasts. ``variant``: which one of its kind.
    """

    at: float
    kind: Kind
    shard: int = 0
    aim: State | None = None
    lag: float = 0.0
    seconds: float = 0.0
    variant: int = 0

    def __str__(self) -> str:
        aim = "" if self.aim is None else f" in {self.aim}"
        lag = f" +{self.lag:g} s" if self.lag else ""
        lasts = f" for {self.seconds:g} s" if self.seconds else ""
        variant = f" #{self.variant}" if NATURES[self.kind].variants > 1 else ""
        return f"{self.at:10.2f} s  shard {self.shard}  {self.kind}{variant}{aim}{lag}{lasts}: {NATURES[self.kind].sentence}"


class Weather:
    """The lasting faults that hold now."""

    def __init__(self) -> None:
        self._until: dict[tuple[Kind, int], tuple[float, Fault]] = {}

    def begin(self, fault: Fault, now: float) -> None:
        """Let ``fault`` hold from now on, for its time."""
        self._until[fault.kind, fault.shard] = (now + fault.seconds, fault)

    def fault(self, kind: Kind, shard: int, now: float) -> Fault | None:
        """Return the fault of this kind that holds for ``shard``."""
        if not self._until:
            return None
        until, fault = self._until.get((kind, shard), (0.0, None))
        return fault if now < until else None

    def anywhere(self, kind: Kind, now: float) -> Fault | None:
        """Return the fault of this kind, for things that belong to no shard."""
        for (one, _), (until, fault) in self._until.items():
            if one is kind and now < until:
                return fault
        return None
