"""A discord.py bot behind the façade (docs/facade.md): start it, kill it, start it again, and it has missed no message.

Usage: FACADE_TOKEN=$(cat main.token) python discordpy_bot.py http://127.0.0.1:7000
"""

from __future__ import annotations

import os
import sys

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7000"
Route.BASE = f"{url}/api/v10"
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url.replace("http", "ws", 1))

intents = discord.Intents(guilds=True, guild_messages=True, message_content=True)
bot = discord.Client(intents=intents)


@bot.event
async def on_ready() -> None:
    """Say where the bot is."""
    print(f"ready as {bot.user} in {len(bot.guilds)} guilds", flush=True)


@bot.event
async def on_message(message: discord.Message) -> None:
    """Show a message."""
    print(f"message {message.id}: {message.content}", flush=True)


bot.run(os.environ["FACADE_TOKEN"])
