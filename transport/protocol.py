"""Define the interface of a gateway connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # decompressed; Discord's largest messages, GUILD_CREATEs, have some megabytes
MAX_BATCH = 1000  # messages per turn of the loop: fewer than a bus queues for a subscriber, and heartbeats stay on time

Deliver = Callable[[list[bytes]], None]  # takes one batch, decompressed; must not raise


class Transport(Protocol):
    """Connect to a gateway once; do not reuse it after its end. ``closed`` is true before `connect` and after the end."""

    @property
    def closed(self) -> bool:
        """Return whether there is no socket: not dialled yet, closed by either side, or aborted."""
        ...

    async def connect(self, url: str, deliver: Deliver) -> None:
        """Dial ``url`` (ws or wss, with its query). Raises `ConnectFailed`. Cancelling leaves no socket behind.

        From then on ``deliver`` is called, synchronously, with the messages of each read: at least one, at most `MAX_BATCH`.
        It is not called before this returns, nor after `close` or `abort`.
        """
        ...

    async def wait_closed(self) -> None:
        """Wait for the end and raise it, after the messages before it: `Closed`, or `ProtocolBreach` for an unreadable message.

        After a breach the socket may still be open; the caller closes it. May be cancelled and called again.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Write one text message. Waits while too much data is unsent. Raises `Closed`."""
        ...

    async def close(self, code: int) -> None:
        """Send a close frame with ``code`` and wait for the peer's answer. Idempotent; never raises `Closed`.

        The caller sets the time limit. After a cancellation the frame is sent, and the caller must call `abort`.
        """
        ...

    def abort(self) -> None:
        """Drop the socket at once, without a close frame. ``closed`` is true when this returns. Idempotent."""
        ...
