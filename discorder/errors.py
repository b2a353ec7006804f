"""Every error that Discorder raises, in one tree.

::

    DiscorderError                        exit code
    ├── ConfigError                          78   a file, key or value is wrong
    │   ├── TokenMissing                     78   no DISCORD_BOT_TOKEN and no token_file
    │   ├── AddressInUse                     78   a publisher's endpoint is taken
    │   └── StoreLocked                      78   another process holds a shard of this store
    ├── UnusableFile                         74   log or store cannot be written at start
    ├── StoreUnavailable                      1   the session store cannot be read or written now; the session runs on without it
    ├── AuthenticationFailed                 77   REST answered 401
    ├── FatalCloseError                   77/78   a close code that no redial can mend
    ├── IdentifyBudgetSpent                  75   the ledger refuses to pay for another IDENTIFY
    ├── GatewayUnreachable                   69   the look-up failed for good
    ├── AttemptsExhausted                    69   gateway.max_attempts consecutive failures
    ├── GatewayFailure                       76   what ends a connection; reaches the caller under fail_on_error
    │   ├── ConnectFailed                         dial, TLS or upgrade failed
    │   ├── Closed                                the socket is closed; carries code and by
    │   ├── DeadlineMissed                        Hello, READY or RESUMED did not come in time
    │   ├── ZombieConnection                      heartbeats are not acknowledged
    │   ├── SessionInvalidated                    op 9 where none was asked for
    │   ├── ProtocolBreach                        the peer sent what the protocol forbids
    │   └── TaskDied                              one of our tasks was cancelled or ended by somebody else
    ├── NotStarted                            1   TrackerRef.value before there is a tracker
    ├── NotRunning                            1   throw_to a task that is not running
    ├── NotSharded                            1   a per-shard field was asked of a tracker with several shards
    ├── PublisherError                        1   a publisher could not be opened or refused a batch
    ├── CommandRefused                        1   an outbound gateway command was not carried out; carries reason, retry_after
    │   ├── CommandRateLimited                    rate_limited: it would have to wait longer than it may
    │   ├── CommandTooLarge                       too_large: Discord takes 4,096 bytes
    │   ├── NoSuchShard                           no_such_shard: no shard of this plane is meant, or it is not clear which
    │   ├── ShardNotReady                         not_ready: there is no session to send it on
    │   ├── InvalidCommand                        invalid: Discord would close the connection, or it is not the bot's to send
    │   └── CommandUnanswered                     no_answer: sent, and Discord did not answer in time
    ├── RecordingError                        1   a recorded session cannot be read, or a replay differs from it
    ├── PictureError                          1   a diagram cannot be drawn: the renderer is missing or failed
    └── RestError                             1   a REST request failed
        ├── HTTPError                             Discord's status, code, message and path
        ├── NoAnswer                              DNS, TCP, TLS, a reset or a timeout: nothing came back
        ├── RateLimited                           mode RAISE, and the bucket is empty
        └── TooManyInvalidRequests                stopped before Discord bans the address

What a caller needs is in attributes, not in the text. Exit codes follow ``sysexits.h`` where it has a word for the case.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

ClosedBy = Literal["peer", "us", "network"]


class DiscorderError(Exception):
    """Root of the tree. ``exit_code`` is what the command line exits with when this error reaches it."""

    exit_code: ClassVar[int] = 1


class ConfigError(DiscorderError):
    """Something in the configuration is wrong; the message names the key, the file and what is allowed."""

    exit_code = 78


class TokenMissing(ConfigError):
    """No bot token: neither ``DISCORD_BOT_TOKEN`` nor ``gateway.token_file`` gives one."""


class AddressInUse(ConfigError):
    """A publisher's endpoint is taken by another process."""


class StoreLocked(ConfigError):
    """Another process holds a shard of this session store. ``pid`` is None when the lock file does not tell it."""

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class UnusableFile(DiscorderError):
    """A log file or session store cannot be opened for writing at start."""

    exit_code = 74


class StoreUnavailable(DiscorderError):
    """The session store cannot be read or written right now. Never ends a session: who asks goes on without the store."""


class AuthenticationFailed(DiscorderError):
    """Discord refused the token over REST (401). Not retried: the token must be changed."""

    exit_code = 77


class FatalCloseError(DiscorderError):
    """The gateway closed with a code that no redial can mend (gateway-protocol.md §4.1).

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
    """No IDENTIFY is paid for before ``until`` (aware, UTC)."""

    exit_code = 75

    def __init__(self, reason: str, until: datetime) -> None:
        super().__init__(f"{reason}; the next IDENTIFY is allowed at {until.isoformat(timespec='seconds')}")
        self.until = until


class GatewayUnreachable(DiscorderError):
    """``GET /gateway/bot`` did not answer within the tries that were allowed."""

    exit_code = 69


class AttemptsExhausted(DiscorderError):
    """``gateway.max_attempts`` consecutive failures. The last failure is ``__cause__``."""

    exit_code = 69

    def __init__(self, attempts: int, last: BaseException | None) -> None:
        super().__init__(f"gave up after {attempts} consecutive failures; the last one: {last}")
        self.attempts = attempts


class GatewayFailure(DiscorderError):
    """Something that ends a connection. Recovered from, unless ``gateway.fail_on_error`` is set."""

    exit_code = 76


class ConnectFailed(GatewayFailure):
    """DNS, TCP, TLS or the websocket upgrade failed. ``status`` is the HTTP status of a refused upgrade."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Closed(GatewayFailure):
    """The socket is closed. ``code`` is None when the connection ended without a close frame.

    ``by`` says who: ``"peer"`` (a close frame came), ``"us"`` (we closed or aborted), ``"network"`` (reset, EOF).
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
    """Heartbeats are not acknowledged (rule: design of the Ready state, statemachine/heartbeat.py)."""


class SessionInvalidated(GatewayFailure):
    """Op 9 for an IDENTIFY or for a live session."""


class ProtocolBreach(GatewayFailure):
    """The peer sent what the protocol forbids: garbage, an event without a session, a message past every bound."""


class TaskDied(GatewayFailure):
    """A task of the control plane ended or was cancelled by somebody other than the driver."""


class NotStarted(DiscorderError):
    """``TrackerRef.value`` was read before ``serve`` had made a tracker."""


class NotRunning(DiscorderError):
    """``throw_to`` named a task that exists but does not run right now."""


class NotSharded(DiscorderError):
    """A field that belongs to one shard was asked of a tracker with several; use ``tracker.shards[i]``."""


class PublisherError(DiscorderError):
    """A publisher could not be opened, or refused a batch."""


class CommandRefused(DiscorderError):
    """An outbound gateway command was not carried out.

    ``reason`` is one word, the same on the bus: see the tree. ``retry_after`` in seconds where waiting helps and for how long is
    known, else None.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class CommandRateLimited(CommandRefused):
    """Not sent: a limit of Discord's (gateway-protocol.md §2, §13.1) or our queue leaves no room now."""

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
    """Not sent: the shard is not one of this control plane's, or nothing tells which one is meant."""

    def __init__(self, message: str) -> None:
        super().__init__("no_such_shard", message)


class ShardNotReady(CommandRefused):
    """Not sent: the shard has no session right now, or the control plane has ended. ``retry_after`` where it is known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__("not_ready", message, retry_after)


class InvalidCommand(CommandRefused):
    """Not sent: it is malformed, needs an intent that is not configured, or belongs to the control plane alone."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid", message)


class CommandUnanswered(CommandRefused):
    """Sent, and Discord did not answer, or not completely, within the time that the caller gave it."""

    def __init__(self, message: str) -> None:
        super().__init__("no_answer", message)


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
    """Mode RAISE, and the request would have to wait ``retry_after`` seconds. ``scope``: user, global or shared."""

    def __init__(self, *, retry_after: float, scope: str, method: str, path: str) -> None:
        super().__init__(f"{method} {path}: rate limited ({scope}), retry after {retry_after:.3f} s")
        self.retry_after = retry_after
        self.scope = scope
        self.method = method
        self.path = path


class TooManyInvalidRequests(RestError):
    """Too many 401, 403 and 429 answers; nothing is sent for ``retry_after`` seconds (gateway-protocol.md §15)."""

    def __init__(self, *, count: int, retry_after: float, method: str, path: str) -> None:
        super().__init__(
            f"{method} {path}: not sent: {count:,} requests of the last 10 minutes were answered with 401, 403 or 429, and "
            f"Discord bans an address at 10,000; the next one is sent in {retry_after:.0f} s. "
            "Find what keeps asking for what it may not have"
        )
        self.retry_after = retry_after
        self.method = method
        self.path = path
