"""The sample configurations: they load, they say what their names promise, and they mention every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import msgspec
import pytest

from discorder.config import LogLevel, describe, load_config, sample_config
from discorder.config.schema import SECTIONS

Sample = Literal["dev", "prod", "demo"]
samples = pytest.mark.parametrize("name", get_args(Sample))
COMMENTED_KEY = re.compile(r"^# (?=\w+ = |\[)", re.MULTILINE)


@pytest.fixture
def written(tmp_path: Path, name: Sample) -> Path:
    """The sample as a file of its own."""
    path = tmp_path / f"{name}.toml"
    path.write_text(sample_config(name), encoding="utf-8")
    return path


@samples
def test_a_sample_loads_and_can_be_described(written: Path, name: Sample) -> None:
    assert "127.0.0.1:6000" in describe(load_config(written))


@samples
def test_a_sample_mentions_every_key_of_every_section(name: Sample) -> None:
    for section, body in re.findall(r"^\[(\w+)\]$(.*?)(?=^\[)", sample_config(name), re.MULTILINE | re.DOTALL):
        for field in msgspec.structs.fields(SECTIONS[section]):
            key = rf"{field.name} = |\[{section}\.{field.name}\."
            assert re.search(rf"^(# )?({key})", body, re.MULTILINE), f"{name}.toml: {section}.{field.name}"


@samples
def test_a_sample_with_every_comment_mark_removed_loads(written: Path, name: Sample) -> None:
    text, count = COMMENTED_KEY.subn("", sample_config(name))
    written.write_text(text, encoding="utf-8")
    assert count > 15
    assert set(load_config(written).publishers) == {"zmq", "audit", "nats", "redis"}


@samples
def test_a_commented_key_of_a_section_shows_its_default(written: Path, name: Sample) -> None:
    text = COMMENTED_KEY.sub("", sample_config(name))
    # examples, or set by a sample
    examples = {
        "intents",
        "fail_on_error",
        "level",
        "file",
        "heartbeat",
        "events",
        "store",
        "compress",
        "operator_token_file",
        "clients",
    }
    written.write_text(text, encoding="utf-8")
    config = load_config(written)
    for section, cls in SECTIONS.items():
        for field in msgspec.structs.fields(cls):
            if field.name not in examples:
                assert getattr(getattr(config, section), field.name) == field.default, field.name


def test_dev_stops_at_a_failure_and_logs_everything_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "dev.toml"
    path.write_text(sample_config("dev"), encoding="utf-8")
    config = load_config(path)
    assert config.gateway.fail_on_error
    assert (config.log.level, config.log.file) == (LogLevel.DEBUG, "dev.log")
    assert config.log.heartbeat
    assert config.log.events


def test_prod_is_the_built_in_defaults(tmp_path: Path) -> None:
    path = tmp_path / "prod.toml"
    path.write_text(sample_config("prod"), encoding="utf-8")
    assert load_config(path) == load_config(None)


def test_demo_needs_nothing_but_the_address_of_the_simulator(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    path.write_text(sample_config("demo"), encoding="utf-8")
    config = load_config(path, ["gateway.api=http://127.0.0.1:8080/api/v10"])
    assert config.gateway.api == "http://127.0.0.1:8080/api/v10"
    assert (config.session.store, config.log.file) == ("", "")
