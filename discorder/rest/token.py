"""Hold the bot token so that it is not printed, logged, pickled or copied by accident.

Only REST and IDENTIFY call `Token.reveal`.
"""

from __future__ import annotations

import os
from typing import NoReturn

from discorder.errors import ConfigError, TokenMissing
from discorder.redaction import REDACTED, Redactor

VARIABLE = "DISCORD_BOT_TOKEN"


class Token:
    """One bot token, without the ``Bot`` prefix. Its repr and str are ``<token>``; pickling it raises TypeError."""

    __slots__ = ("_redactor", "_text")

    def __init__(self, text: str, *, source: str = VARIABLE) -> None:
        """Store the token from ``source``, without a leading ``Bot`` and space.

        Raises TokenMissing when nothing is left, ConfigError for white space, control characters and anything beyond
        ASCII; the messages name ``source`` and never show the text.
        """
        bare = text.removeprefix("Bot ")
        if not bare:
            msg = f"{source} holds no bot token; set it to the token of the developer portal (Bot → Token)"
            raise TokenMissing(msg)
        if not bare.isascii() or not bare.isprintable() or " " in bare:
            msg = (
                f"the token in {source} contains white space or other characters that no token has; "
                "set it again without quotes, blanks or line ends"
            )
            raise ConfigError(msg)
        self._text = bare
        self._redactor = Redactor((bare,))

    @classmethod
    def from_environment(cls) -> Token:
        """Read ``DISCORD_BOT_TOKEN``. Raises TokenMissing and ConfigError."""
        if VARIABLE not in os.environ:
            msg = f"no bot token: set {VARIABLE} (developer portal, Bot → Token) or name a file in gateway.token_file"
            raise TokenMissing(msg)
        return cls(os.environ[VARIABLE])

    def reveal(self) -> str:
        """Return the token itself, for sending only."""
        return self._text

    def redact(self, text: str) -> str:
        """Hide the token in ``text``, in every notation, and every text that looks like a token."""
        return self._redactor(text)

    def __repr__(self) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        msg = "a bot token cannot be pickled or copied"
        raise TypeError(msg)
