"""Which hosts get the token: the look-up's, its siblings, and loopback for an API on loopback."""

from __future__ import annotations

import pytest

from discorder.errors import ConfigError, RestError
from discorder.rest.hosts import Hosts, check_api

DISCORD = "https://discord.com/api/v10"
LOCAL = "http://127.0.0.1:8080/api/v10"
PROXY = "http://proxy.internal:8080/api/v10"
MAIN = "wss://gateway.discord.gg/"


@pytest.mark.parametrize(
    "api", [DISCORD, LOCAL, "http://localhost:1/api", "http://[::1]/api", "http://sim.localhost/api"]
)
def test_an_api_that_keeps_the_token_private_needs_no_leave(api: str) -> None:
    check_api(api, insecure=False)


@pytest.mark.parametrize(
    "api",
    [PROXY, "http://10.0.0.1/api", "http://discord.com/api/v10", "http://2130706433/", "http://localhost.example/"],
)
def test_an_api_in_clear_text_needs_leave(api: str) -> None:
    """The error names the key that gives it."""
    with pytest.raises(ConfigError, match=r"gateway\.insecure_api = true"):
        check_api(api, insecure=False)
    check_api(api, insecure=True)


@pytest.mark.parametrize(
    ("api", "insecure", "url"),
    [
        (DISCORD, False, MAIN),
        (LOCAL, False, "ws://127.0.0.1:9000"),
        (LOCAL, False, "ws://localhost:9000/?v=10"),
        (LOCAL, False, MAIN),  # a REST proxy on this machine
        (PROXY, True, "ws://gateway.internal:9000"),
    ],
)
def test_the_main_host_of_a_look_up(api: str, insecure: bool, url: str) -> None:
    Hosts(api, insecure=insecure).check_main(url)


@pytest.mark.parametrize(
    ("api", "insecure", "url"),
    [
        (DISCORD, False, "ws://gateway.discord.gg/"),
        (DISCORD, True, "ws://gateway.discord.gg/"),
        (DISCORD, False, "ws://127.0.0.1:9000"),
        (LOCAL, False, "ws://gateway.internal:9000"),
        (LOCAL, False, "ws://xn--/"),
        (LOCAL, False, "http://127.0.0.1:9000"),
        (DISCORD, False, ""),
    ],
)
def test_a_look_up_that_would_give_the_token_away_has_failed(api: str, insecure: bool, url: str) -> None:
    with pytest.raises(RestError, match="the url of the answer is not dialled"):
        Hosts(api, insecure=insecure).check_main(url)


@pytest.mark.parametrize(
    ("api", "main", "url"),
    [
        (DISCORD, MAIN, "wss://gateway-us-east1-b.discord.gg"),
        (DISCORD, MAIN, "wss://GATEWAY.discord.gg./"),
        (DISCORD, MAIN, "wss://us-east1-b.gateway.discord.gg"),
        (DISCORD, None, "wss://gateway-us-east1-b.discord.gg"),  # before the look-up: Discord's gateway is known
        (LOCAL, "ws://127.0.0.1:9000", "ws://127.0.0.1:9001"),
        (LOCAL, "ws://127.0.0.1:9000", "ws://localhost:9001"),
        (LOCAL, None, "ws://[::1]:9001"),
        (LOCAL, MAIN, "wss://gateway-us-east1-b.discord.gg"),
    ],
)
def test_a_resume_host_that_belongs_to_the_gateway(api: str, main: str | None, url: str) -> None:
    assert Hosts(api, insecure=False).objection_to(url, main) is None


@pytest.mark.parametrize(
    ("api", "main", "url"),
    [
        (DISCORD, MAIN, "ws://gateway-us-east1-b.discord.gg"),
        (DISCORD, MAIN, "wss://gateway-us-east1-b.discord.gg.example"),
        (DISCORD, MAIN, "wss://discord.gg.evil.example"),
        (DISCORD, MAIN, "wss://gateway.discord.gg@evil.example/"),
        (DISCORD, MAIN, "wss://evildiscord.gg"),
        (DISCORD, MAIN, "wss://evil.gg"),
        (DISCORD, MAIN, "wss://127.0.0.1:9000"),
        (DISCORD, None, "wss://evil.example"),
        (DISCORD, MAIN, "ws://xn--/"),
        (DISCORD, MAIN, "wss://" + "a" * 3000),
        (DISCORD, MAIN, "wss://gateway.discord.gg:0"),
        (DISCORD, MAIN, "wss://gateway.discord.gg\x00"),
        (DISCORD, MAIN, "\ud83d"),
        (LOCAL, "ws://127.0.0.1:9000", "ws://10.0.0.1:9001"),
        (LOCAL, "ws://127.0.0.1:9000", "wss://gateway.evil.example"),
        (LOCAL, MAIN, "ws://127.0.0.1:9000"),
        ("https://chat.example/api", "wss://chat.example", "wss://evil.example"),  # one label in common is not a zone
        ("https://10.0.0.1/api", "wss://10.0.0.1", "wss://10.0.0.2"),  # addresses have no siblings
    ],
)
def test_a_resume_host_elsewhere_is_refused(api: str, main: str | None, url: str) -> None:
    hosts = Hosts(api, insecure=False)
    assert hosts.objection_to(url, main) is not None


@pytest.mark.parametrize(
    ("api", "url", "decidable"),
    [
        (DISCORD, "wss://gateway-eu.discord.gg", True),
        (DISCORD, "ws://gateway-eu.discord.gg", True),
        (LOCAL, "ws://127.0.0.1:1", True),
        (LOCAL, "wss://gateway-eu.discord.gg", False),
        ("https://chat.example/api", "wss://gateway.chat.example", True),
        ("https://chat.example/api", "wss://elsewhere.example", False),
    ],
)
def test_what_can_be_judged_before_the_look_up(api: str, url: str, decidable: bool) -> None:
    assert Hosts(api, insecure=False).is_decidable(url) is decidable
