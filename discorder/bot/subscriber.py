"""Reads the events of a control plane as an asynchronous iterator, with a `Gap` where some are lost.

Imports only ``wire``, ZeroMQ, msgspec and its own parts, so that a bot loads nothing of the control plane.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from discorder.bot.brokers import EVENT_ADDRESSES, BrokerRequest, broker_of, open_reader
from discorder.bot.bus_subscription import BusSubscription
from discorder.bot.cursor import Cursor, FileCursor
from discorder.bot.decoding import Decoded
from discorder.bot.merged import MergedSubscription, folder_of
from discorder.bot.positions import Gap, GapKind
from discorder.bot.sockets import CurveKeys, check_address
from discorder.bot.subscription import Subscription
from discorder.paths import DEFAULT_ADDRESS
from discorder.wire import ReceivedEvent, replay_address

__all__ = ["CurveKeys", "Decoded", "FileCursor", "Gap", "GapKind", "Subscription", "subscribe"]

T = TypeVar("T")

Addresses = str | Sequence[str]
Types = str | Iterable[str] | None
CursorOrPath = Cursor | str | os.PathLike[str] | None


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: None = None,
    cursor: CursorOrPath = ...,
    group: str | None = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[ReceivedEvent]: ...


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: type[T],
    cursor: CursorOrPath = ...,
    group: str | None = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[T]]: ...


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: Mapping[str, Any],
    cursor: CursorOrPath = ...,
    group: str | None = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[Any]]: ...


def subscribe(
    address: Addresses = DEFAULT_ADDRESS,
    types: Types = None,
    *,
    decode: Any = None,
    cursor: CursorOrPath = None,
    group: str | None = None,
    start: Literal["now", "oldest"] = "now",
    live_only: bool = False,
    state: bool = False,
    replay: str | None = None,
    keys: CurveKeys | None = None,
) -> Subscription[Any]:
    """Subscribe to the events named in ``types`` (None: all) on the bus at ``address``.

    ::

        async with discorder.subscribe(types=["MESSAGE_CREATE"], cursor="bot.cursor") as events:
            async for event in events:
                if isinstance(event, discorder.Gap):
                    print("missed", event)
                else:
                    print(event.json()["content"])

    Each item is an event, once and in the order of its type, or a `Gap` where events are lost for good. Events that were lost on
    the way are requested again at ``replay`` (None: the port after that of ``address``, or its path + ``.replay``), and come
    late. ``live_only``: nothing is requested; all lost events become a `Gap`.

    ``cursor``: a path, or an object with ``load`` and ``save``, that saves the position of the bot, so that its next start
    continues there. An item counts as processed when the bot requests the next one, or calls `Subscription.commit`. The cursor is
    written once a second, before the first item of a shard, and at the end: after a crash the items of the last second come
    again. ``start``: where to begin without one, now or with the "oldest" event that the bus can repeat.

    ``state``: of each shard its guilds come first, as they are now, each as an event GUILD_CREATE without ``seq``; then the
    events that followed, without a gap and none twice. Needs a control plane with a journal (``facade.journal``);
    without one the first item raises `GuildsNotKept`.

    ``decode``: a type such as a `msgspec.Struct` for every event, or a mapping from event names to types, which then are the
    default of ``types``; the items are `Decoded`. ``keys`` are for a bus with CURVE.

    ``address`` may be a list: the buses of several control planes of one bot are read as one, as long as each shard is on one of
    them. A folder, ``ipc://PATH/``, stands for all sockets in it, now and later.

    ``address`` may also be that of NATS servers, ``nats://HOST:4222`` (docs/buses.md): the events come out of the stream there.
    ``group``: several processes that name the same group share them; the server keeps their position, and an item is
    acknowledged when the bot requests the next one. `SubscriptionFailed` is raised where the bot iterates if the login or the
    stream does not fit.

    The bus need not run yet: the connection is made, and made again, in the background. Raises ValueError for an
    address that is no endpoint, keys that cannot be used, an empty ``types``, and ``state`` with ``cursor``, ``start`` or
    ``live_only``; OSError for a cursor that cannot be read;
    `CursorInUse` for a file that another subscription uses. A cursor that cannot be written is logged and written later.
    """
    if isinstance(decode, Mapping) and types is None:
        types = list(decode)
    names = _names(types)
    if start not in ("now", "oldest"):
        msg = f'start is {start!r}, and must be "now" or "oldest"'
        raise ValueError(msg)
    if state and (cursor is not None or start != "now" or live_only):
        msg = "state begins with the guilds as they are now; leave out cursor, start and live_only"
        raise ValueError(msg)
    store = FileCursor(cursor) if isinstance(cursor, str | os.PathLike) else cursor
    several = [address] if isinstance(address, str) else address
    if not several:
        msg = "address names no bus"
        raise ValueError(msg)
    if any(broker_of(one) is not None for one in several):
        return open_reader(
            BrokerRequest(
                addresses=tuple(several),
                types=names,
                decode=decode,
                cursor=store,
                oldest=start == "oldest",
                live_only=live_only,
                state=state,
                group=group,
                of_the_bus={"replay": replay, "keys": keys},
            )
        )
    if group is not None:
        msg = (
            "group: only a broker divides events among readers; name one, such as nats://HOST:4222, or leave out group"
        )
        raise ValueError(msg)

    def open_bus(one: str, part: Cursor | None) -> BusSubscription[Any]:
        router = None if live_only else _checked(replay or replay_address(_checked(one)))
        oldest = start == "oldest"
        return BusSubscription(
            _checked(one), names, decode=decode, cursor=part, oldest=oldest, replay=router, keys=keys, state=state
        )

    if isinstance(address, str) and folder_of(address) is None:
        return open_bus(address, store)
    if replay is not None:
        msg = "replay is the address of one bus; leave it out to read several"
        raise ValueError(msg)
    return MergedSubscription(several, names, open_bus, store)


def _checked(address: str) -> str:
    check_address(address, EVENT_ADDRESSES)
    return address


def _names(types: Types) -> frozenset[str] | None:
    if types is None:
        return None
    names = frozenset([types] if isinstance(types, str) else types)
    if not names or "" in names:
        msg = "types names no event; leave it out to get all of them"
        raise ValueError(msg)
    return names
