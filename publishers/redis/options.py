"""Define the configuration keys of the ``redis`` publisher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from discorder.publishers.options import MAX_COUNT, DeliveryOptions, Overflow
from discorder.redis_access import DEFAULT_URL, FORMS


class RedisOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``redis`` publisher's table."""

    maxlen: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="an integer from 1 to 2**50")]
    required: Annotated[bool, Meta(description="true or false")] = True
    url: Annotated[str, Meta(description=FORMS)] = DEFAULT_URL
    prefix: Annotated[
        str, Meta(description='words of A-Z, a-z, 0-9, "_" and "-" with colons between, or "" (by the bot)')
    ] = ""
    tls_ca_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_cert_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    tls_key_file: Annotated[str, Meta(description="the path of a PEM file, or none")] = ""
    insecure: Annotated[bool, Meta(description="true or false")] = False

    @classmethod
    def completed(cls, table: Mapping[str, object]) -> Mapping[str, object]:
        """See `DeliveryOptions.completed`: required unless events may be dropped."""
        keeps_all = table.get("overflow", Overflow.BLOCK) == Overflow.BLOCK
        return table if keeps_all else {"required": False, **table}
