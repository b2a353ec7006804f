"""Define what a server shows: its routes, and who may use each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from aiohttp import web

from discorder.http.security import HttpSecurity

PAGE = "/"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RouteAccess(Enum):
    """Who may use a route."""

    OPEN = auto()  # every host that reaches the port
    READER = auto()  # this machine, and other hosts after a login
    OPERATOR = auto()  # the holder of the operator token


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A method and a path in aiohttp's notation; GET includes HEAD."""

    method: str
    path: str
    access: RouteAccess
    handler: Handler


class Site(Protocol):
    """What one server shows: a control plane, or several."""

    def start(self, security: HttpSecurity) -> list[HttpRoute]:
        """Begin, once the server listens; return the routes."""
        ...

    async def close(self) -> None:
        """End the streams, after the server has ceased to listen."""
        ...
