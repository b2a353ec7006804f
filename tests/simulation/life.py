"""What the simulation records of a process and of its connections, for the judges."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from discorder.plane import ControlPlane
from discorder.tracking.shard_tracker import Transition
from discorder.tracking.tracker import GatewayTracker
from tests.simulation.clock import Wall
from tests.simulation.disk import Disk
from tests.simulation.loop import Process, VirtualLoop, VirtualTask
from tests.simulation.network import Link
from tests.simulation.sinks import Book, Sink

SLACK = 1e-6  # seconds that sums of virtual moments may be off


@dataclass(eq=False)
class Host:
    """A machine: the state that outlives its processes. ``identify_sent`` by bucket; ``wall_jumped_at``: its clock was set."""

    name: str
    wall: Wall
    disk: Disk
    books: dict[Sink, Book]
    identify_sent: dict[int, float] = field(default_factory=dict)
    identified_at: list[float] = field(default_factory=list)
    started_at: list[float] = field(default_factory=list)
    wall_jumped_at: float = float("-inf")


@dataclass(eq=False)
class Wire:
    """One connection, as its client has seen it. Moments are monotonic seconds of the process."""

    link: Link
    dialled_at: float
    hello_at: float | None = None
    asked_at: float | None = None  # IDENTIFY or RESUME was sent
    resumed: str = ""  # label of the session that RESUME named
    progress_at: float | None = None  # the last dispatch that came
    up: bool = False  # READY or RESUMED has come
    last_frame_at: float | None = None
    last_beat_at: float | None = None
    unanswered_since: float | None = None
    silent_since: float | None = None  # the first beat after the last frame
    closing_at: float | None = None
    beat_wanted_at: float | None = None  # op 1 came
    told: str = ""  # the first thing that came and ends the connection
    disturbed: bool = False  # an error was thrown into one of its tasks


@dataclass(frozen=True)
class End:
    """Of a connection: when, and the least seconds to the next dial; after a stable one at most ``first_rung``."""

    at: float
    pause: float
    first_rung: float


@dataclass(eq=False)
class Life:
    """One process from start to end."""

    process: Process
    host: Host
    loop: VirtualLoop
    started_at: float
    task: VirtualTask | None = None
    plane: ControlPlane | None = None
    tracker: GatewayTracker | None = None
    stop_at: float | None = None
    goodbye: bool = False
    killed: bool = False
    fatal: bool = False
    looked_up_at: float = float("-inf")  # GET /gateway/bot answered last; from the first time on it knows the main host
    wires: dict[int, Wire] = field(default_factory=dict)
    ended: dict[int, End] = field(default_factory=dict)  # of the last wire of each shard
    paused: set[int] = field(default_factory=set)  # shards that an operator has paused, in this process or before
    stable: set[int] = field(default_factory=set)  # shards whose last wire was up for so long that back-off began anew
    known: set[str] = field(default_factory=set)  # labels of the sessions that it opened or found in the store
    opened: dict[str, float] = field(default_factory=dict)  # label: when its READY came
    ended_at: float = float("inf")
    beats: dict[int, int | None] = field(default_factory=dict)  # what the next heartbeat must say
    seen: dict[str, int] = field(default_factory=dict)  # label: the last seq that came
    fresh: dict[int, deque[tuple[str, int]]] = field(default_factory=dict)  # came, and not yet published in line
    handed: dict[tuple[Sink, str], int] = field(default_factory=dict)
    congested: set[str] = field(default_factory=set)
    refusals: dict[str, list[float]] = field(default_factory=dict)
    failed_hosts: dict[int, str] = field(default_factory=dict)  # shard: where its last dial brought no Hello
    steps: dict[int, Transition] = field(default_factory=dict)  # the last one seen of each shard
    ready_since: dict[int, float] = field(default_factory=dict)  # monotonic seconds of the process
    # congested when, by whom, what it had accepted
    held_off: dict[int, tuple[float, Book, int]] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.process.alive and self.task is not None and not self.task.done()

    @property
    def awake(self) -> bool:
        return self.process.frozen_until <= self.loop.time()

    def monotonic(self) -> float:
        return self.loop.time() - self.process.slept
