"""Call Discord's REST API within its rate limits, and look up the gateway."""

from discorder.rest.client import BotClient
from discorder.rest.encoding import File
from discorder.rest.gateway import GatewayInfo, SessionStartLimit
from discorder.rest.limiter import RateLimiter
from discorder.rest.lookup import look_up
from discorder.rest.rate_limit_queue import RateLimitMode
from discorder.rest.token import Token

__all__ = ["BotClient", "File", "GatewayInfo", "RateLimitMode", "RateLimiter", "SessionStartLimit", "Token", "look_up"]
