"""Simulate a Discord gateway and the REST routes that clients need, on loopback, for tests, demos and development.

It imports the leaves of the project only, nothing of the control plane: it must not share the client's mistakes.
Its rules are those of docs/protocol.md.

Begin with `simulator`, whose public API has two more parts: `breakable` (with `faults`) and `observed` (with `records`);
`options` are checked at the start. `server` listens; each `connection` has its `compression`, and the `dispatcher` passes a
`client`'s frame to `handshake` or `requests`. `gateway` has the clients and the `session` of each, within `limits`. `rest`
answers within `buckets`. `world` has the guilds, and `stream` makes events of the `payloads`.
"""

from discorder.simulator.options import SimulatorOptions
from discorder.simulator.records import Close, Frame, RestRequest, SentDocument, SentFile, Violation, ViolationKind
from discorder.simulator.simulator import Simulator

__all__ = [
    "Close",
    "Frame",
    "RestRequest",
    "SentDocument",
    "SentFile",
    "Simulator",
    "SimulatorOptions",
    "Violation",
    "ViolationKind",
]
