"""The look-up before the first dial: asks ``GET /gateway/bot`` until there is an answer.

Must not: decide what is done with it; the identify budget belongs to the ledger.
"""

from __future__ import annotations

import logging
from typing import cast

from discorder.clock import Clock
from discorder.errors import GatewayUnreachable
from discorder.rest.client import BotClient
from discorder.rest.gateway import GatewayInfo
from discorder.rest.retries import OnRetry, is_transient, is_worth_waiting, make_retrying

LONGEST_WAIT = 60.0  # seconds between two tries

_log = logging.getLogger(__name__)


async def look_up(
    client: BotClient, *, tries: int | None, clock: Clock, on_retry: OnRetry | None = None
) -> GatewayInfo:
    """URL, shards and identify budget, after as many tries as it takes (``tries`` None) or at most ``tries``.

    Tried again: 5xx, connection faults, and rate limits (waited out even in mode RAISE). ``on_retry`` gets the tries so far,
    the seconds until the next and the error. Raises GatewayUnreachable when the tries are used up (the last error is its
    cause), AuthenticationFailed at once on 401, other RestErrors as they come.
    """

    def report(tried: int, seconds: float, error: BaseException) -> None:
        _log.warning("gateway look-up failed (try %d), next try in %.1f s: %s", tried, seconds, error)
        if on_retry is not None:
            on_retry(tried, seconds, error)

    retrying = make_retrying(
        tries=tries, longest=LONGEST_WAIT, sleep=clock.sleep, retry_on=is_worth_waiting, on_retry=report
    )

    async def ask() -> GatewayInfo:
        return await client.gateway_bot(tries=1)

    try:
        return cast("GatewayInfo", await retrying(ask))
    except Exception as error:
        if not is_transient(error):
            raise
        count = f"{tries} tries" if tries != 1 else "one try"
        msg = (
            f"no usable answer from {client.base_url}/gateway/bot after {count}; the last error: {error}. "
            "Check the network, the key gateway.api, and https://discordstatus.com"
        )
        raise GatewayUnreachable(msg) from error
