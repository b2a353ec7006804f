"""The least that a Python publisher can do: aiohttp websocket, inflate, find the header, two frames per event on a PUB socket.

It has no session, no replay, no document, no statistics. Arguments: the REST base URL, the endpoint to bind.
"""

from __future__ import annotations

import asyncio
import re
import sys
import zlib

import aiohttp
import zmq

from tests.bench.clients.counter import Counter

SUFFIX = b"\x00\x00\xff\xff"
header = re.compile(rb'\{"t":"([A-Z_]+)","s":(\d+),"op":0,"d":').match


async def main(api: str, endpoint: str) -> None:
    """Read and publish until killed."""
    counter = Counter()
    bus = zmq.Context().socket(zmq.PUB)
    bus.set_hwm(10_000)
    bus.bind(endpoint)
    context = zlib.decompressobj()
    seq = None
    async with aiohttp.ClientSession() as session:
        info = await (await session.get(f"{api}/gateway/bot", headers={"Authorization": "Bot bench"})).json()
        url = f"{info['url']}?v=10&encoding=json&compress=zlib-stream"
        async with session.ws_connect(url, max_msg_size=0, decode_text=False, compress=0) as socket:
            await socket.send_str('{"op":2,"d":{"token":"bench","intents":0,"properties":{}}}')
            async for message in socket:
                text = context.decompress(message.data)
                found = header(text)
                if found is None:
                    if b'"op":1,' in text:
                        await socket.send_str(f'{{"op":1,"d":{seq}}}')
                    continue
                seq = int(found[2])
                bus.send(found[1], zmq.SNDMORE | zmq.DONTWAIT)
                bus.send(text, zmq.DONTWAIT)
                counter.arrived(seq)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
