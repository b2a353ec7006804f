"""A hikari bot behind the façade (docs/facade.md): start it, kill it, start it again, and it has missed no message.

Usage: FACADE_TOKEN=$(cat main.token) python hikari_bot.py http://127.0.0.1:7000
"""

from __future__ import annotations

import os
import sys

import hikari

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7000"
intents = hikari.Intents.GUILDS | hikari.Intents.GUILD_MESSAGES | hikari.Intents.MESSAGE_CONTENT
bot = hikari.GatewayBot(os.environ["FACADE_TOKEN"], rest_url=f"{url}/api/v10", intents=intents, banner=None)


@bot.listen()
async def on_ready(event: hikari.ShardReadyEvent) -> None:
    """Say where the bot is."""
    print(f"ready as {event.my_user} in {len(event.unavailable_guilds)} guilds", flush=True)


@bot.listen()
async def on_message(event: hikari.GuildMessageCreateEvent) -> None:
    """Show a message."""
    print(f"message {event.message_id}: {event.content}", flush=True)


bot.run(check_for_updates=False)
