"""Read the JetStream stream of a control plane and send commands, with nats-py.

Begin with `subscription`: it parses the `address` and opens a `reader`, for one bot, or a `worker` of a group. Both are a
`source` over a `link`, and find their stream with `streams`. A worker makes `consumers`, has the shards that are `pinned` to it,
and shares them with its `peers`. `commands` sends requests to the control plane.
"""
