"""Keep the state of a shard's guilds: fold events, and give each guild back as Discord's GUILD_CREATE would show it.

Knows no shard, socket, clock or file. What Discord sends is kept as bytes, so fields without a documented meaning survive.
"""

from discorder.guilds.guild import unpack
from discorder.guilds.reducer import FOLDED, ShardGuilds, folds
from discorder.guilds.snapshot import GuildsSnapshot, pack_again

__all__ = ["FOLDED", "GuildsSnapshot", "ShardGuilds", "folds", "pack_again", "unpack"]
