"""Serve HTTP: the status page, the status document and its stream of events, metrics, health, and the operator's verbs."""
