"""`discorder simulate`: the embedded Discord simulator alone, for bots in any language."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Annotated

import typer


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of gateway and REST; 0 picks a free one.")] = 0,
    guilds: Annotated[int, typer.Option(min=0, max=2500, help="Guilds that the bot is in.")] = 3,
    rate: Annotated[float, typer.Option(min=0.0, help="Events per second.")] = 5.0,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Identifies allowed at once, per 5 seconds.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random choices: the same seed plays the same events.")] = 0,
) -> None:
    """Run a Discord gateway and REST API on loopback until SIGINT or SIGTERM, to test a bot without a token.

    The first line on stdout is JSON: {"api": …, "gateway": …, "token": …}, written when connections are accepted.
    """
    asyncio.run(_simulate(port, guilds, rate, max_concurrency, seed))


async def _simulate(port: int, guilds: int, rate: float, max_concurrency: int, seed: int) -> None:
    from discorder.simulator import Simulator  # noqa: PLC0415  # only this command and the demo need it

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(port=port, guilds=guilds, rate=rate, max_concurrency=max_concurrency, seed=seed) as sim:
        typer.echo(json.dumps({"api": sim.api_url, "gateway": sim.gateway_url, "token": sim.token}))
        await stop.wait()
