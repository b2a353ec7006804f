"""Check what Discord knows of the bot: token, intents, number of shards, identify budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from discorder.cli.budget_report import Survey
from discorder.cli.doctor.facts import DoctorFacts, NoToken
from discorder.cli.doctor.finding import Finding, fail, failed, not_checked, ok, warn
from discorder.config.intents import DEFAULT, PORTAL_FLAGS, PRIVILEGED, WITH_MESSAGES, Intent, intent_names
from discorder.errors import AuthenticationFailed, ConfigError, DiscorderError
from discorder.exits import has_token_form
from discorder.plane.shard_factory import configured_layout
from discorder.sessions import Refusal

GUILDS_PER_SHARD = 2500  # at most (docs/protocol.md#sharding)
PORTAL = "the developer portal (Bot, Privileged Gateway Intents)"
_HIDES = {
    Intent.MESSAGE_CONTENT: "messages in guilds are empty unless they mention the bot",
    Intent.GUILD_MEMBERS: "no event says who joins or leaves, and a guild's members cannot all be requested",
    Intent.GUILD_PRESENCES: "no event says who is online",
}


async def check_token(facts: DoctorFacts) -> list[Finding]:
    """Check the form of the token, and whether Discord accepts it."""
    if facts.token is None:
        return []  # reported where the token was read
    findings = []
    if not has_token_form(facts.token):
        findings.append(
            warn(
                "token",
                "it does not have the form of a bot token: three parts with dots between them, the first made of the bot's id",
                "copy it from the developer portal (Bot, Token); the client secret and the public key are no tokens",
            )
        )
    try:
        user = await facts.user()
    except AuthenticationFailed as error:
        return [*findings, failed("token", error)]
    except DiscorderError as error:
        return [*findings, not_checked("token", f"Discord gave no answer about it: {error}", _SEE_API)]
    return [*findings, ok("token", f"Discord accepts it, for the bot {user.get('username')} (id {user.get('id')})")]


async def check_intents(facts: DoctorFacts) -> list[Finding]:
    """Compare the intents with those that are enabled in the developer portal."""
    intents = facts.config.gateway.intents_value
    names, unnamed = intent_names(intents)
    findings = []
    if unnamed:
        text = f"the bits {unnamed} of gateway.intents are not documented: Discord may close with 4013"
        findings.append(warn("intents", text, "write the intents by their names"))
    try:
        flags = (await facts.application()).get("flags")
    except DiscorderError as error:
        return [*findings, not_checked("intents", f"they need Discord's answer: {_short(error)}", _SEE_ABOVE)]
    if not isinstance(flags, int):
        text = "Discord's answer does not say what is enabled in the portal"
        return [*findings, not_checked("intents", text, f"compare gateway.intents with {PORTAL}")]
    findings += _refused_intents(intents, flags)
    if not any(finding.status == "fail" for finding in findings):
        findings.append(_granted_intents(intents, flags, names))
    return findings


def _refused_intents(intents: int, flags: int) -> Iterator[Finding]:
    for intent in PRIVILEGED:
        if intents & intent and not flags & PORTAL_FLAGS[intent]:
            yield fail(
                "intents",
                f"gateway.intents asks for {_name(intent)}, which is off in the portal: Discord refuses IDENTIFY with 4014",
                f"switch it on in {PORTAL}, or take it out of gateway.intents: without it {_HIDES[intent]}",
            )


def _granted_intents(intents: int, flags: int, names: list[str]) -> Finding:
    missing = [intent for intent in PRIVILEGED if not intents & intent]
    hidden = "; ".join(
        f"without {_name(intent)}{'' if flags & PORTAL_FLAGS[intent] else ' (off in the portal)'} {_HIDES[intent]}"
        for intent in missing
    )
    text = f"the portal allows all {len(names)} of gateway.intents{f'; {hidden}' if hidden else ''}"
    if not (intents & WITH_MESSAGES and Intent.MESSAGE_CONTENT in missing):
        return ok("intents", text)
    ask = f'gateway.intents = ["{DEFAULT}", "message_content"] asks for the contents'
    if not flags & PORTAL_FLAGS[Intent.MESSAGE_CONTENT]:
        ask = f"for the contents switch message_content on in {PORTAL}, where it is off; then {ask}"
    return warn("intents", text, f"{ask}; a bot without need of them can ignore this")


async def check_shards(facts: DoctorFacts) -> list[Finding]:
    """Compare the configured number of shards with Discord's recommendation and rules."""
    try:
        configured = configured_layout(facts.config)
    except ConfigError as error:
        return [failed("shards", error)]
    try:
        info = (await facts.survey()).discord
    except (DiscorderError, ConfigError) as error:
        return [not_checked("shards", f"the number needs Discord's answer: {_short(error)}", _SEE_ABOVE)]
    if info is None:
        return [not_checked("shards", "Discord did not say how many it recommends", _SEE_API)]
    recommended, buckets = info.shards, info.session_start_limit.max_concurrency
    pace = f"{buckets} may identify at once" if buckets > 1 else "one identifies at a time"
    if configured is None:
        return [ok("shards", f"{recommended}, as Discord recommends; {pace}")]
    ids, count = configured
    which = f"{count}" if len(ids) == count else f"{len(ids)} of {count} in this process"
    findings = list(_objections(count, recommended, buckets, await _guilds(facts)))
    return findings or [ok("shards", f"{which}, Discord recommends {recommended}; {pace}")]


def _objections(count: int, recommended: int, buckets: int, guilds: int | None) -> Iterator[Finding]:
    if guilds is not None and guilds > count * GUILDS_PER_SHARD:
        yield fail(
            "shards",
            f"{count} for about {guilds:,} guilds: Discord closes a shard with more than {GUILDS_PER_SHARD:,} of them with 4011",
            f'set gateway.shards to {recommended}, or to "auto"',
        )
    elif count < recommended:
        yield warn(
            "shards",
            f"{count}, and Discord recommends {recommended}: each carries more guilds than Discord advises, up to "
            f"{GUILDS_PER_SHARD:,}; beyond it closes with 4011",
            f'set gateway.shards to {recommended}, or to "auto"',
        )
    if buckets > 1 and recommended > 1 and count % buckets:
        yield warn(
            "shards",
            f"{count} is no multiple of {buckets}: for a bot with {buckets} identify buckets Discord assigns a number of which "
            f"the count must be a multiple, and closes with 4010 otherwise",
            f"use a multiple of the assigned number; Discord recommends {recommended}",
        )


async def _guilds(facts: DoctorFacts) -> int | None:
    """Return in about how many guilds the bot is; None if Discord does not say."""
    try:
        count = (await facts.application()).get("approximate_guild_count")
    except DiscorderError:  # the line about the intents reports it
        return None
    return count if isinstance(count, int) else None


async def check_budget(facts: DoctorFacts) -> list[Finding]:
    """Check whether the identify budget pays for a start."""
    try:
        found = await facts.survey()
    except (DiscorderError, ConfigError) as error:
        return [not_checked("budget", _short(error), _SEE_ABOVE)]
    budget = found.budget
    left = f"{budget.remaining:,} of {budget.total:,} IDENTIFYs left, {budget.reserve:,} of them in reserve"
    text = f"{left}. {' '.join(_costs(found))}"
    if isinstance(found.cold.answer, Refusal) and len(found.to_identify) > found.cold.paid:
        refusal = found.cold.answer
        state = fail if not found.cold.paid else warn
        return [
            state("budget", text, f"wait until {refusal.until:%Y-%m-%d %H:%M} UTC, and find what identifies so often")
        ]
    if budget.foreign:
        return [warn("budget", text, "find the other process, and give it the same session.store, or stop it")]
    if found.discord is None:
        return [warn("budget", f"by the store alone: {text}", _SEE_API)]
    return [ok("budget", text)]


def _costs(found: Survey) -> Iterator[str]:
    """Yield what a start costs, without the notes about the store and Discord's answer, which have lines of their own."""
    notes = set(found.notes)
    return (sentence for sentence in found.sentences() if sentence not in notes)


def _short(error: Exception) -> str:
    if isinstance(error, NoToken):
        return str(error)
    return "Discord refuses the token" if isinstance(error, AuthenticationFailed) else str(error)


def _name(intent: Any) -> str:
    return str(intent.name).lower()


_SEE_ABOVE = "repair what the lines above and below say, and run this again"
_SEE_API = "see the lines api, dns and proxy"
