"""discord.py with a raw listener, which is its cheapest way to hand on every event.

Arguments: the API's URL, a token, the gateway's URL.
"""

from __future__ import annotations

import logging
import sys

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.bench.clients.counter import Counter

logging.disable(logging.WARNING)


def main(api: str, token: str, gateway: str) -> None:
    """Run until killed, with every cache that can be switched off switched off."""
    counter = Counter()
    Route.BASE = api
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
    client = discord.Client(
        intents=discord.Intents.all(),
        enable_debug_events=True,
        max_messages=None,
        chunk_guilds_at_startup=False,
        member_cache_flags=discord.MemberCacheFlags.none(),
    )

    @client.event
    async def on_socket_raw_receive(message: str) -> None:
        counter.arrived(0)

    client.run(token, log_handler=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
