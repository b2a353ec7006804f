"""Run one shard: its driver, its connections, and the path of an event from the socket to the publishers.

Begin with `driver`, which runs the state machine of the shard: it opens a `connection` with its `heartbeat` and its `liveness`,
sends what opens a session (`handshake`, `identify_request`), keeps the timers of a state and closes its socket (`state_work`),
and writes each step to the `transition_log`. A frame goes through `receiver`, `payloads` and `event_stream` to the publishers.
What is not simply next in order goes through `dispatches`: a `replay` after a RESUME, what waits for it (`replay_hold`), and
`oddities`. `dependencies` is what a shard gets from the rest of the control plane.
"""
