"""Hold what is known of one process of the group: its status document, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from discorder.group.member import Member
from discorder.group.verdict import Judged
from discorder.statemachine import State
from discorder.status.document import (
    AgesPart,
    CountsPart,
    HeartbeatPart,
    Level,
    LogRecordPart,
    Moment,
    NextAction,
    NextKind,
    NextPart,
    ShardPart,
    StatusDocument,
)
from discorder.tracking.shard_tracker import Host


@dataclass
class MemberStatus:
    """What is known of one process: its document, or None and the ``problem``; ``since``: when that began.

    ``answered``: it, or a process that it replaces, has answered before, so that its shards have served.
    """

    member: Member
    since: Moment
    document: StatusDocument | None = None
    problem: str = ""
    answered: bool = False

    def update(self, document: StatusDocument, at: Moment) -> None:
        """Take a whole document."""
        label_shards(document.shards, self.member)
        label_log(document.log, self.member)
        if self.document is None:
            self.since = at
        self.document, self.problem, self.answered = document, "", True

    def lose(self, problem: str, at: Moment) -> bool:
        """Note that the process does not answer. Return whether that is news."""
        if self.document is not None:
            self.since = at
        is_news = self.document is not None or problem != self.problem
        self.document, self.problem = None, problem
        return is_news

    @property
    def shards(self) -> list[ShardPart]:
        """Return the shards of the process."""
        if self.document is not None:
            return self.document.shards
        return [_unknown_shard(shard, self) for shard in self.member.shards]


def label_shards(shards: Iterable[ShardPart], member: Member) -> None:
    """Note which process has these shards."""
    for shard in shards:
        shard.owner = member.name


def label_log(records: Iterable[LogRecordPart], member: Member) -> None:
    """Note which process has logged these records."""
    for record in records:
        record.fields["process"] = member.number


def _unknown_shard(shard: int, status: MemberStatus) -> ShardPart:
    return ShardPart(
        id=shard,
        state=State.DISCONNECTED,
        healthy=False,
        parked=False,
        paused=False,
        reasons=[f"{status.member.name}: {status.problem}"],
        since=status.since,
        cause=f"{status.member.name}: {status.problem}",
        attempt=0,
        generation=0,
        session=None,
        seq=None,
        guilds=None,
        events_per_s=0.0,
        owner=status.member.name,
        ages_s=AgesPart(frame=None, ack=None, dispatch=None, unanswered_beat=None),
        heartbeat=HeartbeatPart(interval_s=None, latency_s=None),
        counts=CountsPart(restarts=0, resumes=0, identifies=0),
        next=_next_start(status),
    )


def judge(status: MemberStatus) -> Judged:
    """Return the verdict on one process: its own, or that it does not answer."""
    document, member = status.document, status.member
    if document is not None:
        verdict = document.verdict
        return Judged(member.number, verdict.level, verdict.detail, verdict.reasons, verdict.since)
    if member.stops:
        return Judged(member.number, Level.STOPPING, "it stops.", [], status.since)
    level = Level.STARTING if member.url and member.is_starting() and not status.answered else Level.DOWN
    return Judged(member.number, level, f"{status.problem}.", [status.problem], status.since)


def _next_start(status: MemberStatus) -> NextPart | None:
    """Return when the process of a shard that is not known starts, or since when it does; None if nothing brings it back."""
    member = status.member
    kind = NextKind.PLANNED if member.again_at is not None else NextKind.ESTIMATE
    if member.stops or (member.again_at is None and not (member.url and member.is_starting())):
        return None
    return NextPart(
        kind=kind,
        action=NextAction.PROCESS,
        purpose=None,
        at=member.again_at or status.since,
        host=Host.MAIN,
        attempt=None,
        backoff_s=None,
        identifies=0,
        text=f"Start of {member.name}, then RESUME",
    )
