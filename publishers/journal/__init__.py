"""Keep what a shard received on disk: its newest events, and its guilds as these events show them."""

from discorder.publishers.journal.journal import Journal

__all__ = ["Journal"]
