"""Clients that write the number of each event to a file: ``python -m tests.compare.clients NAME API TOKEN GATEWAY FILE``."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Note = Callable[[Any], None]


def discordpy(api: str, token: str, gateway: str, note: Note) -> None:
    """discord.py with its raw listener."""
    import discord  # noqa: PLC0415  # each process needs one library
    import yarl  # noqa: PLC0415
    from discord.gateway import DiscordWebSocket  # noqa: PLC0415
    from discord.http import Route  # noqa: PLC0415

    Route.BASE = api
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
    client = discord.Client(intents=discord.Intents.all(), enable_debug_events=True, chunk_guilds_at_startup=False)

    @client.event
    async def on_socket_raw_receive(message: str) -> None:
        note(json.loads(message).get("d"))

    client.run(token, log_handler=None)


def hikari(api: str, token: str, _: str, note: Note) -> None:
    """hikari with a listener for the payload of every event."""
    import hikari  # noqa: PLC0415

    root = api.rpartition("/")[0]
    bot = hikari.GatewayBot(token, rest_url=f"{root}/v10", banner=None, logs="CRITICAL")

    async def listen(event: Any) -> None:
        note(event.payload)

    bot.subscribe(hikari.ShardPayloadEvent, listen)
    bot.run(check_for_updates=False, asyncio_debug=False)


CLIENTS = {"discord.py": discordpy, "hikari": hikari}


def main(name: str, api: str, token: str, gateway: str, path: str) -> None:
    """Run a client until it is stopped."""
    logging.disable(logging.CRITICAL)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(d: Any) -> None:
        if isinstance(d, Mapping) and "number" in d:
            os.write(file, b"%d\n" % d["number"])

    CLIENTS[name](api, token, gateway, note)


if __name__ == "__main__":
    main(*sys.argv[1:])
