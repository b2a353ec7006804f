"""A Discord gateway and the REST routes that clients need, on loopback, for tests, demos and development.

It imports the leaves of the project only, nothing of the control plane: it must not share the client's mistakes.
Rules are those of gateway-protocol.md; where a module cites a section, that is the document meant.
"""

from discorder.simulator.options import SimulatorOptions
from discorder.simulator.records import Close, Frame, RestRequest, SentDocument, Violation, ViolationKind
from discorder.simulator.simulator import Simulator

__all__ = [
    "Close",
    "Frame",
    "RestRequest",
    "SentDocument",
    "Simulator",
    "SimulatorOptions",
    "Violation",
    "ViolationKind",
]
