"""Send the bot's commands to the gateway: check them, route them to their shard, queue them within Discord's limits."""
