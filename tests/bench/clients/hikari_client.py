"""hikari with or without one listener for the raw payload of every event.

Arguments: the API's root URL, a token, "listener" or "silent".
"""

from __future__ import annotations

import sys
from typing import Any

import hikari
from hikari.impl import CacheSettings
from hikari.impl import config as hikari_config

from tests.bench.clients.counter import Counter


def main(api: str, token: str, mode: str) -> None:
    """Run until killed. Nothing is cached: that is hikari at its best."""
    counter = Counter()
    nothing = CacheSettings(components=hikari_config.CacheComponents.NONE)
    bot = hikari.GatewayBot(token, rest_url=f"{api}/v10", banner=None, logs="ERROR", cache_settings=nothing)
    if mode == "listener":

        async def count(event: Any) -> None:
            counter.arrived(0)

        bot.subscribe(hikari.ShardPayloadEvent, count)
    bot.run(check_for_updates=False, asyncio_debug=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
