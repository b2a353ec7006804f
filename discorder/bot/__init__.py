"""A bot's end of the bus: subscribe, prove that nothing is missing or tell what is, speak back. Needs wire and ZeroMQ only."""
