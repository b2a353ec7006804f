"""Deliver events to other programs: publishers for ZeroMQ, channel, delimited file and log, and the fan-out to all of them.

Takes events and returns the progress of each publisher. Does not depend on sessions, states or gateway sockets.
"""
