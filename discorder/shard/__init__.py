"""One shard: its driver, the generations of its connection, and the way of an event through it."""
