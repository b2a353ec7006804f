"""Request ``GET /gateway/bot`` until Discord has given a usable answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from discorder.clock import Clock
from discorder.errors import AuthenticationFailed, GatewayUnreachable, RestError
from discorder.rest.client import BotClient
from discorder.rest.gateway import GatewayInfo
from discorder.rest.retries import OnRetry, make_retrying

LONGEST_WAIT = 60.0  # seconds between two tries

_log = logging.getLogger(__name__)


def _accept(info: GatewayInfo) -> None:
    del info


def _always() -> bool:
    return True


async def look_up(
    client: BotClient,
    *,
    tries: int | None,
    clock: Clock,
    on_retry: OnRetry | None = None,
    check: Callable[[GatewayInfo], None] = _accept,
    may_give_up: Callable[[], bool] = _always,
) -> GatewayInfo:
    """Return URL, shards and identify budget, after at most ``tries`` tries (None: without limit).

    Every answer but a usable one is tried again, since a proxy, a login page or an edge server may have given it. A 429, or a ban
    of the address, is a failed try too, after which the next one waits for as long as it says. ``check`` raises RestError for an
    answer that cannot be used. ``on_retry`` gets the tries so far, the seconds until the next and the error.

    Raises AuthenticationFailed when Discord refuses the token, and GatewayUnreachable when the tries are used up (the last error
    is its cause); neither before ``may_give_up`` returns true.
    """
    tried = 0

    def is_retried(error: BaseException) -> bool:
        if isinstance(error, RestError):
            return tries is None or tried < tries or not may_give_up()
        return isinstance(error, AuthenticationFailed) and not may_give_up()

    def report(number: int, seconds: float, error: BaseException) -> None:
        of = "" if tries is None else f" of {tries}"
        _log.warning("gateway look-up failed (try %d%s), next try in %.1f s: %s", number, of, seconds, error)
        if on_retry is not None:
            on_retry(number, seconds, error)

    async def request_once() -> GatewayInfo:
        nonlocal tried
        tried += 1
        info = await client.gateway_bot(tries=1, waits=False)
        check(info)
        return info

    retrying = make_retrying(tries=None, longest=LONGEST_WAIT, sleep=clock.sleep, retry_on=is_retried, on_retry=report)
    try:
        return cast("GatewayInfo", await retrying(request_once))
    except RestError as error:
        count = f"{tried} tries" if tried != 1 else "one try"
        msg = (
            f"no usable answer from {client.base_url}/gateway/bot after {count}; the last error: {error}. "
            "Check the network, the key gateway.api, and https://discordstatus.com"
        )
        raise GatewayUnreachable(msg) from error
