"""Run the bot of `discorder demo --bot`: discord.py as its users write it, but for the address. Prints a line per message.

Usage: FACADE_TOKEN=… python -m discorder.cli.demo_discordpy URL
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

import yarl

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # discord.py 2.7 imports audioop
    import discord
    from discord.gateway import DiscordWebSocket
    from discord.http import Route


def say(text: str) -> None:
    """Write one line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(url: str, token: str) -> None:
    """Run the bot until it is killed."""
    Route.BASE = f"{url}/api/v10"
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url.replace("http", "ws", 1))
    bot = discord.Client(intents=discord.Intents(guilds=True, messages=True, message_content=True))

    @bot.event
    async def on_ready() -> None:
        say(f"ready {len(bot.guilds)}")

    @bot.event
    async def on_message(message: discord.Message) -> None:
        say(f"message {message.id}")

    bot.run(token, log_level=logging.ERROR)


if __name__ == "__main__":
    run(sys.argv[1], os.environ["FACADE_TOKEN"])
