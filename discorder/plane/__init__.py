"""The control plane of one bot: the shards and publishers together, what outlives them, and how all of it starts and ends."""

from discorder.plane.assembly import Surroundings
from discorder.plane.plane import ControlPlane

__all__ = ["ControlPlane", "Surroundings"]
