"""Publish events to a Redis or Valkey server: into one stream for each shard."""
