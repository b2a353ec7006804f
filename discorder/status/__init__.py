"""Describe a running control plane as one document, `discorder.status/1`, and as a stream of its parts. Reads only."""
