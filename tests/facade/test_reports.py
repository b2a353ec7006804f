"""What a façade in a process of its own reports to the control plane of its bots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from discorder.clock import FakeClock
from discorder.facade.reports import MOST_FACADES, MOST_ROWS, SILENT_SECONDS, FacadeReports
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus

MOMENT = "2026-01-01T00:00:00Z"
OFF = FacadeStatus(None)
_VALUES: Mapping[str, Any] = {
    "str": "one",
    "datetime": MOMENT,
    "datetime | None": MOMENT,
    "StreamPosition": ["label", 7],
}


def row(kind: type[FacadeSessionStatus | FacadeClientStatus], **values: Any) -> dict[str, Any]:
    """Return a session or a client as it is reported: each field that is not given has some value of its type."""
    fields = {field.name: _VALUES.get(str(field.type), 1) for field in kind.__dataclass_fields__.values()}
    return fields | values


def session(shard: int = 0, **values: Any) -> dict[str, Any]:
    return row(FacadeSessionStatus, shard=shard, **values)


def client(name: str, **values: Any) -> dict[str, Any]:
    return row(FacadeClientStatus, name=name, **values)


def report(*sessions: Any, clients: Any = (), url: Any = "http://127.0.0.1:7000") -> bytes:
    return msgspec.json.encode({"url": url, "sessions": sessions, "clients": clients})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reports(clock: FakeClock) -> FacadeReports:
    return FacadeReports(clock)


def test_the_sessions_of_all_facades_are_shown_with_their_url(reports: FacadeReports) -> None:
    reports.take("a", 0, 1, report(session(1), session(0)))
    reports.take("b", 0, 1, report(session(0, client="two"), url="http://[::1]:7001"))
    own = msgspec.json.decode(report(session(2), url="http://127.0.0.1:7002"), type=FacadeStatus)
    joined = reports.joined_to(own)
    assert [(one.client, one.shard, one.url) for one in joined.sessions] == [
        ("one", 0, "http://127.0.0.1:7000"),
        ("one", 1, "http://127.0.0.1:7000"),
        ("one", 2, "http://127.0.0.1:7002"),
        ("two", 0, "http://[::1]:7001"),
    ]
    assert (joined.url, reports.joined_to(OFF).url) == ("http://127.0.0.1:7002", "http://127.0.0.1:7000")
    assert FacadeReports(FakeClock()).joined_to(OFF) == OFF


def test_a_bot_of_several_facades_is_one_row(reports: FacadeReports) -> None:
    """What is counted is added; of the rest the newest and largest is shown."""
    reports.take("a", 0, 1, report(clients=[client("one", identifies=2, seen_at=None)]))
    reports.take("b", 0, 1, report(clients=[client("one", identifies=3, catch_up=120.0), client("two")]))
    one, two = reports.joined_to(OFF).clients
    assert (one.name, one.identifies, one.catch_up, two.name) == ("one", 5, 120.0, "two")
    assert one.seen_at is not None
    reports.take("b", 0, 1, report(clients=[]))
    assert reports.joined_to(OFF).clients[0].seen_at is None


async def test_a_silent_facade_is_forgotten(reports: FacadeReports, clock: FakeClock) -> None:
    reports.take("a", 0, 1, report(session()))
    await clock.advance(SILENT_SECONDS)
    assert len(reports.joined_to(OFF).sessions) == 1
    await clock.advance(0.1)
    silent = reports.joined_to(OFF)
    assert (silent.url, silent.sessions, silent.clients) == (None, (), ())
    assert silent.absent_s == pytest.approx(SILENT_SECONDS + 0.1)


def test_a_report_comes_in_pieces(reports: FacadeReports) -> None:
    """It counts once it is complete; until then the one before does."""
    reports.take("a", 0, 1, report(session(9)))
    reports.take("a", 0, 2, report(session(0)))
    assert [one.shard for one in reports.joined_to(OFF).sessions] == [9]
    reports.take("a", 1, 2, report(session(1)))
    assert [one.shard for one in reports.joined_to(OFF).sessions] == [0, 1]
    for part, parts in ((1, 2), (2, 3), (1, 1)):
        with pytest.raises(ValueError, match="begin again with part 0"):
            reports.take("a", part, parts, report(session()))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"[]", "Expected `object`"),
        (report(session(), url=None), "url must be"),
        (report(session(), url="javascript:alert(1)"), "url must be"),
        (report(session(client="<b>")), "not the name of a client"),
        (report(clients=[client("x" * 33)]), "not the name of a client"),
        (report(session(library="x" * 201)), "library has more than 200 characters"),
        (report(session(position=["x" * 201, 1])), "position has more than 200"),
        (report(session(shard=-1)), "shard is -1"),
        (report(session(lag_s=1e300)), "lag_s is 1e"),
        (report(session(lag="1")), "Expected `int`"),
        (report(session(since="2026-01-01T00:00:00")), "since has no time zone"),
        (report(session(since="0001-01-01T00:00:00+14:00")), "since is 0001-01-01"),
        (report(session(since="9999-12-31T23:59:59-14:00")), "since is 9999-12-31"),
        (report({"client": "one"}), "missing required field"),
    ],
)
def test_a_wrong_report_is_refused_with_the_reason(reports: FacadeReports, wrong: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        reports.take("a", 0, 1, wrong)
    assert reports.joined_to(OFF) == OFF


async def test_the_number_of_reports_and_sessions_is_bounded(reports: FacadeReports, clock: FakeClock) -> None:
    for number in range(MOST_FACADES):
        reports.take(str(number), 0, 1, report(session()))
    with pytest.raises(ValueError, match="façades report"):
        reports.take("another", 0, 1, report(session()))
    reports.take("0", 0, 1, report(session()))
    await clock.advance(SILENT_SECONDS + 1)
    half = report(*[session(shard) for shard in range(MOST_ROWS // 2 + 1)])
    reports.take("another", 0, 2, half)
    with pytest.raises(ValueError, match="more than 4,096 sessions"):
        reports.take("another", 1, 2, half)
    assert reports.joined_to(OFF) == FacadeStatus(None, absent_s=SILENT_SECONDS + 1)
