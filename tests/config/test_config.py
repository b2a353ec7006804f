"""The configuration: what loads, what is refused and in which words, where the token comes from."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discorder.config import Compress, Config, ShardSet, describe, load_config, read_token, sample_config
from discorder.errors import ConfigError, TokenMissing

TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAw.GabcdE.abcdefghijklmnopqrstuvwxyz0123456789AB"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bot.toml"


def refused(file: Path, text: str | bytes, *overrides: str) -> str:
    """The words in which a configuration is refused."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    return str(caught.value)


def test_without_a_file_the_defaults_apply() -> None:
    config = load_config(None)
    assert config == Config()
    assert config.publishers == {"zmq": {}}
    assert config.gateway.api == "https://discord.com/api/v10"
    assert config.gateway.intents_value == 53575421  # docs/protocol.md#intents: all that need no approval
    assert (config.log.file, config.log.rotate_bytes, config.log.keep) == ("", 10_000_000, 5)
    assert (config.session.store, config.session.drain_timeout) == ("auto", 0.5)


def test_every_key_of_a_full_file_arrives(file: Path) -> None:
    file.write_text("""
        [gateway]
        intents = ["guilds", "message_content"]
        shards = { ids = [0, 3], of = 4 }
        compress = "none"
        max_attempts = 3
        [log]
        level = "error"
        format = "json"
        rotate_bytes = 0
        keep = 1
        [session]
        store = ""
        drain_timeout = 2
        [publishers]
    """)
    config = load_config(file)
    assert config.gateway.intents_value == 1 + 32768
    assert config.gateway.shards == ShardSet((0, 3), 4)
    assert config.gateway.compress is Compress.NONE
    assert (config.log.level, config.log.format, config.log.rotate_bytes) == ("error", "json", 0)
    assert (config.session.store, config.session.drain_timeout) == ("", 2.0)
    assert config.publishers == {}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("gateway.fail_on_error", '"yes"', "true (end on a failure)"),
        ("gateway.fail_on_error", "1", "true (end on a failure)"),
        ("gateway.api", '"ftp://discord.com"', "http or https URL"),
        ("gateway.api", '"discord.com/api"', "http or https URL"),
        ("gateway.api", '"https://"', "http or https URL"),
        ("gateway.api", '"https://[::1/api"', "http or https URL"),
        ("gateway.api", '"https://discord.com:99999/api"', "http or https URL"),
        ("gateway.api", '"https://discord.com/api?v=10"', "http or https URL"),
        ("gateway.api", '"https://discord.com/api v10"', "http or https URL"),
        ("gateway.api", "10", "http or https URL"),
        ("gateway.token_file", '"a\\u0000b"', "a path"),
        ("gateway.intents", '["guild_message"]', "guild_messages"),
        ("gateway.intents", '["guild_bans"]', "guild_moderation"),
        ("gateway.intents", "-1", "a list of intent names"),
        ("gateway.intents", "true", "a list of intent names"),
        ("gateway.shards", "0", '"auto", a number from 1'),
        ("gateway.shards", '"all"', '"auto", a number from 1'),
        ("gateway.shards", "true", '"auto", a number from 1'),
        ("gateway.shards", "{ ids = [4], of = 4 }", "{ ids = [0, 1], of = 4 }"),
        ("gateway.shards", "{ ids = [-1], of = 4 }", "{ ids = [0, 1], of = 4 }"),
        ("gateway.shards", "{ ids = [1, 1], of = 4 }", "{ ids = [0, 1], of = 4 }"),
        ("gateway.shards", "{ ids = [1], off = 4 }", "{ ids = [0, 1], of = 4 }"),
        ("gateway.compress", '"gzip"', '"zlib-stream"'),
        ("gateway.max_attempts", "-1", "0 (never give up)"),
        ("gateway.max_attempts", "1.5", "0 (never give up)"),
        ("log.level", '"loud"', '"warning"'),
        ("log.format", '"xml"', '"json"'),
        ("log.rotate_bytes", "-1", "0 (never rotate)"),
        ("log.keep", "0", "1 to 1000"),
        ("session.store", "7", '"auto"'),
        ("session.drain_timeout", "nan", "0 to 60"),
        ("session.drain_timeout", "61", "0 to 60"),
        ("publishers.zmq.hwm", "0", "1 to 2**31 - 1"),
        ("publishers.zmq.overflow", '"wait"', '"drop_oldest"'),
        ("publishers.x.kind", '"carrier_pigeon"', "delimited_file"),
    ],
)
def test_a_bad_value_is_refused_naming_key_file_and_what_is_allowed(
    file: Path, key: str, value: str, allowed: str
) -> None:
    message = refused(file, f"{key} = {value}\n")
    assert str(file) in message
    assert key in message
    assert allowed in message
    override = refused(file, "", f"{key}={value}")
    assert f"--set {key}={value}" in override
    assert allowed in override


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[gateway]\nmax_atempts = 1", "did you mean gateway.max_attempts?"),
        ("[gatway]\n", "did you mean gateway?"),
        ("fail_on_error = true", "did you mean gateway.fail_on_error?"),
        ("[gateway]\nlevel = 'info'", "did you mean log.level?"),
        ("[gateway]\ntransport = 'aiohttp'", "unknown key"),
        ("[zmq]\nport = 6000", "[publishers.zmq]"),
        ("log_heartbeat = true", "heartbeat = true under [log]"),
        ("[publishers.zmq]\nbnd = 'x'", "did you mean bind?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_key_that_was_meant(file: Path, text: str, hint: str) -> None:
    message = refused(file, text)
    assert hint in message
    assert str(file) in message


@pytest.mark.parametrize("text", ["gateway = 3", "publishers = 3", "publishers.zmq = 3", "log = []"])
def test_a_value_in_the_place_of_a_table_is_refused(file: Path, text: str) -> None:
    assert "is not a table" in refused(file, text)


def test_all_problems_are_listed_at_once(file: Path) -> None:
    message = refused(
        file, "[gateway]\napi = 3\nnope = 1\n[log]\nkeep = 0\n[publishers.zmq]\nhwm = 0", "log.level=loud"
    )
    assert message.startswith("5 problems")
    for key in ("gateway.api", "gateway.nope", "log.keep", "publishers.zmq.hwm", "--set log.level=loud"):
        assert key in message


@pytest.mark.parametrize(
    "text", [f'[gateway]\ntoken = "{TOKEN}"', '[gateway]\ntoken = "hunter2"', 'bot_token = "hunter2"']
)
def test_a_token_in_the_file_is_refused_with_the_remedy_and_not_repeated(file: Path, text: str) -> None:
    message = refused(file, text)
    assert "DISCORD_BOT_TOKEN" in message
    assert "gateway.token_file" in message
    assert TOKEN not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "override", ["gateway.token=hunter2", f"gateway.shards={TOKEN}", "gateway.api=https://me:hunter2@x"]
)
def test_a_secret_given_by_set_is_not_repeated(file: Path, override: str) -> None:
    message = refused(file, "", override)
    assert TOKEN not in message
    assert "hunter2" not in message


def test_a_password_in_the_api_is_refused_and_not_repeated(file: Path) -> None:
    message = refused(file, 'gateway.api = "https://me:hunter2@discord.com"')
    assert "password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[gateway]\napi = \n", "line 2, column 7"),
        (b"a = 1\nb = '\xff'\n", "not UTF-8 at line 2"),
        (b"\xff\xfea\x00=\x00", "not UTF-8 at line 1"),
        (b"\x00\x01\x02", "not valid TOML"),
        (b"a = " + b"1" * 5000, "not usable"),
        (b"a = " + b"[" * 5000, "not usable"),
        (b"#" * (2 << 20), "not a configuration file"),
    ],
)
def test_what_is_not_toml_is_refused_saying_where(file: Path, content: bytes, says: str) -> None:
    message = refused(file, content)
    assert says in message
    assert str(file) in message


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[log]\r\nlevel = 'error'\r\n")
    assert load_config(file).log.level == "error"


@pytest.mark.parametrize("name", ["missing.toml", "", "a\0b", "x" * 5000])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"configuration file"):
        load_config(f"{tmp_path}/{name}")


def test_set_takes_toml_where_it_parses_and_text_elsewhere(file: Path) -> None:
    file.write_text("[log]\nlevel = 'error'\nfile = 'x.log'\n")
    config = load_config(
        file,
        [
            "log.level=debug",
            "log.file=",
            "gateway.shards=4",
            'gateway.intents=["guilds"]',
            "gateway.api=http://127.0.0.1:1/api/v10/",
            'publishers."my bus".kind=zmq',
            "publishers.audit={kind='delimited_file', path='e.tsv'}",
            "session.drain_timeout=3",
            "session.drain_timeout=4",
        ],
    )
    assert (config.log.level, config.log.file) == ("debug", "")
    assert (config.gateway.shards, config.gateway.intents) == (4, ("guilds",))
    assert config.gateway.api == "http://127.0.0.1:1/api/v10"
    assert config.publishers == {"my bus": {"kind": "zmq"}, "audit": {"kind": "delimited_file", "path": "e.tsv"}}
    assert config.session.drain_timeout == 4.0


@pytest.mark.parametrize(
    "override", ["log.level", "=x", "a b=1", "log..level=1", "gateway.api.x=1", "[log]\nlevel=1", "log.level#=1"]
)
def test_a_malformed_set_is_refused_by_its_own_text(file: Path, override: str) -> None:
    assert f"--set {override}" in refused(file, "[gateway]\napi = 'http://x'", override)


def test_a_set_value_cannot_smuggle_in_a_second_key() -> None:
    assert load_config(None, ["log.file=1\nkeep = 2"]).log == msgspec.structs.replace(Config().log, file="1\nkeep = 2")


def test_publishers_are_built_by_name_and_events_add_a_log_publisher(file: Path) -> None:
    file.write_text("log.events = true\npublishers.bus.kind = 'zmq'\npublishers.bus.overflow = 'drop_newest'")
    built = load_config(file).build_publishers()
    assert [publisher.name for publisher, _ in built] == ["bus", "event_log"]
    assert built[0][1].policy == "drop_newest"


SAMPLES = [sample_config("dev"), sample_config("prod"), sample_config("demo")]
MANGLED = st.builds(
    lambda text, at, length, junk: text[:at] + junk + text[at + length :],
    st.sampled_from(SAMPLES).map(lambda text: text.replace("\n# ", "\n").encode()),
    st.integers(0, 6000),
    st.integers(0, 60),
    st.one_of(st.binary(max_size=20), st.text("[]{}='\"0123456789.\n#truefalseautonan", max_size=20).map(str.encode)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MANGLED | st.binary(max_size=200))
def test_any_mangled_file_loads_or_is_refused_by_name(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        config = load_config(file)
    except ConfigError as error:
        assert str(file) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert describe(config)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["gateway", "gateway.shards", "log.keep", "publishers", "publishers.zmq.bind", ""]),
    st.text(max_size=30),
)
def test_any_set_is_taken_or_refused_by_name(key: str, value: str) -> None:
    try:
        config = load_config(None, [f"{key}={value}"])
    except ConfigError as error:
        assert f"--set {key}=" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert describe(config)


def test_the_token_comes_from_the_environment_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from.the.file\n")
    path.chmod(0o600)
    config = load_config(None, [f"gateway.token_file={path}"])
    assert read_token(config, {"DISCORD_BOT_TOKEN": " from.environ\n"}) == "from.environ"
    assert read_token(config, {"DISCORD_BOT_TOKEN": " "}) == "from.the.file"
    assert read_token(config, {}) == "from.the.file"


def test_a_token_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xef\xbb\xbffrom.the.file\r\n")
    path.chmod(0o600)
    assert read_token(load_config(None, [f"gateway.token_file={path}"]), {}) == "from.the.file"


def test_a_token_is_no_longer_than_a_token() -> None:
    with pytest.raises(ConfigError, match="it has 5000 characters"):
        read_token(Config(), {"DISCORD_BOT_TOKEN": "a" * 5000})


def test_without_a_token_the_error_names_both_ways_to_give_one() -> None:
    with pytest.raises(TokenMissing, match=r"DISCORD_BOT_TOKEN.*gateway\.token_file"):
        read_token(Config(), {})


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xff\xfe", b"a" * 5000, b"Bot hunter2", b'"hunter2"', b"hunter2\nhunter2"]
)
def test_a_token_file_with_something_else_in_it_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    config = load_config(None, [f"gateway.token_file={path}"])
    with pytest.raises(ConfigError, match=r"gateway\.token_file") as caught:
        read_token(config, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", ["missing", ".", TOKEN])
def test_a_token_file_that_cannot_be_read_is_refused(tmp_path: Path, path: str) -> None:
    config = load_config(None, [f"gateway.token_file={tmp_path / path}"])
    with pytest.raises(ConfigError, match=r"gateway\.token_file.*cannot be read") as caught:
        read_token(config, {})
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False)])
def test_a_token_file_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = tmp_path / "token"
    path.write_text("hunter2")
    path.chmod(mode)
    with caplog.at_level(logging.WARNING, "discorder.config"):
        assert read_token(load_config(None, [f"gateway.token_file={path}"]), {}) == "hunter2"
    assert bool(caplog.records) == warned
    assert "hunter2" not in caplog.text


def test_describe_says_what_would_run(file: Path) -> None:
    file.write_text("""
        gateway = { intents = 513, shards = { ids = [0], of = 2 }, compress = "none" }
        log = { level = "warning", file = "x.log", format = "json" }
        publishers.audit = { kind = "delimited_file", path = "e.tsv" }
    """)
    text = describe(load_config(file))
    for part in (
        "513 = guilds, guild_messages",
        "0 of 2",
        "compression none",
        "x.log (json), warning",
        "audit (delimited_file)",
        "e.tsv",
    ):
        assert part in text
    assert "warning:" not in text


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("log.level=debug", "meant for development"),
        ("log.events=true", "the log will hold what users write"),
        ("publishers.zmq.overflow=block", "back-pressure can hold up your control plane: if it takes no more for 10 s"),
        ("publishers.zmq={bind='tcp://0.0.0.0:6000', insecure=true}", "other hosts can read"),
        ("gateway={api='http://example.com', insecure_api=true}", "unencrypted"),
        ("gateway.intents=33026", "guild_members, guild_presences, message_content must be switched on"),
        ("gateway.intents=131072", "131072 are not documented"),
        ("publishers={}", "nobody will get an event"),
        ("gateway.fail_on_error=true", "nothing is recovered from"),
    ],
)
def test_describe_warns_of_what_deserves_a_second_look(override: str, says: str) -> None:
    assert says in describe(load_config(None, [override]))
    assert "warning:" not in describe(load_config(None))


def test_a_proxy_is_described_without_its_password() -> None:
    text = describe(load_config(None, ["gateway.proxy=http://me:hush@proxy.test:3128"]))
    assert "http://proxy.test:3128" in text
    assert "hush" not in text
    assert "proxy" not in describe(load_config(None))


@pytest.mark.parametrize("proxy", ["socks5://me:hush@proxy.test:1080", "http://me:hush@proxy.test/path"])
def test_what_is_no_proxy_is_refused_and_not_shown(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.proxy") as caught:
        load_config(None, [f"gateway.proxy={proxy}"])
    assert "hush" not in str(caught.value)


def test_default_adds_to_the_default_intents() -> None:
    config = load_config(None, ['gateway.intents=["default", "message_content"]'])
    assert config.gateway.intents_value == 53575421 | 1 << 15
    assert load_config(None, ['gateway.intents=["guilds", "default", "guilds"]']).gateway.intents_value == 53575421


def test_it_says_when_contents_will_be_empty() -> None:
    for intents, said in (
        ('["default"]', True),
        ('["guild_messages"]', True),
        ('["guilds"]', False),
        ('["default", "message_content"]', False),
    ):
        text = describe(load_config(None, [f"gateway.intents={intents}"]))
        assert ("are empty" in text and 'intents = ["default", "message_content"]' in text) is said, text
    assert "are empty" in describe(load_config(None))
