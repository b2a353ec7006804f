"""The seam between the control plane and a gateway connection."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """One connection to a gateway: dialled once, closed once, never used again. No method knows Discord.

    One instance is one generation. Before `connect` and after the end ``closed`` is true.
    """

    @property
    def closed(self) -> bool:
        """True when there is no socket: not dialled yet, closed by anybody, or aborted."""
        ...

    async def connect(self, url: str) -> None:
        """Dial ``url`` (ws or wss, with its query). Raises `ConnectFailed`. Cancelling leaves no socket behind."""
        ...

    async def receive(self) -> list[bytes]:
        """The messages that arrived since the last call, at least one. Raises `Closed` once the socket is."""
        ...

    async def send(self, data: bytes) -> None:
        """Write one text message. Raises `Closed`."""
        ...

    async def close(self, code: int) -> None:
        """Send a close frame with ``code`` and wait for the peer's answer. Idempotent; never raises `Closed`.

        The caller sets the time limit: cancelled, the frame has been sent and `abort` remains to be called.
        """
        ...

    def abort(self) -> None:
        """Drop the socket now, without a word to the peer. ``closed`` is true when this returns. Idempotent."""
        ...
