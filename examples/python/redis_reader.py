"""Read the events of a Discord bot out of streams of Redis or Valkey. Needs redis-py only: pip install redis

    python redis_reader.py redis://127.0.0.1:6379 STREAM...

Several of them share the work: each event is handled by one. An event that was not acknowledged within 30 s goes to another one.
"""

import asyncio
import json
import os
import sys

from redis.asyncio import Redis
from redis.exceptions import ResponseError

GROUP = "readers"
DEAD_AFTER = 30_000  # milliseconds without an acknowledgement


async def main(server, *streams):
    name = f"reader-{os.getpid()}"
    async with Redis.from_url(server, decode_responses=True, protocol=2) as redis:
        for stream in streams:
            await make_group(redis, stream)
        while True:
            for stream in streams:  # what other readers left behind when they died
                _, entries, _ = await redis.xautoclaim(stream, GROUP, name, DEAD_AFTER, count=100)
                await handle(redis, stream, entries)
            new = await redis.xreadgroup(GROUP, name, dict.fromkeys(streams, ">"), count=100, block=5000)
            for stream, entries in new:
                await handle(redis, stream, entries)


async def make_group(redis, stream):
    try:
        await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)  # from the oldest event on
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):  # another reader has made it
            raise


async def handle(redis, stream, entries):
    for entry, fields in entries:
        event = json.loads(fields["document"])
        if event["type"] == "DISCORDER_GAP":
            print("events are missing:", event["data"]["cause"], flush=True)
        elif event["seq"] is not None:
            print(event["type"], event["shard"][0], event["seq"], flush=True)
        await redis.xack(stream, GROUP, entry)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
