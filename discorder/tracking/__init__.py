"""Show the state of a control plane to the operator: trackers, health, progress of the start.

Begin with `tracker`, which a `tracker_ref` gives to the caller of `serve`: it has one `shard_tracker` for each shard, the
outbound methods of `gateway_commands`, and `guilds`; `protocol` is what it uses of the plane. `diagnosis`, `notes` and
`overdue` judge, `startup` reports the start, `facade_status` the bots of the façade.
"""
