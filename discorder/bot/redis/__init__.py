"""Reads the streams of a control plane on a Redis or Valkey server, with redis-py."""
