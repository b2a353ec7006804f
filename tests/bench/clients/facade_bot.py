"""A bot behind the façade that counts its events and parses nothing. Argument: the endpoint of the bus beside it."""

from __future__ import annotations

import asyncio
import sys

import aiohttp

from tests.bench.clients.counter import Counter
from tests.bench.subjects import ALL_INTENTS, facade_folder, facade_of

HEARTBEAT = {"op": 1, "d": None}


async def main(bus: str) -> None:
    """Read until killed."""
    counter = Counter()
    token = (facade_folder(bus) / "bot.token").read_text().strip()
    url = f"ws://{facade_of(bus)}/?v=10&encoding=json"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        beats = asyncio.create_task(_beat(socket))
        await socket.send_json({"op": 2, "d": {"token": token, "intents": ALL_INTENTS, "properties": {}}})
        async for message in socket:
            if b'"op":0' in message.data[:200].encode():
                counter.arrived(0)
        beats.cancel()


async def _beat(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        await socket.send_json(HEARTBEAT)
        await asyncio.sleep(10.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
