"""The least that a Python reader can do: a SUB socket, and one decode per document.

Arguments: the endpoint, "arrivals" or "drain". With ``drain`` nothing is decoded.
"""

from __future__ import annotations

import sys

import msgspec
import zmq

from tests.bench.clients.counter import Counter


class Document(msgspec.Struct):
    """As much of a document as a handler needs; ``s`` and ``d`` are what the bare loop publishes."""

    seq: int | None = None
    data: object = None
    s: int | None = None
    d: object = None


def main(endpoint: str, mode: str = "") -> None:
    """Read until killed."""
    counter = Counter(arrivals=mode == "arrivals")
    socket = zmq.Context().socket(zmq.SUB)
    socket.set_hwm(100_000)
    socket.connect(endpoint)
    socket.subscribe(b"")
    decode = msgspec.json.Decoder(Document).decode
    while True:
        topic, document = socket.recv_multipart()
        if topic.startswith(b"DISCORDER_"):
            continue
        if mode == "drain":
            counter.events += 1
            continue
        event = decode(document)
        counter.arrived(event.seq or event.s or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
