"""The control plane of one bot: its shards and publishers together, and what outlives them."""

from discorder.plane.plane import ControlPlane
from discorder.plane.shard_factory import PlaneDependencies

__all__ = ["ControlPlane", "PlaneDependencies"]
