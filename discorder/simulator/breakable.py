"""Break a simulator on purpose: the half of its public API that closes, cuts, stalls and refuses, until it is healed."""

from __future__ import annotations

import asyncio

from discorder.simulator.client import SimulatedClient
from discorder.simulator.faults import HOSTS
from discorder.simulator.observed import Observed


class Breakable(Observed):
    """Every verb acts on what is connected now. Its ``shard`` is a shard id; None means all."""

    async def close(self, code: int, reason: str = "", *, shard: int | None = None) -> None:
        """Close with a code that may be sent; 4007 and 4009 end the session too. Raises ValueError for others."""
        if type(code) is not int or not (1000 <= code <= 4999) or code in {1004, 1005, 1006, 1015}:
            msg = f"{code!r} is no code for a close frame; allowed: 1000 to 4999 but 1004, 1005, 1006, 1015"
            raise ValueError(msg)
        for client in self._clients(shard):
            client.connection.close(code, reason)
        await asyncio.sleep(0)

    async def drop(self, *, shard: int | None = None) -> None:
        """Reset the TCP connection, without a close frame."""
        for client in self._clients(shard):
            client.connection.abort()
        await asyncio.sleep(0)

    async def stall(self, *, shard: int | None = None) -> None:
        """Keep the open sockets open, but send and read nothing on them until `heal`."""
        for client in self._clients(shard):
            client.connection.stall()

    async def swallow_acks(self, *, shard: int | None = None) -> None:
        """Read heartbeats without acknowledging them."""
        self._gateway.faults.silent_shards.add(check_shard(shard))

    async def refuse_upgrades(
        self,
        status: int = 503,
        host: str | None = None,
        *,
        retry_after: int | None = None,
        shard: int | None = None,
    ) -> None:
        """Answer upgrades with an HTTP status, on ``"main"``, on ``"resume"``, or on both (None); of every shard.

        ``retry_after``: the seconds of a ``Retry-After`` header that goes with it, None for no header.
        """
        _check_no_shard(shard)
        if type(status) is not int or not 400 <= status <= 599:
            msg = f"status is {status!r}; allowed: 400 to 599"
            raise ValueError(msg)
        if host is not None and host not in HOSTS:
            msg = f"host is {host!r}; allowed: 'main', 'resume', None for both"
            raise ValueError(msg)
        if retry_after is not None and (type(retry_after) is not int or retry_after < 0):
            msg = f"retry_after is {retry_after!r}; allowed: seconds from 0 up, None for no header"
            raise ValueError(msg)
        self._gateway.faults.retry_after = retry_after
        self._gateway.faults.refused |= {name: status for name in HOSTS if host in {None, name}}

    async def withhold_hello(self, *, shard: int | None = None) -> None:
        """Accept upgrades, of every shard, and send nothing; `heal` sends the missing HELLOs."""
        _check_no_shard(shard)
        self._gateway.faults.withhold_hello = True

    async def ignore_openings(self, *, shard: int | None = None) -> None:
        """Read IDENTIFYs and RESUMEs of every shard, and never answer those that arrive before `heal`."""
        _check_no_shard(shard)
        self._gateway.faults.ignore_openings = True

    async def refuse_resumes(self, code: int = 4000, *, shard: int | None = None) -> None:
        """End the connection of every RESUME so that the client sees ``code``; 1005 and 1006 are allowed here."""
        _check_no_shard(shard)
        if type(code) is not int or not (1000 <= code <= 4999) or code in {1004, 1015}:
            msg = f"{code!r} is no code that a client may see; allowed: 1000 to 4999 but 1004, 1015"
            raise ValueError(msg)
        self._gateway.faults.resume_close = code

    async def block_address(self, *, shard: int | None = None) -> None:
        """Answer every REST request as for a banned address, 429 without a wait, until `heal`."""
        _check_no_shard(shard)
        self._gateway.faults.address_blocked = True

    async def heal(self, *, shard: int | None = None) -> None:
        """End every fault; for one shard, those of `stall` and `swallow_acks`."""
        if check_shard(shard) is None:
            self._gateway.faults.clear()
        self._gateway.faults.silent_shards.discard(shard)
        for client in self._clients(shard):
            client.connection.resume()
            if not self._gateway.faults.withhold_hello:
                self._gateway.greet(client)
        await asyncio.sleep(0)

    def _clients(self, shard: int | None) -> list[SimulatedClient]:
        return self._gateway.open_clients(check_shard(shard))


def check_shard(shard: int | None) -> int | None:
    if shard is not None and (type(shard) is not int or shard < 0):
        msg = f"shard is {shard!r}; allowed: a shard id, or None for all"
        raise ValueError(msg)
    return shard


def _check_no_shard(shard: int | None) -> None:
    if shard is not None:
        msg = f"shard is {shard!r}; allowed: None, for nobody knows the shard of a connection before IDENTIFY"
        raise ValueError(msg)
