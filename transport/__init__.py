"""Reaching a gateway: the `Transport` seam, the live one, wrappers that inflate and record, and the mock that replays.

No module here knows the state machine, publishers or configuration.
"""

from discorder.transport.dns import DaemonResolver
from discorder.transport.inflate import (
    Compression,
    InflatingTransport,
    available_modes,
    choose_compression,
    decompressing,
    gateway_query,
    gateway_url,
)
from discorder.transport.live import RESUMABLE_CLOSE, AiohttpTransport
from discorder.transport.mock import MockGateway, MockTransport
from discorder.transport.protocol import Transport
from discorder.transport.recorded import GATEWAY_URL, Recording, is_recording
from discorder.transport.recording import RecordingTransport, SessionRecorder

__all__ = [
    "GATEWAY_URL",
    "RESUMABLE_CLOSE",
    "AiohttpTransport",
    "Compression",
    "DaemonResolver",
    "InflatingTransport",
    "MockGateway",
    "MockTransport",
    "Recording",
    "RecordingTransport",
    "SessionRecorder",
    "Transport",
    "available_modes",
    "choose_compression",
    "decompressing",
    "gateway_query",
    "gateway_url",
    "is_recording",
]
