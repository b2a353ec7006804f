"""Call Discord's REST API within its rate limits, and look up the gateway.

Begin with `client`: a request has a `route`, an `encoding` and a `token`, waits in the `limiter`, is sent by `http` and
answered by `body` and `response`; `retries` decides about another try. The limiter knows `limits`, `route_buckets` and
`sub_limits`, and a `rate_limit_queue` for each. `lookup` requests the `gateway`, and `hosts` says which hosts may be dialled.
"""

from discorder.rest.client import BotClient
from discorder.rest.encoding import File
from discorder.rest.gateway import GatewayInfo, SessionStartLimit
from discorder.rest.limiter import RateLimiter
from discorder.rest.lookup import look_up
from discorder.rest.rate_limit_queue import RateLimitMode
from discorder.rest.token import Token

__all__ = ["BotClient", "File", "GatewayInfo", "RateLimitMode", "RateLimiter", "SessionStartLimit", "Token", "look_up"]
