"""A model of guilds as Discord would keep them: each action changes the model and returns the events that tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

BOT = 1
USERS = range(1, 9)
CHANNELS = range(100, 104)
THREADS = range(200, 206)
ITEMS = range(300, 304)
PADDING = "é" * 150  # of most items, so that the changes outweigh a base soon

Dict = dict[str, Any]
Happening = tuple[str, Dict]  # the type of an event and its d

KEYED: dict[str, Callable[[Dict], str]] = {
    "members": lambda item: item["user"]["id"],
    "presences": lambda item: item["user"]["id"],
    "voice_states": lambda item: item["user_id"],
    "soundboard_sounds": lambda item: item["sound_id"],
    **dict.fromkeys(
        ("channels", "threads", "roles", "emojis", "stickers", "stage_instances", "guild_scheduled_events"),
        lambda item: item["id"],
    ),
}


def comparable(document: Dict) -> Dict:
    """Return a guild with its lists as mappings: their order has no meaning."""
    shown = dict(document)
    for name, key in KEYED.items():
        items = shown[name]
        shown[name] = {key(item): item for item in items}
        assert len(shown[name]) == len(items), f"{name} has an item twice"
    return shown


@dataclass
class Guild:
    """A guild; each list by id. ``n`` numbers the values, so that each one differs."""

    id: int
    large: bool
    fields: Dict
    lists: dict[str, dict[int, Dict]] = field(default_factory=lambda: {name: {} for name in KEYED})
    member_count: int = 0
    n: int = 0

    def create(self) -> Dict:
        """Return the ``d`` of a GUILD_CREATE."""
        lists = {name: list(items.values()) for name, items in self.lists.items()}
        shown = {"id": str(self.id), **self.fields, "large": self.large, "member_count": self.member_count}
        return {**shown, **lists, "unavailable": False}


def new_guild(guild_id: int, *, large: bool) -> Guild:
    guild = Guild(guild_id, large, {"name": f"guild {guild_id}", "joined_at": "2026", "new_field": {"deep": [1, None]}})
    guild.lists["members"][BOT] = member(guild, BOT)
    guild.lists["roles"][guild_id] = {"id": str(guild_id), "name": "@everyone"}
    guild.lists["channels"][CHANNELS[0]] = {"id": str(CHANNELS[0]), "type": 0, "pad": PADDING}
    guild.member_count = 1000 if large else 1
    return guild


def numbered(guild: Guild, **values: Any) -> Dict:
    guild.n += 1
    return {**values, "n": guild.n, "pad": PADDING[: guild.n * 31 % 150]}


def user(user_id: int) -> Dict:
    return {"id": str(user_id), "username": f"user {user_id} ✓"}


def member(guild: Guild, user_id: int) -> Dict:
    return numbered(guild, user=user(user_id), roles=[], deaf=False, mute=False)


def members_listed(guild: Guild, user_id: int) -> bool:
    return user_id in guild.lists["members"]


Action = Callable[[Guild, int, int], Iterator[Happening]]


def _of(guild: Guild, item: Dict) -> Dict:
    return {**item, "guild_id": str(guild.id)}


def channel(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Create, change or delete a channel; its threads go with it."""
    number = CHANNELS[a % len(CHANNELS)]
    channels, threads = guild.lists["channels"], guild.lists["threads"]
    if b % 4 == 0 and number in channels:
        gone = channels.pop(number)
        guild.lists["threads"] = {i: t for i, t in threads.items() if t["parent_id"] != str(number)}
        yield "CHANNEL_DELETE", _of(guild, gone)
        return
    kind = "CHANNEL_UPDATE" if number in channels else "CHANNEL_CREATE"
    channels[number] = numbered(guild, id=str(number), type=b % 3, position=b)
    yield kind, _of(guild, channels[number])


def _thread(guild: Guild, number: int, *, private: bool, parent: int) -> Dict:
    return numbered(
        guild,
        id=str(number),
        guild_id=str(guild.id),
        parent_id=str(parent),
        type=12 if private else 11,
        member_count=2,
        thread_metadata={"archived": False},
    )


def thread(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Create, change, archive, take out of the archive, or delete a thread."""
    number, threads = THREADS[a % len(THREADS)], guild.lists["threads"]
    old = threads.get(number)
    if old is None:
        private = b % 3 == 0
        made = _thread(guild, number, private=private, parent=CHANNELS[b % len(CHANNELS)])
        if b % 5 == 1 and not private:
            yield "THREAD_UPDATE", made  # out of the archive
        else:
            extra: Dict = {"newly_created": True}
            if private:
                made["member"] = {"flags": b, "muted": False}
                extra["member"] = {"id": str(number), "user_id": str(BOT), **made["member"]}
            yield "THREAD_CREATE", {**made, **extra}
        threads[number] = made
    elif b % 5 == 0:
        del threads[number]
        yield "THREAD_DELETE", {k: old[k] for k in ("id", "guild_id", "parent_id", "type")}
    elif b % 5 == 1:
        del threads[number]
        yield "THREAD_UPDATE", {**old, "thread_metadata": {"archived": True}}
    else:
        change = _thread(guild, number, private=old["type"] == 12, parent=int(old["parent_id"]))
        threads[number] = {**old, **change}
        yield "THREAD_UPDATE", change


def thread_member(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Let the bot or others join or leave a thread."""
    number, threads = THREADS[a % len(THREADS)], guild.lists["threads"]
    old = threads.get(number)
    event: Dict = {"id": str(number), "guild_id": str(guild.id)}
    own = {"flags": b, "muted": b % 2 == 0}
    if old is None:
        yield "THREAD_MEMBER_UPDATE", {**event, "user_id": str(BOT), **own}  # of a thread that is not shown
    elif b % 3 == 0:
        threads[number] = {**old, "member": own}
        yield "THREAD_MEMBER_UPDATE", {**event, "user_id": str(BOT), **own}
    elif b % 3 == 1:
        threads[number] = {**old, "member": own, "member_count": b}
        added = [{"id": str(number), "user_id": str(i), "flags": b, "muted": b % 2 == 0} for i in (BOT, 3)]
        added[1]["member"] = member(guild, 3)
        yield "THREAD_MEMBERS_UPDATE", {**event, "member_count": b, "added_members": added}
    else:
        removed = [str(i) for i in ((BOT, 3) if b % 2 else (4,))]
        threads[number] = {**old, "member_count": b}
        if b % 2:
            threads[number].pop("member", None)
            if old["type"] == 12:
                del threads[number]
        yield "THREAD_MEMBERS_UPDATE", {**event, "member_count": b, "removed_member_ids": removed}


def thread_list(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Give the bot access to channels: Discord lists their threads."""
    named = [CHANNELS[a % len(CHANNELS)], CHANNELS[b % len(CHANNELS)]]
    every = b % 4 == 0
    new = [_thread(guild, n, private=False, parent=named[n % 2]) for n in THREADS if (n + a * b) % 3 == 0]
    kept = {i: t for i, t in guild.lists["threads"].items() if not every and int(t["parent_id"]) not in named}
    guild.lists["threads"] = {**kept, **{int(t["id"]): t for t in new}}
    event = {"guild_id": str(guild.id), "threads": [dict(t) for t in new], "members": []}
    if not every:
        event["channel_ids"] = [str(i) for i in named]
    if new:
        new[0]["member"] = {"flags": 1}
        event["members"] = [{"id": new[0]["id"], "user_id": str(BOT), "flags": 1}]
    yield "THREAD_LIST_SYNC", event


def role(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, roles = ITEMS[a % len(ITEMS)], guild.lists["roles"]
    if b % 3 == 0 and number in roles:
        del roles[number]
        yield "GUILD_ROLE_DELETE", {"guild_id": str(guild.id), "role_id": str(number)}
        return
    kind = "GUILD_ROLE_UPDATE" if number in roles else "GUILD_ROLE_CREATE"
    roles[number] = numbered(guild, id=str(number))
    yield kind, {"guild_id": str(guild.id), "role": roles[number]}


def whole_list(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    name, kind, key = [
        ("emojis", "GUILD_EMOJIS_UPDATE", "id"),
        ("stickers", "GUILD_STICKERS_UPDATE", "id"),
        ("soundboard_sounds", "GUILD_SOUNDBOARD_SOUNDS_UPDATE", "sound_id"),
    ][a % 3]
    guild.lists[name] = {i: numbered(guild, **{key: str(i)}) for i in ITEMS if i % (b + 1) == 0}
    yield kind, {"guild_id": str(guild.id), name: list(guild.lists[name].values())}


def sound(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, sounds = ITEMS[a % len(ITEMS)], guild.lists["soundboard_sounds"]
    if b % 3 == 0 and number in sounds:
        del sounds[number]
        yield "GUILD_SOUNDBOARD_SOUND_DELETE", {"guild_id": str(guild.id), "sound_id": str(number)}
        return
    kind = f"GUILD_SOUNDBOARD_SOUND_{'UPDATE' if number in sounds else 'CREATE'}"
    sounds[number] = numbered(guild, sound_id=str(number), guild_id=str(guild.id))
    yield kind, sounds[number]


def stage_or_event(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Begin, change or end a stage instance or a scheduled event."""
    number = ITEMS[a % len(ITEMS)]
    name, kind = [("stage_instances", "STAGE_INSTANCE"), ("guild_scheduled_events", "GUILD_SCHEDULED_EVENT")][b % 2]
    items = guild.lists[name]
    old = items.get(number)
    new = numbered(guild, id=str(number), guild_id=str(guild.id), status=1 + b % 2)
    if old is None:
        items[number] = new
        yield f"{kind}_CREATE", new
    elif b % 4 < 2:
        del items[number]
        ended = {**new, "status": 3 + a % 2}
        yield (f"{kind}_UPDATE", ended) if b % 2 else (f"{kind}_DELETE", old)
    else:
        items[number] = new
        yield f"{kind}_UPDATE", new


def join_or_leave(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, members = USERS[a % len(USERS)], guild.lists["members"]
    if number == BOT:
        return
    if number in members and b % 2:
        guild.member_count -= 1
        for name in ("members", "presences", "voice_states"):
            guild.lists[name].pop(number, None)
        yield "GUILD_MEMBER_REMOVE", {"guild_id": str(guild.id), "user": user(number)}
        return
    new = member(guild, number)
    if guild.large:
        guild.member_count += 1
    else:
        guild.member_count += number not in members  # Discord repeats some
        members[number] = new
    yield "GUILD_MEMBER_ADD", _of(guild, new)


def member_update(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, members = USERS[a % len(USERS)], guild.lists["members"]
    change = numbered(guild, user=user(number), roles=[str(b)])
    if b % 2:
        change["deaf"] = True
    if number in members:
        members[number] = {**members[number], **change}
        yield "GUILD_MEMBER_UPDATE", _of(guild, change)
    elif guild.large:
        yield "GUILD_MEMBER_UPDATE", _of(guild, change)


def presence(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, presences = USERS[a % len(USERS)], guild.lists["presences"]
    new = numbered(guild, user={"id": str(number)}, status=["online", "idle", "offline"][b % 3])
    presences.pop(number, None)
    if new["status"] != "offline":
        presences[number] = new
    yield "PRESENCE_UPDATE", _of(guild, new)


def voice(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    number, states, members = USERS[a % len(USERS)], guild.lists["voice_states"], guild.lists["members"]
    if not (guild.large or number in members):
        return
    new = numbered(guild, user_id=str(number), channel_id=str(CHANNELS[b % 3]) if b % 4 else None)
    of_member = member(guild, number)
    states.pop(number, None)
    if b % 4:
        states[number] = new
        members[number] = of_member
    elif number in members:
        members[number] = of_member
    yield "VOICE_STATE_UPDATE", _of(guild, {**new, "member": of_member})


def update(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Change the guild itself; such an event repeats the roles, emojis and stickers."""
    guild.fields = {**guild.fields, **numbered(guild, name=f"name {a}", **({"joined_field": b} if b % 2 else {}))}
    lists = {name: list(guild.lists[name].values()) for name in ("roles", "emojis", "stickers")}
    yield "GUILD_UPDATE", {"id": str(guild.id), **{k: v for k, v in guild.fields.items() if k != "joined_at"}, **lists}


def unrelated(guild: Guild, a: int, b: int) -> Iterator[Happening]:
    """Let something happen that no GUILD_CREATE shows."""
    here = {"guild_id": str(guild.id)}
    happenings: list[Happening] = [
        ("MESSAGE_CREATE", {"id": "5", "channel_id": str(CHANNELS[0]), **here}),
        ("CHANNEL_CREATE", {"id": "7", "type": 1}),
        ("VOICE_STATE_UPDATE", {"user_id": "3", "channel_id": "8"}),
        ("GUILD_MEMBERS_CHUNK", {"members": [member(guild, 3)], **here}),
        ("GUILD_ROLE_CREATE", {"guild_id": "999", "role": {"id": "1"}}),
        ("GUILD_SCHEDULED_EVENT_USER_ADD", {"guild_scheduled_event_id": str(ITEMS[0]), "user_id": "3", **here}),
        ("CHANNEL_PINS_UPDATE", {"channel_id": str(CHANNELS[0]), "last_pin_timestamp": "2026", **here}),
        ("RESUMED", {}),
    ]
    yield happenings[(a + b) % 8]


ACTIONS: tuple[Action, ...] = (
    *(channel, thread, thread_member, thread_list, role, whole_list, sound, stage_or_event),
    *(join_or_leave, member_update, presence, voice, update, unrelated),
)
