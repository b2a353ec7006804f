"""A slash-command bot: /ping answers "Pong!". It stores its position in slash_bot.cursor, so a restart misses no event.

With `discorder serve` running and DISCORD_BOT_TOKEN set: python slash_bot.py [ADDRESS]
"""

import asyncio
import contextlib
import os
import sys

import discorder

CALLBACK = "/interactions/{interaction_id}/{interaction_token}/callback"
COMMAND, MESSAGE = 2, 4  # types of an interaction and of its answer


async def answer(client: discorder.BotClient, interaction: dict) -> None:
    if interaction["type"] != COMMAND or interaction["data"]["name"] != "ping":
        return
    ids = {"interaction_id": interaction["id"], "interaction_token": interaction["token"]}
    try:
        await client.request("POST", CALLBACK, **ids, json={"type": MESSAGE, "data": {"content": "Pong!"}})
    except discorder.DiscorderError as error:  # a replayed interaction may be too old for an answer
        print("not answered:", error)


async def main(address: str = "tcp://127.0.0.1:6000") -> None:
    async with discorder.BotClient(api=os.environ.get("DISCORD_API")) as client:
        me = await client.request("GET", "/applications/@me")
        commands = [{"name": "ping", "description": "Is anybody there?"}]
        await client.request("PUT", "/applications/{application_id}/commands", application_id=me["id"], json=commands)
        async with discorder.subscribe(address, "INTERACTION_CREATE", cursor="slash_bot.cursor") as events:
            print("listening", flush=True)
            async for event in events:
                if isinstance(event, discorder.Gap):
                    print("missed:", event)
                else:
                    await answer(client, event.json())


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main(*sys.argv[1:]))
