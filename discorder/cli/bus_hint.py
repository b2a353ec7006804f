"""Say why nothing comes from a bus: nobody listens at its address, or it refuses our key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import typer

from discorder.bot.brokers import broker_of
from discorder.bot.merged import folder_of, sockets_in
from discorder.bot.probe import BusAnswer, Probe
from discorder.bot.sockets import CurveKeys

SILENT_SECONDS = 2.0  # so long a command waits in silence
READ_EVERY = 0.05  # seconds between two reads of the answer


async def hint(addresses: Sequence[str], keys: CurveKeys | None) -> None:
    """Print why a bus does not answer within `SILENT_SECONDS`, and when it does at last. Return when all have answered."""
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            group.create_task(_hint(address, keys))


async def _hint(address: str, keys: CurveKeys | None) -> None:
    if broker_of(address) is not None:
        await _show_log()
        return
    if (folder := folder_of(address)) is not None:
        await asyncio.sleep(SILENT_SECONDS)
        if not sockets_in(folder):
            _say(f"no control plane has a socket in {folder} yet; waiting for one")
        return
    probe = Probe(address, None if keys is None else keys.load())
    shown = None
    try:
        await _answered(probe, SILENT_SECONDS)
        while probe.read() is not BusAnswer.BUS:
            if probe.answer is not shown:
                shown = probe.answer
                _say(_explain(probe, keys))
            await _answered(probe, READ_EVERY)
        if shown is not None:
            _say(f"the bus at {address} answers")
    finally:
        probe.close()


async def _answered(probe: Probe, seconds: float) -> None:
    """Wait for ``seconds``, or until the bus answers."""
    for _ in range(round(seconds / READ_EVERY)):
        if probe.read() is BusAnswer.BUS:
            return
        await asyncio.sleep(READ_EVERY)


def _explain(probe: Probe, keys: CurveKeys | None) -> str:
    where = probe.address
    if probe.answer is BusAnswer.NONE:
        return f"no control plane answers at {where} yet; waiting for it"
    if probe.answer is BusAnswer.REFUSED and keys is not None:
        public = keys.load().public.decode()
        return f"the bus at {where} refuses the key of {keys.secret_file}; add its public key to curve_clients there: {public}"
    if keys is None:
        return f"what listens at {where} is no bus without keys; for one with CURVE give --server-key and --secret-file"
    return f"the bus at {where} does not understand our keys; compare --server-key with its public key"


async def _show_log() -> None:
    """Print what the reader of a broker logs: which server or stream it waits for."""
    log, handler = logging.getLogger("discorder.bot"), _Echo(logging.INFO)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        await asyncio.Event().wait()
    finally:
        log.removeHandler(handler)


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


def _say(text: str) -> None:
    typer.echo(f"discorder: {text}", err=True)
