"""Define every error that Discorder raises, in one tree.

::

    DiscorderError                        exit code
    ├── ConfigError                          78   a file, key or value is wrong
    │   ├── TokenMissing                     78   no DISCORD_BOT_TOKEN and no token_file
    │   ├── AddressInUse                     73   an endpoint to listen on is taken
    │   ├── StoreLocked                      73   another process holds a shard of this store
    │   ├── CursorInUse                      73   another subscription holds this cursor
    │   └── JournalInUse                     73   another process keeps its journal in this directory
    ├── UnusableFile                         74   log or store cannot be written at start
    ├── StoreUnavailable                      1   the session store cannot be read or written now; the session goes on
    ├── AuthenticationFailed                 77   Discord's 401 about the bot token
    ├── FatalCloseError                   77/78   a close code that no redial can fix
    ├── IdentifyBudgetSpent                  75   the identify budget allows no further IDENTIFY
    ├── GatewayUnreachable                   69   the look-up failed for good
    ├── AttemptsExhausted                    69   gateway.max_attempts consecutive failures
    ├── GatewayFailure                       76   ends a connection; reaches the caller under fail_on_error
    │   ├── ConnectFailed                         dial, TLS or upgrade failed
    │   ├── Closed                                the socket is closed; carries code and by
    │   ├── DeadlineMissed                        Hello, READY or RESUMED did not come in time
    │   ├── ZombieConnection                      heartbeats are not acknowledged
    │   ├── SessionInvalidated                    op 9 for an IDENTIFY or a live session
    │   ├── ProtocolBreach                        the peer sent what the protocol forbids
    │   └── TaskDied                              one of our tasks was cancelled or ended from outside
    ├── NotStarted                            1   TrackerRef.value before the tracker exists
    ├── NotRunning                            1   throw_to a task that is not running
    ├── GuildsNotKept                        78   guilds were read, and the control plane keeps none
    ├── SubscriptionFailed                   78   a broker cannot serve a subscription; the message names the remedy
    ├── VerbRefused                           1   restart, pause or unpause of a shard has no effect now
    ├── NotSharded                            1   a per-shard field was read from a tracker with several shards
    ├── PublisherError                        1   a publisher could not be opened or refused a batch
    │   ├── PublisherUnreachable              1   its server cannot be reached now; the control plane starts without it
    │   └── Fenced                            1   another process publishes the events of these shards; carries shards
    ├── CommandRefused                        1   an outbound gateway command was not carried out; carries reason, retry_after
    │   ├── CommandRateLimited                    rate_limited: it would have to wait longer than it may
    │   ├── CommandTooLarge                       too_large: Discord takes 4,096 bytes
    │   ├── NoSuchShard                           no_such_shard: no shard of this plane is meant, or it is not clear which
    │   ├── ShardNotReady                         not_ready: there is no session to send it on
    │   ├── InvalidCommand                        invalid: Discord would close the connection, or it is not the bot's to send
    │   └── CommandUnanswered                     no_answer: sent, and Discord did not answer in time
    ├── ControlPlaneAbsent                   69   no control plane answers an operator's command
    ├── OperatorRefused                       1   a control plane refused an operator's command
    │   └── OperatorTokenRefused             77   the operator token is wrong, or cannot be read
    ├── RecordingError                        1   a recorded session cannot be read, or a replay differs from it
    ├── PictureError                          1   a diagram cannot be drawn: the renderer is missing or failed
    └── RestError                             1   a REST request failed
        ├── HTTPError                             Discord's status, code, message and path
        ├── NoAnswer                              DNS, TCP, TLS, a reset or a timeout: nothing came back
        ├── RateLimited                           mode RAISE, and the bucket is empty
        │   └── AddressBanned                     a 429 without a rate limit: Discord refuses our address
        └── TooManyInvalidRequests                stopped before Discord bans the address

Attributes carry the details, so that no caller has to parse a message. Exit codes follow ``sysexits.h`` where it covers the case.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Literal

ClosedBy = Literal["peer", "us", "network"]


class DiscorderError(Exception):
    """Root of the tree. ``exit_code`` is the exit code of the command line for this error."""

    exit_code: ClassVar[int] = 1


class ConfigError(DiscorderError):
    """The configuration is wrong; the message names the key, the file and the allowed values."""

    exit_code = 78


class TokenMissing(ConfigError):
    """No bot token: neither ``DISCORD_BOT_TOKEN`` nor ``gateway.token_file`` gives one."""


class AddressInUse(ConfigError):
    """An endpoint to listen on, a publisher's or the simulator's, is taken by another process."""

    exit_code = 73


class StoreLocked(ConfigError):
    """Another process holds a shard of this session store. ``pid`` is None when the lock file does not state it.

    ``held``: who holds what; the message adds ``remedy``, the advice for what was tried.
    """

    exit_code = 73

    def __init__(self, held: str, pid: int | None = None, remedy: str = "") -> None:
        super().__init__(f"{held}. {remedy}" if remedy else held)
        self.pid = pid
        self.held = held


class CursorInUse(ConfigError):
    """Another subscription, here or in another process, uses this cursor. Two would each skip events."""

    exit_code = 73


class JournalInUse(ConfigError):
    """Another process keeps its journal in this directory."""

    exit_code = 73


class UnusableFile(DiscorderError):
    """A log file or session store cannot be opened for writing at start."""

    exit_code = 74


class StoreUnavailable(DiscorderError):
    """The session store cannot be read or written right now. Never ends a session: the caller continues without the store."""


class AuthenticationFailed(DiscorderError):
    """Discord refused the token (401 to ``GET /users/@me`` or ``/gateway/bot``). Not retried: the token must be changed."""

    exit_code = 77


class FatalCloseError(DiscorderError):
    """The gateway closed with a code that no redial can fix (docs/protocol.md#close-codes).

    Attributes: ``code``, ``remedy``. Exit code 77 for token and intents (4004, 4013, 4014), 78 for the layout (4010-4012).
    """

    def __init__(self, code: int, meaning: str, remedy: str) -> None:
        super().__init__(f"the gateway closed with {code} ({meaning}); {remedy}")
        self.code = code
        self.remedy = remedy

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the one error whose exit code depends on the instance
        return 78 if self.code in {4010, 4011, 4012} else 77


class IdentifyBudgetSpent(DiscorderError):
    """No IDENTIFY is allowed before ``until`` (aware, UTC)."""

    exit_code = 75

    def __init__(self, reason: str, until: datetime) -> None:
        super().__init__(f"{reason}; the next IDENTIFY is allowed at {until.isoformat(timespec='seconds')}")
        self.until = until


class GatewayUnreachable(DiscorderError):
    """``GET /gateway/bot`` gave no usable answer within the allowed tries."""

    exit_code = 69


class AttemptsExhausted(DiscorderError):
    """``gateway.max_attempts`` consecutive failures. The last failure is ``__cause__``."""

    exit_code = 69

    def __init__(self, attempts: int, last: BaseException | None) -> None:
        super().__init__(f"gave up after {attempts} consecutive failures; the last one: {last}")
        self.attempts = attempts


class GatewayFailure(DiscorderError):
    """A failure that ends a connection. The shard recovers, unless ``gateway.fail_on_error`` is set."""

    exit_code = 76


class ConnectFailed(GatewayFailure):
    """DNS, TCP, TLS or the websocket upgrade failed.

    ``status`` is the HTTP status of a refused upgrade, ``retry_after`` its ``Retry-After`` in seconds, or 0.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Closed(GatewayFailure):
    """The socket is closed. ``code`` is None when the connection ended without a close frame.

    ``by``: ``"peer"`` (a close frame came), ``"us"`` (we closed or aborted), ``"network"`` (reset, EOF).
    """

    def __init__(self, code: int | None, by: ClosedBy, reason: str = "") -> None:
        text = f"closed by {by} with {'no code' if code is None else code}"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.code = code
        self.by: ClosedBy = by
        self.reason = reason


class DeadlineMissed(GatewayFailure):
    """A state's deadline passed: the dial, Hello, READY or RESUMED did not come in time."""


class ZombieConnection(GatewayFailure):
    """Heartbeats are not acknowledged (the rule: statemachine/heartbeat.py)."""


class SessionInvalidated(GatewayFailure):
    """Op 9 for an IDENTIFY or for a live session, or a session of which the control plane does not know the guilds."""


class ProtocolBreach(GatewayFailure):
    """The peer sent what the protocol forbids: garbage, an event without a session, a message beyond the size limit."""


class TaskDied(GatewayFailure):
    """A task of the control plane ended or was cancelled by code other than the driver."""


class NotStarted(DiscorderError):
    """``TrackerRef.value`` was read before ``serve`` had made a tracker."""


class NotRunning(DiscorderError):
    """``throw_to`` named a task that is not running now."""


NO_JOURNAL = (
    "this control plane keeps no guilds: set facade.journal to a directory, or add a table [facade.clients.NAME] for an "
    "unmodified bot, so that it keeps a journal"
)


class GuildsNotKept(DiscorderError):
    """The guilds were read, and the control plane keeps none: it has no journal. The message names the key."""

    exit_code = 78


class SubscriptionFailed(DiscorderError):
    """A broker cannot serve a subscription, and waiting would not help: the login, the stream or the group does not fit."""

    exit_code = 78


class VerbRefused(DiscorderError):
    """An operator's verb has no effect on a shard in its present state. Attributes: ``verb``, ``shard``, ``reason``."""

    def __init__(self, verb: str, shard: int, state: str, reason: str) -> None:
        super().__init__(f"{verb} has no effect on shard {shard} ({state}): {reason}")
        self.verb = verb
        self.shard = shard
        self.reason = reason


class NotSharded(DiscorderError):
    """A per-shard field was read from a tracker with several shards; use ``tracker.shards[i]``."""


class PublisherError(DiscorderError):
    """A publisher could not be opened, or refused a batch."""


class PublisherUnreachable(PublisherError):
    """The server of a publisher cannot be reached now. The control plane starts without the publisher and retries."""


class Fenced(PublisherError):
    """A publisher accepted a batch without the events of ``shards`` (ids), which another process owns now.

    It is raised after the rest of the batch was accepted.
    """

    def __init__(self, shards: Iterable[int]) -> None:
        self.shards = frozenset(shards)
        super().__init__(f"another process publishes the events of shards {', '.join(map(str, sorted(self.shards)))}")


class CommandRefused(DiscorderError):
    """An outbound gateway command was not carried out.

    ``reason`` is one word, the same on the bus: rate_limited, too_large, no_such_shard, not_ready, invalid or no_answer.
    ``retry_after`` in seconds if waiting helps and the time is known, else None.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class CommandRateLimited(CommandRefused):
    """Not sent: a limit of Discord's (docs/protocol.md#send-limit) or our queue leaves no room now."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__("rate_limited", f"{message}; try again in {retry_after:.1f} s", retry_after)


class CommandTooLarge(CommandRefused):
    """Not sent: Discord would close the connection (4002). ``size`` and ``limit`` in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        message = f"the command has {size:,} bytes and Discord takes {limit:,}; send less at once"
        super().__init__("too_large", message)
        self.size = size
        self.limit = limit


class NoSuchShard(CommandRefused):
    """Not sent: the shard is not one of this control plane's, or the command does not determine one."""

    def __init__(self, message: str) -> None:
        super().__init__("no_such_shard", message)


class ShardNotReady(CommandRefused):
    """Not sent: the shard has no session right now, or the control plane has ended. ``retry_after`` if it is known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__("not_ready", message, retry_after)


class InvalidCommand(CommandRefused):
    """Not sent: it is malformed, needs an intent that is not configured, or belongs to the control plane alone."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid", message)


class CommandUnanswered(CommandRefused):
    """Sent, and Discord did not answer, or not completely, within the caller's time limit."""

    def __init__(self, message: str) -> None:
        super().__init__("no_answer", message)


class ControlPlaneAbsent(DiscorderError):
    """No control plane answers at the address of an operator's command, or another program does."""

    exit_code = 69


class OperatorRefused(DiscorderError):
    """The control plane did not carry out an operator's command; the message is its sentence."""


class OperatorTokenRefused(OperatorRefused):
    """The operator token is wrong, or there is none to read."""

    exit_code = 77


class RecordingError(DiscorderError):
    """A recorded session cannot be read, or a replay differs from it."""


class PictureError(DiscorderError):
    """A diagram cannot be drawn: the renderer is missing or failed."""


class RestError(DiscorderError):
    """A REST request failed."""


class HTTPError(RestError):
    """Discord answered with an error. Attributes: ``status``, ``code`` (Discord's), ``message``, ``method``, ``path``."""

    def __init__(self, *, status: int, code: int, message: str, method: str, path: str) -> None:
        super().__init__(f"{method} {path}: {status}, Discord's code {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.method = method
        self.path = path


class NoAnswer(RestError):
    """No HTTP answer came back: DNS, TCP, TLS, a reset, or the timeout of one attempt. Attributes: ``method``, ``path``."""

    def __init__(self, *, method: str, path: str, reason: str) -> None:
        super().__init__(f"{method} {path}: no answer: {reason}")
        self.method = method
        self.path = path


class RateLimited(RestError):
    """The request would have to wait ``retry_after`` seconds, in mode RAISE. ``scope``: user, global or shared."""

    def __init__(self, *, retry_after: float, scope: str, method: str, path: str) -> None:
        super().__init__(f"{method} {path}: rate limited ({scope}), retry after {retry_after:.3f} s")
        self.retry_after = retry_after
        self.scope = scope
        self.method = method
        self.path = path


class AddressBanned(RateLimited):
    """Discord refuses every request from this address (a 429 without a rate limit); one is tried in ``retry_after`` seconds."""

    def __init__(self, *, retry_after: float, method: str, path: str) -> None:
        super().__init__(retry_after=retry_after, scope="global", method=method, path=path)
        self.args = (
            f"{method} {path}: our address is banned: Discord refuses every request from it (429 without a rate limit), "
            f"the next one is sent in {retry_after:.0f} s. Find what sends too many requests from this address; "
            "a ban ends by itself",
        )


class TooManyInvalidRequests(RestError):
    """Too many 401, 403 and 429 answers; nothing is sent for ``retry_after`` seconds (docs/protocol.md#rest)."""

    def __init__(self, *, count: int, retry_after: float, method: str, path: str) -> None:
        super().__init__(
            f"{method} {path}: not sent: {count:,} requests of the last 10 minutes were answered with 401, 403 or 429, and "
            f"Discord bans an address at 10,000; the next one is sent in {retry_after:.0f} s. "
            "Find what keeps asking for what it may not have"
        )
        self.retry_after = retry_after
        self.method = method
        self.path = path
