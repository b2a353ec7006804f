"""From a configuration table to a publisher: what is built, and each error that a table can have."""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path

import pytest

from discorder.errors import ConfigError
from discorder.publishers.channel import ChannelEventPublisher
from discorder.publishers.delimited_file import DelimitedFileEventPublisher
from discorder.publishers.log import LogPublisher
from discorder.publishers.options import EventSelection, Overflow
from discorder.publishers.registry import build
from discorder.publishers.zeromq.publisher import ZmqPublisher

THIRD_PARTY = """
from typing import Annotated
from msgspec import Meta
from discorder.publishers.log import LogPublisher
from discorder.publishers.options import DeliveryOptions

class KafkaOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: Annotated[str, Meta(description="a URL")]

class KafkaPublisher(LogPublisher):
    Options = KafkaOptions
    def __init__(self, name, server):
        super().__init__(name)
        self.server = server
"""


@pytest.mark.parametrize(
    ("name", "table", "cls"),
    [
        ("zmq", {}, ZmqPublisher),
        (
            "bus",
            {"kind": "zmq", "bind": ["tcp://127.0.0.1:0", "ipc:///tmp/bus"], "hwm": 5, "linger_ms": 0},
            ZmqPublisher,
        ),
        ("open", {"kind": "zmq", "bind": "tcp://*:6000", "insecure": True}, ZmqPublisher),
        ("channel", {"max_events": 7}, ChannelEventPublisher),
        ("audit", {"kind": "delimited_file", "path": "e.tsv", "fsync": 5, "keep": 1}, DelimitedFileEventPublisher),
        ("audit", {"kind": "delimited_file", "path": "e.tsv", "fsync": "batch"}, DelimitedFileEventPublisher),
        ("log", {}, LogPublisher),
    ],
)
def test_a_table_becomes_a_publisher_of_its_kind_and_name(name: str, table: dict[str, object], cls: type) -> None:
    publisher, _ = build(name, table)
    assert type(publisher) is cls
    assert publisher.name == name


def test_building_opens_nothing(tmp_path: Path) -> None:
    build("audit", {"kind": "delimited_file", "path": str(tmp_path / "e.tsv")})
    assert list(tmp_path.iterdir()) == []


def test_the_common_keys_become_delivery_options() -> None:
    _, options = build("log", {"overflow": "drop_newest", "events": {"include": ["MESSAGE_*"]}, "max_events": 9})
    assert options.policy is Overflow.DROP_NEWEST
    assert options.events == EventSelection(include=("MESSAGE_*",))
    assert options.max_events == 9


def test_a_channel_is_as_large_as_its_table_says() -> None:
    channel, _ = build("channel", {"max_events": 7})
    assert isinstance(channel, ChannelEventPublisher)
    assert channel.maxsize == 7


@pytest.mark.parametrize(
    ("name", "table", "complaint"),
    [
        (
            "pigeon",
            {},
            r"publishers\.pigeon\.kind: there is no publisher 'pigeon'; allowed: channel, delimited_file, log, nats, redis, zmq",
        ),
        ("x", {"kind": 3}, r"publishers\.x\.kind: 3 is not a string"),
        ("zmq", {"binds": "x"}, r"publishers\.zmq\.binds is not a key; did you mean bind\? allowed: .*insecure"),
        (
            "zmq",
            {"events": {"includes": []}},
            r"publishers\.zmq\.events\.includes is not a key; did you mean include\?",
        ),
        ("zmq", {"hwm": "many"}, r"publishers\.zmq\.hwm: .*'many'; allowed: messages per subscriber, 1 to"),
        ("zmq", {"hwm": 0}, r"publishers\.zmq\.hwm: .*got 0"),
        ("zmq", {"linger_ms": -1}, r"publishers\.zmq\.linger_ms: .*0 to 60000"),
        ("zmq", {"bind": 6000}, r"publishers\.zmq\.bind: .*6000; allowed: an endpoint or a list of endpoints"),
        ("zmq", {"bind": "tcp://*:6000"}, r"publishers\.zmq\.bind: other hosts .*insecure"),
        ("zmq", {"bind": []}, r"publishers\.zmq\.bind: no endpoint"),
        ("zmq", {"overflow": "explode"}, r'publishers\.zmq\.overflow: .*"drop_oldest", "drop_newest"'),
        ("zmq", {"events": {"include": [1]}}, r"publishers\.zmq\.events\.include"),
        ("zmq", {"events": "MESSAGE_*"}, r"publishers\.zmq\.events: .*include"),
        ("zmq", {"max_events": 0}, r"publishers\.zmq\.max_events: .*from 1 to"),
        ("zmq", {"give_up_after": 0}, r"publishers\.zmq\.give_up_after: .*more than 0"),
        ("delimited_file", {}, r"publishers\.delimited_file\.path is missing; it must be the file to append to"),
        ("delimited_file", {"path": "e", "delimiter": "ab"}, r"publishers\.delimited_file\.delimiter: .*one character"),
        ("delimited_file", {"path": "e", "fsync": "always"}, r'publishers\.delimited_file\.fsync: .*"never", "batch"'),
        ("delimited_file", {"path": "e", "fsync": 0}, r"publishers\.delimited_file\.fsync"),
        ("delimited_file", {"path": "e", "rotate_bytes": 1.5}, r"publishers\.delimited_file\.rotate_bytes"),
        ("zmq", {"required": True}, r"publishers\.zmq\.required: .*does not survive this process.*delimited_file"),
        ("zmq", {"hwm": 2**31}, r"publishers\.zmq\.hwm: .*1 to 2\*\*31 - 1"),
        ("zmq", {"ring_bytes": 10**30}, r"publishers\.zmq\.ring_bytes: .*0 to 2\*\*50"),
        ("zmq", {"ring_seconds": inf}, r"publishers\.zmq\.ring_seconds: .*at most 86400"),
        ("zmq", {"max_events": 10**30}, r"publishers\.zmq\.max_events: .*1 to 2\*\*50"),
        ("zmq", {"hold_off": inf}, r"publishers\.zmq\.hold_off: .*at most 86400"),
        ("delimited_file", {"path": "e", "keep": 10**30}, r"publishers\.delimited_file\.keep: .*1 to 100000"),
        ("delimited_file", {"path": "e", "fsync": inf}, r"publishers\.delimited_file\.fsync: .*at most 86400"),
        ("log", {"required": True, "overflow": "drop_newest"}, r"publishers\.log\.overflow: .*contradicts required"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_what_is_allowed(
    name: str, table: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build(name, table)


@pytest.mark.parametrize("table", [{"required": True}, {"overflow": "block"}, {"required": True, "overflow": "block"}])
def test_who_must_not_lose_blocks(table: dict[str, object]) -> None:
    _, options = build("delimited_file", {"path": "e.tsv", **table})
    assert options.policy is Overflow.BLOCK


def test_other_packages_bring_kinds_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_party_kafka.py").write_text(THIRD_PARTY)
    metadata = tmp_path / "third_party_kafka-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: third-party-kafka\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[discorder.publishers]\nkafka = third_party_kafka:KafkaPublisher\nbroken = third_party_kafka:Nobody\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "third_party_kafka", raising=False)
    publisher, options = build("events", {"kind": "kafka", "server": "kafka://127.0.0.1", "max_events": 5})
    assert (publisher.name, vars(publisher)["server"], options.max_events) == ("events", "kafka://127.0.0.1", 5)
    with pytest.raises(ConfigError, match=r"publishers\.kafka\.server is missing; it must be a URL"):
        build("kafka", {})
    with pytest.raises(ConfigError, match=r"publishers\.broken\.kind: 'broken' .*cannot be imported"):
        build("broken", {})
    with pytest.raises(ConfigError, match="allowed: broken, channel, delimited_file, kafka, log, nats, redis, zmq"):
        build("pigeon", {})


@pytest.mark.parametrize("error", ["SystemExit(3)", "SyntaxError('bad')", "BaseException('panic')"])
@pytest.mark.parametrize("when", ["imported", "made"])
def test_whatever_a_kind_of_another_package_raises_is_an_error_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, error: str
) -> None:
    raising = f"raise {error}"
    (tmp_path / "third_party_bad.py").write_text(
        f"{raising if when == 'imported' else ''}\nclass Bad:\n    def __init__(self, name):\n        {raising}\n"
    )
    metadata = tmp_path / "third_party_bad-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: third-party-bad\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[discorder.publishers]\nbad = third_party_bad:Bad\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "third_party_bad", raising=False)
    with pytest.raises(ConfigError, match=rf"publishers\.sink.* cannot be {when}: {error.partition('(')[0]}"):
        build("sink", {"kind": "bad"})
