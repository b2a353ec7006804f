"""An unmodified hikari bot: prints a line for each dispatch. Arguments: base URL, "sharded" or nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import hikari


async def main(url: str) -> None:
    bot = hikari.GatewayBot(
        os.environ["FACADE_TOKEN"],
        rest_url=f"{url}/api/v10",
        intents=hikari.Intents.ALL,
        banner=None,
        logs="WARNING",
        suppress_optimization_warning=True,
    )

    @bot.listen()
    async def on_payload(event: hikari.ShardPayloadEvent) -> None:
        print(json.dumps({"op": 0, "t": event.name, "id": event.payload.get("id")}), flush=True)

    await bot.start(check_for_updates=False)
    await bot.join()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
