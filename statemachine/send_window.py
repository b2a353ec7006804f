"""Compute when the next frame may be sent. The caller passes all times, in monotonic seconds. There is no queue here.

Source: docs/protocol.md#send-limit (120 frames in 60 s per connection, 5 presence updates in 20 s, all members of a guild
once in 30 s). Heartbeats, IDENTIFY and RESUME count against the limit but never wait: a reserve is kept for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

SEND_LIMIT, SEND_SECONDS = 120, 60.0
PRESENCE_LIMIT, PRESENCE_SECONDS = 5, 20.0
WHOLE_GUILD_SECONDS = 30.0
MARGIN = 1.0  # seconds; two frames sent a whole window apart may arrive this much closer together
SPARE_CONTROL_FRAMES = 3  # besides heartbeats: IDENTIFY or RESUME, a heartbeat requested by op 1, a probe
LARGEST_RESERVE = SEND_LIMIT // 2  # even with a heartbeat every second, commands get half of the window


class CommandLimit(Enum):
    """List the separate limits of commands. The window of 60 s applies to all of them."""

    PLAIN = "plain"
    PRESENCE = "presence"
    WHOLE_GUILD = "whole guild"


@dataclass(frozen=True, slots=True)
class Quota:
    """Name the separate limit of a command. ``guild_id`` is set only for a request for all members of a guild."""

    kind: CommandLimit
    guild_id: int = 0


PLAIN = Quota(CommandLimit.PLAIN)
PRESENCE = Quota(CommandLimit.PRESENCE)


def reserve_for(interval: float) -> int:
    """Return the frames per window that are reserved for control frames, with a heartbeat every ``interval`` seconds."""
    return min(math.ceil(SEND_SECONDS / interval) + SPARE_CONTROL_FRAMES, LARGEST_RESERVE)


class SendWindow:
    """Record the frames that one shard sent. The presence and member limits outlive a connection, the 60 s window does not."""

    __slots__ = ("_frames", "_guilds", "_presences", "_reserve", "_slow_until")

    def __init__(self) -> None:
        self._reserve = reserve_for(SEND_SECONDS)
        self._frames: list[tuple[float, bool]] = []  # (sent at, is a control frame); oldest first
        self._presences: list[float] = []
        self._guilds: dict[int, float] = {}  # when all members of a guild may be requested again
        self._slow_until = -math.inf

    # ---------------------------------------------------------------- what happened

    def connection_opened(self, interval: float) -> None:
        """Start a new window for a new connection, which sends a heartbeat every ``interval`` seconds."""
        self._frames.clear()
        self._reserve = reserve_for(interval)

    def control_sent(self, at: float) -> None:
        """Record a control frame, which never waits: a heartbeat, IDENTIFY or RESUME."""
        self._forget(at)
        self._frames.append((at, True))

    def sent(self, quota: Quota, at: float) -> None:
        """Record that a command was sent."""
        self._forget(at)
        self._frames.append((at, False))
        if quota.kind is CommandLimit.PRESENCE:
            self._presences = [*self._presences[1 - PRESENCE_LIMIT :], at]
        elif quota.kind is CommandLimit.WHOLE_GUILD:
            self.hold_guild(quota.guild_id, at, WHOLE_GUILD_SECONDS)

    def hold_guild(self, guild_id: int, at: float, seconds: float) -> None:
        """Block requests for all members of ``guild_id`` for ``seconds``: by our own rule or by Discord's answer."""
        self._guilds = {guild: until for guild, until in self._guilds.items() if until > at}
        self._guilds[guild_id] = max(self._guilds.get(guild_id, at), at + seconds + MARGIN)

    def slow_down(self, until: float) -> None:
        """Halve the rate of commands until ``until``. Used after close code 4008."""
        self._slow_until = max(self._slow_until, until)

    # ---------------------------------------------------------------- what may happen

    def due(self, quota: Quota, now: float) -> float:
        """Return the earliest time, ``now`` or later, at which a command of ``quota`` may go if nothing else is sent before."""
        self._forget(now)
        return max(self._window_at(now), self._quota_at(quota, now))

    def _quota_at(self, quota: Quota, now: float) -> float:
        if quota.kind is CommandLimit.PRESENCE and len(self._presences) == PRESENCE_LIMIT:
            return max(now, self._presences[0] + PRESENCE_SECONDS + MARGIN)
        if quota.kind is CommandLimit.WHOLE_GUILD:
            return max(now, self._guilds.get(quota.guild_id, now))
        return now

    def _window_at(self, now: float) -> float:
        if now >= self._slow_until:
            return self._room_at(now, share=1)
        return min(self._room_at(now, share=2), max(self._slow_until, self._room_at(now, share=1)))

    def _room_at(self, now: float, *, share: int) -> float:
        """Return when the commands in the window are fewer than 1/``share`` of the frames that control frames leave."""
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
