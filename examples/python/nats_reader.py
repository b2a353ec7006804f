"""Read the events of a Discord bot out of a NATS stream. Needs nats-py only: pip install nats-py

    python nats_reader.py nats://127.0.0.1:4222 STREAM

Several of them share the work: each event is handled by one. An event that was not acknowledged is delivered again.
"""

import asyncio
import json
import sys

import nats
from nats.errors import TimeoutError as NothingNew
from nats.js.api import ConsumerConfig


async def main(server: str, stream: str) -> None:
    connection = await nats.connect(server)
    consumer = ConsumerConfig(durable_name="readers", ack_wait=30, max_ack_pending=1000)
    events = await connection.jetstream().pull_subscribe("", stream=stream, durable="readers", config=consumer)
    while True:
        try:
            messages = await events.fetch(100, timeout=5)
        except NothingNew:
            continue
        for message in messages:
            event = json.loads(message.data)
            if event["type"] == "DISCORDER_GAP":
                print("events are missing:", event["data"]["cause"], flush=True)
            elif event["seq"] is not None:
                print(event["type"], event["shard"][0], event["seq"], flush=True)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
