"""What a bot says to the gateway: checked, routed to its shard, and sent when it may be."""

from discorder.outbound.members import GuildMembers
from discorder.outbound.outbound import Outbound
from discorder.outbound.sender import Sender

__all__ = ["GuildMembers", "Outbound", "Sender"]
