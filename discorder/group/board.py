"""Keep the merged status document of the group, and stream what changes in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from discorder.group.member import Member, MemberAbsent
from discorder.group.member_status import MemberStatus, label_log, label_shards
from discorder.group.merge import merge
from discorder.group.parts import apply_part
from discorder.logs import logger
from discorder.logs.tail import LogTail
from discorder.status.document import FlowsPart, ProcessPart, StatusDocument, moment
from discorder.status.feed import encode
from discorder.status.listener import Listener
from discorder.status.log_records import describe_records
from discorder.status.updates import (
    BeatUpdate,
    BudgetUpdate,
    FacadeUpdate,
    FlowUpdate,
    LogUpdate,
    PublishersUpdate,
    ShardsUpdate,
    TransitionUpdate,
    Update,
    VerdictUpdate,
)

TICK = 0.25  # seconds between two looks at what has changed
TICKS_A_SECOND = 4
AGAIN_SECONDS = 0.5  # before a process whose stream has ended is asked again


class GroupBoard:
    """The merged status of ``members``. ``process`` describes the supervising process."""

    def __init__(self, members: Sequence[Member], process: Callable[[], ProcessPart]) -> None:
        self._parts = [MemberStatus(member, _now()) for member in members]
        self._process = process
        self._log = LogTail()
        self._log_sent = 0
        self._listeners: tuple[Listener, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._sent: dict[str, bytes] = {}
        self._flows: FlowsPart | None = None
        self._quiet = 0
        self._verdict_changed = False  # of one process, since the last look

    def start(self) -> None:
        """Begin to keep log records."""
        self._log.open()

    def close(self) -> None:
        """End the events of every reader. Idempotent."""
        for listener in self._listeners:
            listener.close()
        self._log.close()

    async def read(self) -> StatusDocument:
        """Ask every process for its document; return all of them as one."""
        await asyncio.gather(*(self._read(part) for part in self._parts))
        return self.merged()

    def merged(self) -> StatusDocument:
        """Return the documents that are known, as one."""
        return merge(self._parts, self._process(), describe_records(self._log.lines()), _now())

    def listen(self) -> Listener:
        """Return a new reader's events: first the whole document, then what changes. See `Listener`. Call `read` before."""
        if not self._listeners:
            self._log_sent = self._log.newest
            self._tasks = [asyncio.create_task(self._follow(part), name="group-follow") for part in self._parts]
            self._tasks.append(asyncio.create_task(self._run(), name="group-events"))
        listener = Listener(lambda: encode(self.merged()), self._forget)
        self._listeners = (*self._listeners, listener)
        return listener

    # ---------------------------------------------------------------- the documents of the processes

    async def _read(self, part: MemberStatus) -> None:
        try:
            answer = await part.member.get("/status.json")
            part.update(_document(answer.body), _now())
        except (MemberAbsent, msgspec.MsgspecError) as error:
            part.lose(_reason(error), _now())

    async def _follow(self, part: MemberStatus) -> None:
        """Keep one document up to date by the events of its process."""
        while True:
            try:
                async for name, data in part.member.events():
                    self._take(part, name, data)
            except (MemberAbsent, msgspec.MsgspecError) as error:
                if part.lose(_reason(error), _now()):
                    self._restart()
            except Exception as error:  # noqa: BLE001  # the other processes are still followed
                logger.opt(exception=error).error("The events of a process cannot be read", process=part.member.number)
            await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, part: MemberStatus, name: str, data: bytes) -> None:
        document = part.document
        if name == "status" or document is None:
            part.update(_document(data), _now())
            self._restart()
            return
        update = apply_part(document, name, data)
        match update:
            case VerdictUpdate():
                self._verdict_changed = True
            case TransitionUpdate():
                self._push(update)
            case ShardsUpdate():
                label_shards(update.shards, part.member)
                self._push(update)
            case LogUpdate():
                label_log(update.log, part.member)
                self._push(update)

    # ---------------------------------------------------------------- the readers

    async def _run(self) -> None:
        """Send what the parts of all processes together have changed."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            ticks += 1
            self._send_log()
            if ticks % TICKS_A_SECOND and not self._verdict_changed:
                continue  # merging 500 shards takes 3 ms
            self._verdict_changed = False
            document = self.merged()
            at = document.at
            self._send_changed(
                VerdictUpdate(at=at, verdict=document.verdict, progress=document.progress, notes=document.notes)
            )
            if ticks % TICKS_A_SECOND:
                continue
            self._send_flow(document)
            self._send_changed(PublishersUpdate(at=at, publishers=document.publishers, bus=document.bus))
            self._send_changed(FacadeUpdate(at=at, facade=document.facade))
            self._send_changed(
                BudgetUpdate(
                    at=at,
                    budget=document.budget,
                    store=document.store,
                    sessions=document.sessions,
                    totals=document.totals,
                )
            )
            self._quiet += 1
            if self._quiet > 1:
                self._push(BeatUpdate(at=at))

    def _send_log(self) -> None:
        """Send the records of the supervising process."""
        lines = self._log.lines(after=self._log_sent)
        if lines:
            self._log_sent = lines[0].number
            self._push(LogUpdate(at=_now(), log=describe_records(lines)))

    def _send_flow(self, document: StatusDocument) -> None:
        flows, before = document.flows, self._flows
        self._flows = flows
        moved = 0.0 if before is None else _seconds(flows.from_) - _seconds(before.from_)
        if before is not None and (before.step_s != flows.step_s or moved not in {0.0, float(flows.step_s)}):
            self._restart()
            return
        latency = flows.latency_s
        self._send_changed(
            FlowUpdate(
                at=document.at,
                append=moved > 0,
                step_s=flows.step_s,
                from_=flows.from_,
                events_per_s=flows.events_per_s[-1],
                median=latency.median[-1],
                worst=latency.worst[-1],
                not_serving=flows.not_serving,
                total=document.totals.events,
                event_types=document.event_types,
                process=document.process,
            )
        )

    def _send_changed(self, update: Update) -> None:
        """Send ``update``, unless it says the same as the last of its kind."""
        unchanged = encode(msgspec.structs.replace(update, at=""))
        if self._sent.get(update.event) != unchanged:
            self._sent[update.event] = unchanged
            self._push(update)

    def _push(self, update: Update) -> None:
        self._quiet = 0
        message = (update.event, encode(update))
        for listener in self._listeners:
            listener.push(message)

    def _restart(self) -> None:
        self._flows = None
        for listener in self._listeners:
            listener.restart()

    def _forget(self, listener: Listener) -> None:
        self._listeners = tuple(one for one in self._listeners if one is not listener)
        if not self._listeners:
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
            self._sent.clear()
            self._flows = None


def _document(encoded: bytes) -> StatusDocument:
    return msgspec.json.decode(encoded, type=StatusDocument)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MemberAbsent) else "it answers with something else than a status"


def _now() -> str:
    return moment(datetime.now(UTC))


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
