"""Say which intents a session needs to see an event (docs/protocol.md#intents)."""

from __future__ import annotations

from functools import lru_cache

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

ALL = 53_608_447  # every documented bit
PRIVILEGED = GUILD_MEMBERS | GUILD_PRESENCES | MESSAGE_CONTENT
UNPRIVILEGED = ALL & ~PRIVILEGED

# of an application, for small bots
_FLAGS = {
    GUILD_PRESENCES: 1 << 13,
    GUILD_MEMBERS: 1 << 15,
    MESSAGE_CONTENT: 1 << 19,
}

_BY_PREFIX: tuple[tuple[str, int], ...] = (
    ("AUTO_MODERATION_RULE_", AUTO_MODERATION_CONFIGURATION),
    ("AUTO_MODERATION_ACTION_", AUTO_MODERATION_EXECUTION),
    ("GUILD_AUDIT_LOG_", GUILD_MODERATION),
    ("GUILD_BAN_", GUILD_MODERATION),
    ("GUILD_EMOJIS_", GUILD_EXPRESSIONS),
    ("GUILD_STICKERS_", GUILD_EXPRESSIONS),
    ("GUILD_SOUNDBOARD_", GUILD_EXPRESSIONS),
    ("GUILD_INTEGRATIONS_", GUILD_INTEGRATIONS),
    ("GUILD_SCHEDULED_EVENT_", GUILD_SCHEDULED_EVENTS),
    ("GUILD_MEMBERS_CHUNK", 0),
    ("GUILD_MEMBER_", GUILD_MEMBERS),
    ("GUILD_", GUILDS),  # GUILD_CREATE, _UPDATE, _DELETE, GUILD_ROLE_*
    ("CHANNEL_INFO", 0),
    ("CHANNEL_", GUILDS),
    ("THREAD_MEMBERS_UPDATE", GUILDS | GUILD_MEMBERS),
    ("THREAD_", GUILDS),
    ("STAGE_INSTANCE_", GUILDS),
    ("VOICE_CHANNEL_EFFECT_", GUILD_VOICE_STATES),
    ("VOICE_CHANNEL_", GUILDS),
    ("VOICE_STATE_", GUILD_VOICE_STATES),
    ("INTEGRATION_", GUILD_INTEGRATIONS),
    ("INVITE_", GUILD_INVITES),
    ("WEBHOOKS_", GUILD_WEBHOOKS),
    ("MESSAGE_POLL_", GUILD_MESSAGE_POLLS),
    ("MESSAGE_REACTION_", GUILD_MESSAGE_REACTIONS),
    ("MESSAGE_", GUILD_MESSAGES),
    ("TYPING_", GUILD_MESSAGE_TYPING),
    ("PRESENCE_", GUILD_PRESENCES),
)
_IN_DIRECT_MESSAGES = {
    GUILD_MESSAGES: DIRECT_MESSAGES,
    GUILD_MESSAGE_REACTIONS: DIRECT_MESSAGE_REACTIONS,
    GUILD_MESSAGE_TYPING: DIRECT_MESSAGE_TYPING,
    GUILD_MESSAGE_POLLS: DIRECT_MESSAGE_POLLS,
}


def application_flags(approved: int) -> int:
    """Return the ``flags`` of an application for which these privileged intents are enabled (docs/protocol.md#intents)."""
    return sum(flag for intent, flag in _FLAGS.items() if approved & intent)


@lru_cache(maxsize=1024)  # the table is searched by prefix, and this is called for each event
def needed(event_type: str, *, in_guild: bool = True) -> int:
    """Return the intents of which a session needs one to see an event; 0 for an event that every session gets."""
    bits = next((bits for prefix, bits in _BY_PREFIX if event_type.startswith(prefix)), 0)
    if in_guild:
        return bits
    return DIRECT_MESSAGES if event_type == "CHANNEL_PINS_UPDATE" else _IN_DIRECT_MESSAGES.get(bits, bits)


def allows(intents: int, event_type: str, *, in_guild: bool = True) -> bool:
    """Return whether a session with these ``intents`` gets an event of this type from a guild (or from a direct message)."""
    bits = needed(event_type, in_guild=in_guild)
    return bits == 0 or bool(intents & bits)
