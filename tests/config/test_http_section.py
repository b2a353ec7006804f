"""The section [http]: which addresses and names are taken, and which settings contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from discorder.config import describe, load_config
from discorder.config.division import divide
from discorder.errors import ConfigError

TLS = ("http.tls_cert_file=cert.pem", "http.tls_key_file=key.pem")


def refusal(*sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(None, sets)
    return str(caught.value)


def test_by_default_it_listens_on_loopback_and_a_taken_port_is_no_error() -> None:
    config = load_config(None)
    address = config.http.address
    assert address is not None
    assert (str(address), address.is_loopback, config.http_bind_set) == ("127.0.0.1:6080", True, False)
    assert "http://127.0.0.1:6080/, for this machine only; without it if the port is taken" in describe(config)


@pytest.mark.parametrize("how", ["file", "set"])
def test_a_bind_that_the_user_sets_is_known_as_such(tmp_path: Path, how: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[http]\nbind = "127.0.0.1:6080"\n' if how == "file" else "[http]\nhosts = []\n")
    config = load_config(path, ["http.bind=127.0.0.1:6080"] if how == "set" else [])
    assert config.http_bind_set
    assert "a taken port is an error" in describe(config)


def test_a_default_of_the_command_line_yields_to_the_file_and_does_not_count_as_set(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[http]\nbind = "127.0.0.1:7000"\n')
    default = "http.bind?=127.0.0.1:6081"
    of_file, alone = load_config(path, [default]), load_config(None, [default])
    assert (of_file.http.bind, of_file.http_bind_set) == ("127.0.0.1:7000", True)
    assert (alone.http.bind, alone.http_bind_set) == ("127.0.0.1:6081", False)
    assert load_config(None, [default, "http.bind=127.0.0.1:1"]).http_bind_set


def test_an_empty_bind_turns_it_off() -> None:
    config = load_config(None, ["http.bind="])
    assert config.http.address is None
    assert "no status page" in describe(config)


@pytest.mark.parametrize(
    ("bind", "host", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", True),
        ("localhost:6080", "localhost", True),
        ("[::1]:6080", "::1", True),
        ("127.9.9.9:65535", "127.9.9.9", True),
    ],
)
def test_an_address_has_a_host_and_a_port(bind: str, host: str, loopback: bool) -> None:
    address = load_config(None, [f"http.bind={bind}"]).http.address
    assert address is not None
    assert (address.host, address.is_loopback, str(address)) == (host, loopback, bind)


@pytest.mark.parametrize(
    "bind",
    [
        "6080",
        ":6080",
        "*:6080",
        "127.0.0.1",
        "127.0.0.1:65536",
        "::1:6080",
        "[::1]",
        "http://127.0.0.1:1",
        "a b:1",
        "127.0.0.1:٦٠٨٠",
    ],
)
def test_what_is_no_address_is_refused(bind: str) -> None:
    text = refusal(f"http.bind={bind}")
    assert "http.bind" in text
    assert "HOST:PORT" in text


@pytest.mark.parametrize("bind", ["0.0.0.0:6080", "[::]:6080", "10.0.0.5:6080", "discorder.example.org:6080"])
def test_other_hosts_are_served_with_tls_or_if_the_network_is_trusted(bind: str) -> None:
    text = refusal(f"http.bind={bind}")
    for remedy in ("loopback", "tls_cert_file", "insecure = true"):
        assert remedy in text
    assert "other hosts after a login" in describe(load_config(None, [f"http.bind={bind}", *TLS]))
    assert "warning: http.insecure" in describe(load_config(None, [f"http.bind={bind}", "http.insecure=true"]))


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (TLS[:1], "http.tls_key_file"),
        (TLS[1:], "http.tls_cert_file"),
        ((*TLS, "http.insecure=true"), "http.insecure"),
        (("http.bind=0.0.0.0:1", *TLS, "http.operator_token_file="), "http.operator_token_file"),
    ],
)
def test_contradictions_are_refused_naming_the_key(sets: tuple[str, ...], key: str) -> None:
    assert f"{key}: " in refusal(*sets)


@pytest.mark.parametrize("name", ["*.example.org", "http://example.org", "example.org:6080", "", "a b"])
def test_a_host_name_is_a_name_alone(name: str) -> None:
    assert "http.hosts" in refusal(f'http.hosts=["{name}"]')


def test_host_names_are_compared_in_lower_case() -> None:
    assert load_config(None, ['http.hosts=["Bot.Example.ORG."]']).http.hosts == ("bot.example.org",)


def test_certificate_and_key_may_be_one_file_but_the_token_needs_its_own() -> None:
    load_config(None, ["http.tls_cert_file=one.pem", "http.tls_key_file=one.pem"])
    assert "name the same file" in refusal(*TLS, "http.operator_token_file=key.pem")
    assert "name the same file" in refusal("session.store=s.db", "log.file=s.db.operator-token")


def test_processes_are_reached_on_loopback_without_tls() -> None:
    """Their parent serves ``http.bind``, and passes each a socket."""

    def http(*sets: str) -> list[list[str]]:
        shares = divide(load_config(None, ["gateway.shards=2", *sets]), 2)
        return [[one for one in share.overrides if one.startswith("http.")] for share in shares]

    behind = ['http.bind="127.0.0.1:0"', 'http.tls_cert_file=""', 'http.tls_key_file=""']
    assert http() == http("http.bind=127.0.0.1:65535") == http("http.bind=0.0.0.0:1", *TLS) == [behind, behind]
    assert http("http.bind=") == [[], []]
    load_config(None, ["http.bind=0.0.0.0:1", *TLS, *behind])


def test_an_ipv4_address_is_written_as_one() -> None:
    with pytest.raises(ConfigError, match=r"write 127\.0\.0\.1:6080"):
        load_config(None, ["http.bind=[::ffff:127.0.0.1]:6080"])
