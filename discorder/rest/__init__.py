"""Discord's REST API: the client, its rate limiter, and the gateway look-up."""

from discorder.rest.client import BotClient
from discorder.rest.gateway import GatewayInfo, SessionStartLimit
from discorder.rest.limiter import RateLimiter
from discorder.rest.lookup import look_up
from discorder.rest.token import Token
from discorder.rest.turnstile import RateLimitMode

__all__ = ["BotClient", "GatewayInfo", "RateLimitMode", "RateLimiter", "SessionStartLimit", "Token", "look_up"]
