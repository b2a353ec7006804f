"""The bot's side of the bus: `subscribe`, which detects lost events, and `Commands`. Needs only wire and ZeroMQ."""
