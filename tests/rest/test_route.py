"""Paths: filled in, quoted, grouped by route and major parameter, shown without tokens."""

from __future__ import annotations

from typing import Any

import pytest

from discorder.redaction import Redactor
from discorder.rest.route import make_route

ID = "123456789012345678"


def test_parameters_are_filled_in_and_quoted() -> None:
    route = make_route("PUT", "/channels/{channel_id}/reactions/{emoji}/@me", {"channel_id": 7, "emoji": "a b/👍:1"})
    assert route.path == "/channels/7/reactions/a%20b%2F%F0%9F%91%8D%3A1/@me"


@pytest.mark.parametrize(
    ("template", "values", "major"),
    [
        ("/channels/{channel_id}/messages", {"channel_id": 7}, "channel 7"),
        ("/guilds/{guild_id}/members/{user_id}", {"guild_id": 8, "user_id": 1}, "guild 8"),
        ("/applications/{app}/guilds/{guild_id}/commands", {"app": 1, "guild_id": 8}, "guild 8"),
        ("/webhooks/{webhook_id}", {"webhook_id": 9}, "webhook 9"),
        (f"/channels/{ID}/messages", {}, f"channel {ID}"),
        ("/interactions/{id}/{t}/callback", {"id": 5, "t": "x"}, "interaction 5"),
        ("/users/{user_id}", {"user_id": 1}, ""),
    ],
)
def test_the_major_parameter_is_found(template: str, values: dict[str, Any], major: str) -> None:
    assert make_route("GET", template, values).major == major


def test_a_webhook_is_told_apart_by_its_token_without_showing_it() -> None:
    one, two = (
        make_route("POST", "/webhooks/{webhook_id}/{webhook_token}", {"webhook_id": 9, "webhook_token": t})
        for t in "ab"
    )
    assert one.major != two.major
    assert one.key == two.key


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("/webhooks/{webhook_id}/{webhook_token}/slack", {"webhook_id": 9, "webhook_token": "s3cr/t"}),
        ("/webhooks/9/s3cr%2Ft/slack", {}),
        ("/interactions/{a}/{b}/callback", {"a": 9, "b": "s3cr/t"}),
    ],
)
def test_tokens_in_a_path_are_never_shown(template: str, values: dict[str, Any]) -> None:
    route = make_route("POST", template, values)
    assert "s3cr" in route.path
    echoed = Redactor(route.secrets)(f"no host for {route.path}")
    assert "s3cr" not in repr(route) + route.shown + route.template + route.major + echoed
    assert "<token>" in route.shown


def test_ids_written_into_the_path_share_one_route_with_the_template() -> None:
    literal = make_route("GET", f"/channels/{ID}/messages/{ID}", {})
    filled = make_route("GET", "/channels/{channel_id}/messages/{message_id}", {"channel_id": ID, "message_id": ID})
    assert (literal.key, literal.major, literal.path) == (filled.key, filled.major, filled.path)


@pytest.mark.parametrize(
    ("template", "values", "exempt"),
    [
        ("/interactions/{a}/{b}/callback", {"a": 1, "b": "x"}, True),
        ("/webhooks/{application_id}/{interaction_token}", {"application_id": 1, "interaction_token": "x"}, True),
        ("/webhooks/{webhook_id}/{webhook_token}", {"webhook_id": 1, "webhook_token": "x"}, False),
    ],
)
def test_interaction_endpoints_are_exempt_from_the_global_limit(
    template: str, values: dict[str, Any], exempt: bool
) -> None:
    assert make_route("POST", template, values).exempt is exempt


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "missing path parameter channel_id, message_id"),
        ({"channel_id": 1, "message_id": 2, "mesage_id": 2}, "unknown path parameter mesage_id"),
        ({"channel_id": 1, "message_id": None}, "message_id: str or int, not NoneType"),
        ({"channel_id": True, "message_id": 2}, "channel_id: str or int, not bool"),
    ],
)
def test_wrong_path_parameters_are_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        make_route("GET", "/channels/{channel_id}/messages/{message_id}", values)


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_parameter_cannot_change_which_resource_is_meant(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a path"):
        make_route("GET", "/channels/{channel_id}", {"channel_id": value})


@pytest.mark.parametrize(
    "template",
    ["", "/", "channels", "/a//b", "/a/../b", "https://discord.com/x", "/a?limit=1", "/a#b", "/{a!r}", "/a}"],
)
def test_what_is_not_a_path_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="path"):
        make_route("GET", template, {})


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method 'get': one of DELETE, GET"):
        make_route("get", "/gateway", {})
