"""Define and check the configuration keys of the ``nats`` publisher. Connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from discorder.errors import ConfigError
from discorder.nats_access import DEFAULT_SERVER
from discorder.publishers.options import MAX_COUNT, DeliveryOptions, Overflow

Mode = Literal["jetstream", "core"]
Durability = Literal["acks", "sync"]

STREAM_BYTES = 1_073_741_824
STREAM_SECONDS = 86_400.0
MAX_STREAM_SECONDS = 315_360_000.0  # ten years
DUPLICATE_WINDOW = 120.0  # seconds; NATS' own default
MAX_REPLICAS = 5  # the most that NATS allows

_Seconds = Annotated[
    float, Meta(gt=0, le=MAX_STREAM_SECONDS, description="seconds, more than 0, at most 315360000 (ten years)")
]


class NatsOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``nats`` publisher's table."""

    required: Annotated[bool, Meta(description="true or false")] = True
    servers: Annotated[
        str | tuple[str, ...], Meta(description="a URL, nats://HOST:PORT or tls://HOST:PORT, or a list")
    ] = DEFAULT_SERVER
    mode: Annotated[Mode, Meta(description='"jetstream" or "core"')] = "jetstream"
    durability: Annotated[Durability, Meta(description='"acks" or "sync"')] = "acks"
    prefix: Annotated[
        str, Meta(description='words of A-Z, a-z, 0-9, "_" and "-" with dots between, or "" (by the bot)')
    ] = ""
    stream: Annotated[str, Meta(description='A-Z, a-z, 0-9, "_" and "-", or "" (by the prefix)')] = ""
    stream_bytes: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="bytes, 1 to 2**50")] = STREAM_BYTES
    stream_seconds: _Seconds = STREAM_SECONDS
    duplicate_window: _Seconds = DUPLICATE_WINDOW
    replicas: Annotated[int, Meta(ge=1, le=MAX_REPLICAS, description=f"1 to {MAX_REPLICAS}")] = 1
    commands: Annotated[bool, Meta(description="true or false")] = False
    credentials_file: Annotated[str, Meta(description="the path of a .creds file, or none")] = ""
    tls_ca_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_cert_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_key_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    insecure: Annotated[bool, Meta(description="true or false")] = False

    @classmethod
    def completed(cls, table: Mapping[str, object]) -> Mapping[str, object]:
        """See `DeliveryOptions.completed`: required only where a stream keeps the events and none may be dropped."""
        keeps_all = (
            table.get("mode", "jetstream") == "jetstream" and table.get("overflow", Overflow.BLOCK) == Overflow.BLOCK
        )
        return table if keeps_all else {"required": False, **table}


def check_durability(key: str, mode: Mode, durability: Durability) -> None:
    """Raise ConfigError for a durability that the mode does not have."""
    if mode == "core" and durability != "acks":
        msg = f'{key}.durability: mode "core" stores nothing; remove the key, or set {key}.mode = "jetstream"'
        raise ConfigError(msg)
