"""Define the interface between the control plane and the publishers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from discorder.guilds.feed import Feed
from discorder.wire import Event


class Publisher(Protocol):
    """Deliver events to the outside of the process. One object serves the control plane through every restart of a session.

    Besides Discord's events it gets the control plane's own records (`discorder.records`), which have no ``seq``: a gap where
    events are missing, and the others if the class has ``all_records = True`` or the selection of ``events`` names them.

    All methods are called on the control plane's loop, one at a time. `publish` restores a lost connection itself, and
    raises as long as that fails: the fan-out retries, and calls `open` only until it has succeeded once.

    Any error that a method raises is a failure of this publisher alone, retried and shown in its health, even SystemExit,
    KeyboardInterrupt, a CancelledError of the publisher and the panic of an extension module. In a task that the publisher
    starts, SystemExit and KeyboardInterrupt would end the loop; they become a PublisherError of that task, which the publisher
    must await. In a callback that it gives to the loop (`call_later`, `add_reader`, `add_done_callback`) they cannot be
    contained: they end the loop and the control plane, which stores its sessions first. Start a task there instead.
    """

    name: str
    durable: bool  # accepted = survives this process

    async def open(self) -> None:
        """Bind, connect or open the file. Raises a `DiscorderError` that names the remedy, and leaves nothing open then.

        It ends the start of the control plane, except `PublisherUnreachable`: then opening is retried in the background.
        """
        ...

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the whole batch is accepted. A batch that raised is offered again as a whole.

        Exception: `Fenced`, of a publisher that knows the owner of each shard. The rest of the batch counts as accepted then, and
        no event of the fenced shards is offered again, until this process adopts their sessions anew.
        """
        ...

    async def close(self) -> None:
        """Release all resources. Idempotent. The publisher can be opened again."""
        ...


@runtime_checkable
class NonBlockingPublisher(Protocol):
    """Publish without waiting, so that the fan-out may call the publisher directly."""

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Accept what fits and return how many of ``events``, from the front, were taken. Never blocks, never awaits.

        The fan-out offers the other events to `publish` if the publisher must lose none (``overflow = "block"``). Otherwise it
        drops and counts them, and offers a gap record and all later events to `publish`. After an exception the whole batch goes
        to `publish`. So does a batch of more than ``most_in_line`` events, if the publisher has an attribute of that name.
        """
        ...


@runtime_checkable
class BufferingPublisher(Protocol):
    """Publish through a bounded buffer of the publisher's own, which may drop accepted events."""

    @property
    def dropped(self) -> int:
        """Return the number of accepted events that were dropped since the publisher was made."""
        ...

    @property
    def gaps(self) -> int:
        """Return the number of runs of dropped events; the reader gets a gap record for each."""
        ...


@runtime_checkable
class BotAwarePublisher(Protocol):
    """Publish under a name that depends on the bot."""

    def belongs_to(self, bot_id: int | None) -> None:
        """Store the id of the bot, None if its token does not contain one; called once, before `Publisher.open`."""
        ...


@runtime_checkable
class ExaminedPublisher(Protocol):
    """Find out beforehand whether `Publisher.open` would succeed: for `discorder doctor`."""

    @property
    def name(self) -> str:
        """See `Publisher`."""
        ...

    async def examine(self) -> Sequence[tuple[str, str]]:
        """Connect and check what `Publisher.open` checks; change nothing and stay closed. Raises what `open` raises.

        Return what would be logged as a warning, each with its remedy.
        """
        ...


History = Callable[[tuple[int, int], str, int, int], Iterable[Event]]
"""Events of an earlier process: of a shard (id, count) and a session (a label), up to a sequence, at most so many bytes."""


@runtime_checkable
class RefillingPublisher(Protocol):
    """Offer events of an earlier process to readers again."""

    def refill_from(self, history: History) -> None:
        """Store ``history``; called once, before `Publisher.open`. It can be called as soon as a session of a shard continues."""
        ...


class BusApi(Protocol):
    """Serve the requests that a publisher makes for its readers. All methods are called on the control plane's loop."""

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        """Send the gateway command ``name`` with the body ``d``; return the answer for its sender.

        ``shard`` and ``guild_id`` choose the destination. Raises `CommandRefused`, also if the command would have to wait for
        longer than ``wait_s`` seconds.
        """
        ...

    def last_ready(self, shard: int) -> Event | None:
        """Return the last READY of ``shard``, None before the first."""
        ...

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        """Take one piece of what a façade in another process reports of its bots. Raises ValueError with the reason."""
        ...

    @property
    def feed(self) -> Feed | None:
        """Return the guilds and events that the control plane keeps; None if it keeps no journal."""
        ...


@runtime_checkable
class ContinuingPublisher(Protocol):
    """Know which sessions of an earlier process continue."""

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """Note that a session (its label) of an earlier process continues: its next event comes after ``seq``."""
        ...


@runtime_checkable
class AnsweringPublisher(ContinuingPublisher, Protocol):
    """Answer the requests of readers."""

    def answer_from(self, bus_api: BusApi) -> None:
        """Store ``bus_api``; called once, before `Publisher.open`."""
        ...
