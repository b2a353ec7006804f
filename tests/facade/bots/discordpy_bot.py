"""An unmodified discord.py bot: prints a line for each dispatch. Arguments: base URL, shard count or 0 for one client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings

import yarl

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # discord.py 2.7 imports audioop
    import discord
    import discord.gateway
    import discord.http


def main(url: str, sharded: bool) -> None:
    discord.http.Route.BASE = f"{url}/api/v10"
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url.replace("http", "ws"))
    kind = discord.AutoShardedClient if sharded else discord.Client

    class Bot(kind):  # type: ignore[misc, valid-type]  # one of two
        async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
            """Do not wait 5 s per shard."""

    bot = Bot(
        intents=discord.Intents.all(), enable_debug_events=True, guild_ready_timeout=0.2, chunk_guilds_at_startup=False
    )

    @bot.event  # type: ignore[untyped-decorator]  # its class is one of two
    async def on_socket_raw_receive(message: str) -> None:
        frame = json.loads(message)
        if frame["op"] != 11:
            d = frame["d"] if isinstance(frame["d"], dict) else {}
            print(json.dumps({"op": frame["op"], "t": frame["t"], "s": frame["s"], "id": d.get("id")}), flush=True)

    async def run() -> None:
        async with bot:
            await bot.start(os.environ["FACADE_TOKEN"])

    asyncio.run(run())


if __name__ == "__main__":
    main(sys.argv[1], sharded=sys.argv[2:] == ["sharded"])
