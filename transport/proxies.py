"""Choose the proxy of a connection: the configured one, the environment's, or none."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass, field

from yarl import URL

from discorder.errors import ConfigError

_SCHEMES = {"ws": "http", "wss": "https"}  # a websocket begins as an HTTP request and goes the same way


@dataclass(frozen=True, slots=True)
class Proxies:
    """Hold the settings that choose the proxy.

    ``url``: the proxy of every connection, "" = none. ``trust_env``: without ``url``, use ``HTTPS_PROXY``, ``HTTP_PROXY``,
    ``ALL_PROXY`` and ``NO_PROXY`` of the environment.
    """

    url: str = field(default="", repr=False)  # it may hold a password
    trust_env: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigError` if ``url`` is not the URL of a proxy."""
        if self.url:
            self._of_scheme("https")

    def of(self, target: URL) -> URL | None:
        """Return the proxy for ``target``, with its credentials; None for a direct connection.

        Raises `ConfigError` for a proxy of the environment that is not an http or https URL.
        """
        if not self.url and urllib.request.proxy_bypass(target.host or ""):
            return None
        return self._of_scheme(_SCHEMES.get(target.scheme, target.scheme))

    def describe(self) -> str:
        """Return the proxies in use as text, without credentials. Raises `ConfigError` like `of`."""
        if self.url or not self.trust_env:
            return _shown(self._of_scheme("https"))
        ways = ", ".join(f"{scheme}: {_shown(self._of_scheme(scheme))}" for scheme in ("https", "http"))
        return f"{ways} (environment)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the texts that must not be logged: the password in ``url``."""
        password = URL(self.url).password
        return (password,) if password else ()

    def _of_scheme(self, scheme: str) -> URL | None:
        text, source = self.url, "the proxy"
        if not text and self.trust_env:
            found = urllib.request.getproxies_environment()
            text, source = found.get(scheme) or found.get("all") or "", "the proxy of the environment"
            text = f"http://{text}" if text and "://" not in text else text
        if not text:
            return None
        try:
            return checked_proxy(text)
        except ValueError as error:
            msg = f"{source} cannot be used: it is {error}"
            raise ConfigError(msg) from None


DIRECT = Proxies()


def checked_proxy(text: str) -> URL:
    """Return the URL of a proxy. Raises ValueError, whose text contains no part of it."""
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        msg = "not a URL: its host or port cannot be read"
        raise ValueError(msg) from None
    if url.scheme not in {"http", "https"}:
        msg = "not an http or https URL"
    elif not host or not port:
        msg = "not a URL with a host and a port"
    elif url.path not in {"", "/"} or url.query_string or url.fragment:
        msg = "a URL with a path, a query or a fragment"
    else:
        return url
    raise ValueError(msg)


def _shown(proxy: URL | None) -> str:
    return "direct" if proxy is None else str(proxy.origin())
