"""Publish over ZeroMQ: the bus on which events are published, and the ROUTER that answers its readers.

Begin with `publisher`: it binds the `sockets` of its `endpoints`, checks keys with `auth`, limits `subscriptions`, and keeps
the newest documents in a `ring` with one `shard_log` for each shard. `router` answers the requests of `protocol`: `replays`
sends what the ring has, and guilds; `following` sends the journal; `running_commands` carries out commands, also those that come
over NATS. `audience` and `state` describe the bus for the status document.
"""

from discorder.publishers.zeromq.publisher import ZmqOptions, ZmqPublisher

__all__ = ["ZmqOptions", "ZmqPublisher"]
