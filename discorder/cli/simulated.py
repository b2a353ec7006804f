"""Run the simulator until a signal: `discorder simulate`."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import typer

from discorder.errors import AddressInUse
from discorder.simulator import Simulator


def run_simulator(sim: Simulator, port: int) -> None:
    """Run ``sim`` until SIGINT or SIGTERM. Raises `AddressInUse` when ``port`` is taken."""
    asyncio.run(_run_simulator(sim, port))


async def _run_simulator(sim: Simulator, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await sim.start()
    except OSError as error:
        msg = (
            f"--port {port}: 127.0.0.1:{port} cannot be listened on: {os.strerror(error.errno) if error.errno else error}; "
            "end the program that has it, or choose another port (0 picks a free one)"
        )
        raise AddressInUse(msg) from error
    try:
        typer.echo(json.dumps({"api": sim.api_url, "gateway": sim.gateway_url, "token": sim.token}))
        await stop.wait()
    finally:
        await sim.stop()
