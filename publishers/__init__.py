"""Publishers hand events to other programs: ZeroMQ, channel, delimited file, log; the fan-out serves all of them at once.

It knows neither sessions nor states nor sockets to a gateway: events come in, and how far each publisher is goes out.
"""
