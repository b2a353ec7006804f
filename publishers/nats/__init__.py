"""Publish events to a NATS server: into a JetStream stream, which keeps them, or to the subscribers of the moment."""
