"""Report the bots of a façade in a process of its own to the control plane, which shows them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from discorder.bot.bus_link import BusLink, BusRefused, BusRenewed, BusSilent
from discorder.clock import Clock
from discorder.logs import logger
from discorder.tracking.facade_status import FacadeStatus

LOOK_SECONDS = 1.0  # between two looks whether something has changed
AGAIN_SECONDS = 5.0  # between two reports without a change
ANSWER_SECONDS = 5.0
ROWS_PER_PART = 64  # sessions, and clients: a request has at most 64 KiB


class Reporter:
    """Sends what ``status`` returns over ``link``."""

    def __init__(self, link: BusLink, clock: Clock, status: Callable[[], FacadeStatus]) -> None:
        self._link = link
        self._clock = clock
        self._status = status
        self._door = secrets.token_hex(8)  # names this process in its reports (docs/bus.md)
        self._sent: list[bytes] = []
        self._again_at = 0.0
        self._is_refused = False

    async def run(self) -> None:
        """Report until cancelled. A report that the control plane did not take is repeated later."""
        while True:
            parts = _parts(self._status())
            if parts and (parts != self._sent or self._clock.monotonic() >= self._again_at):
                await self._report(parts)
            await self._clock.sleep(LOOK_SECONDS)

    async def _report(self, parts: list[bytes]) -> None:
        try:
            for number, part in enumerate(parts):
                await self._link.ask(
                    "facade_report",
                    timeout=ANSWER_SECONDS,
                    door=self._door,
                    part=number,
                    parts=len(parts),
                    status=msgspec.Raw(part),
                )
        except (BusSilent, BusRenewed):
            return
        except BusRefused as refused:
            if not self._is_refused:
                logger.warning("The control plane does not show the bots of this façade", reason=str(refused))
            self._is_refused = True
        else:
            self._is_refused = False
        self._sent, self._again_at = parts, self._clock.monotonic() + AGAIN_SECONDS


def _parts(status: FacadeStatus) -> list[bytes]:
    """Return a report in pieces; nothing for a façade that does not listen."""
    if status.url is None:
        return []
    most = max(len(status.sessions), len(status.clients), 1)
    pieces = (slice(begin, begin + ROWS_PER_PART) for begin in range(0, most, ROWS_PER_PART))
    return [msgspec.json.encode(FacadeStatus(status.url, status.sessions[one], status.clients[one])) for one in pieces]
