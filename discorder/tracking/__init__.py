"""Show the state of a control plane to the operator: trackers, health, progress of the start."""
