"""Simulate a Discord gateway and the REST routes that clients need, on loopback, for tests, demos and development.

It imports the leaves of the project only, nothing of the control plane: it must not share the client's mistakes.
Its rules are those of docs/protocol.md.
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
