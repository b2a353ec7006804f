"""Map each route to the buckets that its answers have named, and limit the requests of one route.

Discord names the bucket in the answer, so one route may have several (deletions of messages of different age). A request
needs room in all of them; its answer is booked on the bucket that it names.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from discorder.rest.limits import ALLOWED, Bucket, Decision, Knowledge, Limits

MAX_ROUTES = 1_000  # routes whose buckets are remembered; the oldest is dropped and learned again
MAX_NAMES = 4  # buckets remembered of one route; Discord's deletions have three
FIRST_PARALLEL = 5  # requests under way after the first answer: the next may name a bucket that is not known yet
MANY_BUCKETS = ("DELETE", "/channels/{id}/messages/{id}")  # a route whose answers name several: it stays at that number
SHOWN_BUCKETS = 8

RouteKey = tuple[str, str]


class RouteBuckets:
    """The known buckets, by name and major parameter. Before the first answer the name is the method and path."""

    def __init__(self) -> None:
        self._names: dict[RouteKey, dict[str, None]] = {}  # the name seen last comes last
        self._limits: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def of(self, key: RouteKey, major: str) -> tuple[Bucket, ...]:
        """Return the buckets on which Discord may count a request, the likeliest last."""
        return tuple(self._at(name, major) for name in self._names.get(key) or (_own_name(key),))

    def name(self, key: RouteKey, major: str, limits: Limits) -> Bucket | None:
        """Store the bucket that an answer of this route named, and return it; None if it named none."""
        if limits.bucket is None:
            return None
        names = self._names.pop(key, {})
        names.pop(limits.bucket, None)
        self._names[key] = names | {limits.bucket: None}
        for surplus in list(self._names[key])[:-MAX_NAMES]:
            del self._names[key][surplus]
        self._limits.pop(limits.bucket, None)
        self._limits[limits.bucket] = limits.limit
        _trim(self._names, MAX_ROUTES)
        _trim(self._limits, MAX_ROUTES * MAX_NAMES)
        self._buckets.pop((_own_name(key), major), None)
        return self._at(limits.bucket, major)

    def sweep(self, now: float) -> None:
        """Drop idle buckets."""
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_idle(now)}

    def __repr__(self) -> str:
        shown = [_describe(key, bucket) for key, bucket in itertools.islice(self._buckets.items(), SHOWN_BUCKETS)]
        if len(self._buckets) > SHOWN_BUCKETS:
            shown.append(f"… {len(self._buckets) - SHOWN_BUCKETS} more")
        return f"{{{', '.join(shown)}}}"

    def _at(self, name: str, major: str) -> Bucket:
        if (name, major) not in self._buckets:
            limit = self._limits.get(name)
            new = Bucket() if limit is None else Bucket(Knowledge.LIMITED, limit=limit, remaining=limit)
            self._buckets[name, major] = new
        return self._buckets[name, major]


@dataclass(slots=True, eq=False)
class Admission:
    """One admitted request, and the buckets on which Discord may count it."""

    buckets: list[Bucket]


class RouteRule:
    """The limits of one route with one major parameter.

    One request at first, then a few, then as many as the buckets allow, since an answer may name an unknown bucket.
    """

    def __init__(self, buckets: RouteBuckets, key: RouteKey, major: str) -> None:
        self._buckets = buckets
        self._key = key
        self._major = major
        self._answers = 0
        self._admitted: set[Admission] = set()
        self.last: Admission | None = None

    def check(self, now: float) -> Decision:
        buckets = self._buckets.of(self._key, self._major)
        refusals = [decision for decision in (bucket.check(now) for bucket in buckets) if not decision.allowed]
        if refusals:
            return max(refusals, key=lambda decision: float("inf") if decision.wait is None else decision.wait)
        is_limited = any(bucket.knowledge is Knowledge.LIMITED for bucket in buckets)
        if is_limited and len(self._admitted) >= self._most_in_flight():
            return Decision(allowed=False, wait=None, certain=False, scope="user")
        return ALLOWED

    def take(self, now: float) -> None:
        self.last = Admission(list(self._buckets.of(self._key, self._major)))
        for bucket in self.last.buckets:
            bucket.take(now)
        self._admitted.add(self.last)

    def give_back(self, admission: Admission, *, answered: bool, unanswered: bool) -> None:
        """Remove a request under way. ``unanswered``: it was sent, so Discord may have counted it."""
        self._admitted.discard(admission)
        self._answers += answered
        for bucket in admission.buckets:
            bucket.give_back(unanswered=unanswered)

    def learn(self, now: float, limits: Limits, admission: Admission) -> Bucket:
        """Apply the limits in an answer to ``admission``, and return the bucket that they concern.

        A bucket that is new to this route also counts the other requests under way.
        """
        bucket = self._buckets.name(self._key, self._major, limits) or admission.buckets[-1]
        for other in self._admitted:
            if bucket not in other.buckets:
                other.buckets.append(bucket)
                bucket.take(now)
        bucket.learn(now, limits)
        return bucket

    def _most_in_flight(self) -> int:
        has_many = (self._key[0], self._key[1].partition(" ")[0]) == MANY_BUCKETS
        return max(1, FIRST_PARALLEL * min(self._answers, 1 if has_many else self._answers))

    def is_idle(self, now: float) -> bool:
        return not self._admitted and all(bucket.is_idle(now) for bucket in self._buckets.of(self._key, self._major))


def _own_name(key: RouteKey) -> str:
    return f"{key[0]} {key[1]}"


def _trim(entries: dict[str, int] | dict[RouteKey, dict[str, None]], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]  # type: ignore[arg-type]  # the key comes from the dict itself


def _describe(key: tuple[str, str], bucket: Bucket) -> str:
    name = " / ".join(part for part in key if part)
    match bucket.knowledge:
        case Knowledge.LIMITED:
            return f"{name}: {bucket.remaining} of {bucket.limit}"
        case Knowledge.UNLIMITED:
            return f"{name}: unlimited"
        case Knowledge.UNKNOWN:
            return f"{name}: unknown"
