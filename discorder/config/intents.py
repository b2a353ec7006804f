"""Define the gateway intents: names, bits, and which of them need Discord's approval (docs/protocol.md#intents)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag


class Intent(IntFlag):
    """One bit per group of events, with the names of Discord's documentation. IDENTIFY carries the sum."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_MODERATION = 1 << 2
    GUILD_EXPRESSIONS = 1 << 3
    GUILD_INTEGRATIONS = 1 << 4
    GUILD_WEBHOOKS = 1 << 5
    GUILD_INVITES = 1 << 6
    GUILD_VOICE_STATES = 1 << 7
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_MESSAGE_REACTIONS = 1 << 10
    GUILD_MESSAGE_TYPING = 1 << 11
    DIRECT_MESSAGES = 1 << 12
    DIRECT_MESSAGE_REACTIONS = 1 << 13
    DIRECT_MESSAGE_TYPING = 1 << 14
    MESSAGE_CONTENT = 1 << 15
    GUILD_SCHEDULED_EVENTS = 1 << 16
    AUTO_MODERATION_CONFIGURATION = 1 << 20
    AUTO_MODERATION_EXECUTION = 1 << 21
    GUILD_MESSAGE_POLLS = 1 << 24
    DIRECT_MESSAGE_POLLS = 1 << 25


PRIVILEGED = Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT  # unapproved: close code 4014
PORTAL_FLAGS = {  # bits of an application's `flags`, with and without a review by Discord, that allow a privileged intent
    Intent.GUILD_MEMBERS: 1 << 14 | 1 << 15,
    Intent.GUILD_PRESENCES: 1 << 12 | 1 << 13,
    Intent.MESSAGE_CONTENT: 1 << 18 | 1 << 19,
}
RENAMED = {"guild_bans": "guild_moderation", "guild_emojis_and_stickers": "guild_expressions"}
INTENTS: dict[str, Intent] = {intent.name.lower(): intent for intent in Intent if intent.name}
DEFAULT = "default"  # in a list of names: all of `UNPRIVILEGED_NAMES`
UNPRIVILEGED_NAMES = tuple(name for name, bit in INTENTS.items() if not bit & PRIVILEGED)
WITH_MESSAGES = Intent.GUILD_MESSAGES  # its messages are empty without MESSAGE_CONTENT


def intents_value(names: Iterable[str]) -> int:
    """Return the number that IDENTIFY carries. Raises KeyError for a name that is not in `INTENTS`."""
    value = 0
    for name in names:
        value |= INTENTS[name]
    return int(value)


def intent_names(value: int) -> tuple[list[str], int]:
    """Return the documented names in ``value``, in the order of their bits, and the bits without a name."""
    names = [name for name, bit in INTENTS.items() if value & bit]
    return names, value & ~intents_value(names)
