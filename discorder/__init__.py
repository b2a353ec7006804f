"""Discorder: a control plane for the Discord gateway.

It keeps a bot's gateway sessions alive through failures, and publishes each event to other programs. Names are imported on
first use.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers read it as true; `import typing` would delay the handling of Ctrl-C

if TYPE_CHECKING:
    from discorder.background import BackgroundPlane, serve_in_background
    from discorder.bot.commands import Commands
    from discorder.bot.subscriber import CurveKeys, Decoded, Gap, GapKind, subscribe
    from discorder.control_plane import TrackerRef, run, serve, shutdown
    from discorder.errors import CommandRefused, DiscorderError
    from discorder.outbound.members import GuildMembers
    from discorder.publishers.channel import ChannelEventPublisher
    from discorder.publishers.delimited_file import DelimitedFileEventPublisher
    from discorder.publishers.log import LogPublisher
    from discorder.publishers.zeromq.publisher import ZmqPublisher
    from discorder.rest import BotClient, File
    from discorder.runtime.moderation import run_bot
    from discorder.stats import GatewayStats
    from discorder.tracking.diagnosis import diagnose, is_operational
    from discorder.tracking.tracker import GatewayTracker, get_status
    from discorder.wire import Event, session_label, shard_of_guild

_HOMES = {
    "BackgroundPlane": "background",
    "BotClient": "rest",
    "ChannelEventPublisher": "publishers.channel",
    "CommandRefused": "errors",
    "Commands": "bot.commands",
    "CurveKeys": "bot.subscriber",
    "Decoded": "bot.subscriber",
    "DelimitedFileEventPublisher": "publishers.delimited_file",
    "DiscorderError": "errors",
    "Event": "wire",
    "File": "rest",
    "Gap": "bot.subscriber",
    "GapKind": "bot.subscriber",
    "GatewayStats": "stats",
    "GatewayTracker": "tracking.tracker",
    "GuildMembers": "outbound.members",
    "LogPublisher": "publishers.log",
    "TrackerRef": "control_plane",
    "ZmqPublisher": "publishers.zeromq",
    "diagnose": "tracking.diagnosis",
    "get_status": "tracking.tracker",
    "is_operational": "tracking.diagnosis",
    "run": "control_plane",
    "run_bot": "runtime.moderation",
    "serve": "control_plane",
    "serve_in_background": "background",
    "session_label": "wire",
    "shard_of_guild": "wire",
    "shutdown": "control_plane",
    "subscribe": "bot.subscriber",
}

__all__ = [
    "BackgroundPlane",
    "BotClient",
    "ChannelEventPublisher",
    "CommandRefused",
    "Commands",
    "CurveKeys",
    "Decoded",
    "DelimitedFileEventPublisher",
    "DiscorderError",
    "Event",
    "File",
    "Gap",
    "GapKind",
    "GatewayStats",
    "GatewayTracker",
    "GuildMembers",
    "LogPublisher",
    "TrackerRef",
    "ZmqPublisher",
    "diagnose",
    "get_status",
    "is_operational",
    "run",
    "run_bot",
    "serve",
    "serve_in_background",
    "session_label",
    "shard_of_guild",
    "shutdown",
    "subscribe",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
