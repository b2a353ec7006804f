"""Decide which gateway hosts may be dialled, since IDENTIFY and RESUME carry the token.

The look-up names the main host, over the connection to ``gateway.api``. READY and the session store name a resume host, which
must be the main host, a sibling of its name (Discord answers ``gateway-….discord.gg`` for ``gateway.discord.gg``), or loopback
where the API is on loopback.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from discorder.errors import ConfigError, RestError
from discorder.transport.address import (
    UNENCRYPTED,
    Address,
    ip_address,
    is_loopback,
    keeps_token_private,
    parse_address,
)

DISCORDS_API = ("discord.com", "discordapp.com")  # and the names below them
DISCORDS_GATEWAY = "gateway.discord.gg"  # what Discord's look-up names (docs/protocol.md#connection)


def check_api(api: str, *, insecure: bool) -> None:
    """Raise `ConfigError` for an API that would get the token in clear text over a network, unless ``insecure``."""
    if not insecure and not keeps_token_private(api):
        msg = f"gateway.api = {api!r} {UNENCRYPTED}"
        raise ConfigError(msg)


def is_discords(api_host: str) -> bool:
    """Return whether ``api_host`` is Discord's own, and no test server or proxy."""
    return any(api_host == name or api_host.endswith(f".{name}") for name in DISCORDS_API)


class Hosts:
    """The gateway hosts allowed for one API. ``insecure`` is ``gateway.insecure_api``."""

    def __init__(self, api: str, *, insecure: bool) -> None:
        parts = urlsplit(api)
        self._api_host = (parts.hostname or "").rstrip(".")
        self._encrypted = parts.scheme == "https"
        self._insecure = insecure

    def check_main(self, url: str) -> None:
        """Raise `RestError` if the URL of a look-up must not get the token."""
        address = _parsed(url)
        objection = address if isinstance(address, str) else self._objection_to_clear_text(address)
        if objection is not None:
            msg = f"GET /gateway/bot: the url of the answer is not dialled: {objection}"
            raise RestError(msg)

    def is_decidable(self, url: str) -> bool:
        """Whether `objection_to` can judge ``url`` before the main host is known."""
        address = _parsed(url)
        if isinstance(address, str) or self._objection_to_clear_text(address) is not None:
            return True
        return self._is_on_loopback(address) or self._belongs_to(address, self._expected_main())

    def objection_to(self, url: str, main: str | None) -> str | None:
        """Return why the resume host ``url`` must not be dialled, None if it may be. ``main``: the look-up's URL, if known."""
        address = _parsed(url)
        if isinstance(address, str):
            return address
        objection = self._objection_to_clear_text(address)
        if objection is not None:
            return objection
        main_address = None if main is None else parse_address(main)
        if main_address is not None and main_address.encrypted and not address.encrypted:
            return "it is ws:// although the main host is wss://"
        main_host = self._expected_main() if main_address is None else main_address.host
        if self._is_on_loopback(address) or self._belongs_to(address, main_host):
            return None
        return f"{address.host} is neither the main host {main_host} nor a sibling of its name"

    def _objection_to_clear_text(self, address: Address) -> str | None:
        if address.encrypted:
            return None
        if self._encrypted:
            return "it is ws:// although gateway.api is https://"
        if not self._insecure and not is_loopback(address.host):
            return "it is ws:// to another machine, and gateway.insecure_api is not set"
        return None

    def _expected_main(self) -> str:
        """Return the host that the look-up will probably name."""
        return DISCORDS_GATEWAY if is_discords(self._api_host) else self._api_host

    def _is_on_loopback(self, address: Address) -> bool:
        return is_loopback(self._api_host) and is_loopback(address.host)

    def _belongs_to(self, address: Address, main: str) -> bool:
        if address.host == main or address.host.endswith(f".{main}"):
            return True
        if ip_address(main) is not None or ip_address(address.host) is not None:
            return False
        zone = main.partition(".")[2]
        return "." in zone and address.host.partition(".")[2] == zone


def _parsed(url: str) -> Address | str:
    """Return the address, or the reason why ``url`` is none."""
    try:
        return parse_address(url)
    except ValueError as error:
        return f"it is {error}"
