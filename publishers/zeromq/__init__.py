"""Publish over ZeroMQ: the bus on which events are published, and the ROUTER that answers its readers."""

from discorder.publishers.zeromq.publisher import ZmqOptions, ZmqPublisher

__all__ = ["ZmqOptions", "ZmqPublisher"]
