"""How many frames may be sent, and when the next one may go, as arithmetic over monotonic seconds that others hand in.

Source: gateway-protocol.md §2 (120 frames in 60 s per connection, 5 presence updates in 20 s) and §13.1 (all members of a guild
once in 30 s). Heartbeats, IDENTIFY and RESUME are counted and never wait: a reserve is kept for them. It holds no queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

SEND_LIMIT, SEND_SECONDS = 120, 60.0
PRESENCE_LIMIT, PRESENCE_SECONDS = 5, 20.0
WHOLE_GUILD_SECONDS = 30.0
MARGIN = 1.0  # seconds: what was sent a whole window apart may arrive so much closer together
SPARE_CONTROL_FRAMES = 3  # beside the beats of a window: IDENTIFY or RESUME, a beat that op 1 asks for, a probe
LARGEST_RESERVE = SEND_LIMIT // 2  # a server that wants a beat every second still leaves half of the window to commands


class Kind(Enum):
    """What a command is counted as, beside the window that all of them share."""

    PLAIN = "plain"
    PRESENCE = "presence"
    WHOLE_GUILD = "whole guild"


@dataclass(frozen=True, slots=True)
class Quota:
    """The limit of its own that a command is under. ``guild_id`` is set for all members of a guild, and only then."""

    kind: Kind
    guild_id: int = 0


PLAIN = Quota(Kind.PLAIN)
PRESENCE = Quota(Kind.PRESENCE)


def reserve_for(interval: float) -> int:
    """Frames of a window that commands leave to a connection that beats every ``interval`` seconds."""
    return min(math.ceil(SEND_SECONDS / interval) + SPARE_CONTROL_FRAMES, LARGEST_RESERVE)


class SendWindow:
    """What one shard has sent. The limits of presence and members outlive a connection, the window of 60 s does not."""

    __slots__ = ("_frames", "_guilds", "_presences", "_reserve", "_slow_until")

    def __init__(self) -> None:
        self._reserve = reserve_for(SEND_SECONDS)
        self._frames: list[tuple[float, bool]] = []  # when, and whether it was a control frame; oldest first
        self._presences: list[float] = []
        self._guilds: dict[int, float] = {}  # when all members of a guild may be asked for again
        self._slow_until = -math.inf

    # ---------------------------------------------------------------- what happened

    def connection_opened(self, interval: float) -> None:
        """A new connection, with a window of its own, that beats every ``interval`` seconds."""
        self._frames.clear()
        self._reserve = reserve_for(interval)

    def control_sent(self, at: float) -> None:
        """A frame that never waits was sent: a heartbeat, IDENTIFY or RESUME."""
        self._forget(at)
        self._frames.append((at, True))

    def sent(self, quota: Quota, at: float) -> None:
        """A command was sent."""
        self._forget(at)
        self._frames.append((at, False))
        if quota.kind is Kind.PRESENCE:
            self._presences = [*self._presences[1 - PRESENCE_LIMIT :], at]
        elif quota.kind is Kind.WHOLE_GUILD:
            self.hold_guild(quota.guild_id, at, WHOLE_GUILD_SECONDS)

    def hold_guild(self, guild_id: int, at: float, seconds: float) -> None:
        """All members of ``guild_id`` are not asked for again within ``seconds``: our own rule, or Discord's answer."""
        self._guilds = {guild: until for guild, until in self._guilds.items() if until > at}
        self._guilds[guild_id] = max(self._guilds.get(guild_id, at), at + seconds + MARGIN)

    def slow_down(self, until: float) -> None:
        """Half as many commands until then: Discord closed with 4008."""
        self._slow_until = max(self._slow_until, until)

    # ---------------------------------------------------------------- what may happen

    def due(self, quota: Quota, now: float) -> float:
        """The earliest moment, ``now`` or later, at which a command of ``quota`` may be sent if nothing else is until then."""
        self._forget(now)
        return max(self._window_at(now), self._quota_at(quota, now))

    def _quota_at(self, quota: Quota, now: float) -> float:
        if quota.kind is Kind.PRESENCE and len(self._presences) == PRESENCE_LIMIT:
            return max(now, self._presences[0] + PRESENCE_SECONDS + MARGIN)
        if quota.kind is Kind.WHOLE_GUILD:
            return max(now, self._guilds.get(quota.guild_id, now))
        return now

    def _window_at(self, now: float) -> float:
        if now >= self._slow_until:
            return self._room_at(now, share=1)
        return min(self._room_at(now, share=2), max(self._slow_until, self._room_at(now, share=1)))

    def _room_at(self, now: float, *, share: int) -> float:
        """When the commands of the window are fewer than the ``share``-th part of what control frames leave."""
        control = sum(is_control for _, is_control in self._frames)
        commands = len(self._frames) - control
        at = now
        for sent_at, is_control in self._frames:
            if commands < (SEND_LIMIT - max(control, self._reserve)) // share:
                break
            at = sent_at + SEND_SECONDS + MARGIN
            control -= is_control
            commands -= not is_control
        return at

    def _forget(self, now: float) -> None:
        gone = 0
        for sent_at, _ in self._frames:
            if sent_at + SEND_SECONDS + MARGIN > now:
                break
            gone += 1
        if gone:
            del self._frames[:gone]
