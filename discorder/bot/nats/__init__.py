"""Reads the JetStream stream of a control plane and sends commands, with nats-py."""
