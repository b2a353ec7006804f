"""Run the control plane of one bot: its shards and publishers together, and what outlives them.

Begin with `plane`, the object from the first to the last step; a `run_handle` reaches it from outside its loop. The
`supervisor` starts the shards, which the `shard_factory` builds, once the look-up of `main_host` has answered.
`session_persistence` opens the store and the identify gate, a `session_writer` follows each shard, `guild_recovery` ends
sessions whose guilds are not known. `bus_api` answers the programs on the bus.
"""

from discorder.plane.plane import ControlPlane
from discorder.plane.shard_factory import PlaneDependencies

__all__ = ["ControlPlane", "PlaneDependencies"]
