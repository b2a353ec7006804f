"""Check the server of the publisher before a start, without a change: for `discorder doctor`."""

from __future__ import annotations

from discorder.errors import PublisherUnreachable
from discorder.nats_access import ServerAccess
from discorder.nats_client import FAILURES
from discorder.publishers.nats.connection import ENOUGH_PAYLOAD, connect
from discorder.publishers.nats.stream import StreamSettings, make_or_check


async def examine(access: ServerAccess, settings: StreamSettings | None) -> list[tuple[str, str]]:
    """Connect, and check the stream if it exists. ``settings`` None: there is none. See `ExaminedPublisher.examine`."""
    connection = await connect(access)
    try:
        if settings is not None:
            await make_or_check(connection.client, settings, first=True, make=False)
        limit = connection.client.max_payload
    except FAILURES as error:
        msg = f"{access.key}: the NATS server does not answer: {error}"
        raise PublisherUnreachable(msg) from error
    finally:
        await connection.close()
    if limit >= ENOUGH_PAYLOAD:
        return []
    text = f"the NATS server takes messages of at most {limit} bytes, so a larger event becomes a gap record"
    return [(text, "set max_payload: 8MB in its configuration")]
