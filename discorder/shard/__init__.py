"""Run one shard: its driver, its connections, and the path of an event from the socket to the publishers."""
