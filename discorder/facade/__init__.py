"""Serve unmodified bots as Discord would: gateway and REST on loopback, fed by what the control plane has received.

It knows no shard and keeps no session table: what it needs for a RESUME is in the session id.
"""
