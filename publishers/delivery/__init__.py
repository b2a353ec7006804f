"""Deliver events to the publishers: bounded queues, gaps, progress per shard, health."""
