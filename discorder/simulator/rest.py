"""Answer the REST routes that a gateway client and a small bot need, below ``/api`` (docs/protocol.md#rest).

Answers have exactly the type ``application/json``: discord.py parses nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import BodyPartReader, web

from discorder.simulator.buckets import BucketDecision, Buckets, bucket_name
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.records import RestRequest, SentFile, ViolationKind
from discorder.simulator.stream import LiveStream

_PREFIX = re.compile(r"/api(?:/v\d+)?(?=/|$)")
_MAJOR = ("channel_id", "guild_id", "webhook_id")  # a bucket counts per value of these (docs/protocol.md#rest)
_EDIT_CHANNEL = "PATCH /channels/{channel_id}"
_CHANNEL_MESSAGE_WITH_SOURCE = 4  # the interaction callback that shows a message


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and JSON body; bytes are sent as they are, None is an empty body."""

    status: int
    body: Any = None


NOT_FOUND = Reply(404, {"message": "404: Not Found", "code": 0})
UNAUTHORIZED = Reply(401, {"message": "401: Unauthorized", "code": 0})
NOT_ALLOWED = Reply(405, {"message": "405: Method Not Allowed", "code": 0})
UNKNOWN_CHANNEL = Reply(404, {"message": "Unknown Channel", "code": 10003})
UNKNOWN_GUILD = Reply(404, {"message": "Unknown Guild", "code": 10004})
BLOCKED = Reply(  # a ban of the address (discord-api-docs#5810): no retry_after, no header of a rate limit
    429,
    {
        "message": "You are being blocked from accessing our API temporarily due to exceeding our rate limits frequently.",
        "code": 0,
    },
)
NOT_JSON = Reply(400, {"message": "The request body contains invalid JSON.", "code": 50109})
EMPTY_MESSAGE = Reply(400, {"message": "Cannot send an empty message", "code": 50006})


@dataclass(frozen=True, slots=True)
class Call:
    """One request: path parameters, query, decoded body (None without one), files."""

    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    files: tuple[SentFile, ...]

    def number(self, name: str) -> int:
        return int(self.parameters[name])


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``template`` with ``{names}``; ``open`` to callers without a token; ``interaction``: exempt from the global limit."""

    method: str
    template: str
    pattern: re.Pattern[str]
    handler: Callable[[Call], Reply]
    open: bool
    interaction: bool


class Rest:
    """Routes a request, checks its token, counts it against its bucket and answers it."""

    def __init__(self, gateway: SimulatedGateway, stream: LiveStream, gateway_url: Callable[[], str]) -> None:
        self._gateway = gateway
        self._stream = stream
        self._gateway_url = gateway_url
        self._buckets = Buckets(gateway.options.rest_limit, gateway.options.rest_global_limit)
        self._routes: list[Endpoint] = []
        self._add_routes()

    async def handle(self, request: web.Request) -> web.Response:
        """Answer and record one request."""
        body, files = await _read_body(request)
        path = _PREFIX.sub("", request.path, count=1)
        reply, decision = self._answer(request, path, body, files)
        headers = {} if decision is None else dict(decision.headers)
        headers["Via"] = "1.1 simulator"
        records = self._gateway.records
        query = request.query_string
        records.add(records.rest_requests, RestRequest(request.method, path, query, body, reply.status, files))
        if reply.body is None:
            return web.Response(status=reply.status, headers=headers)
        data = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
        return web.Response(status=reply.status, body=data, headers=headers, content_type="application/json")

    def _answer(
        self, request: web.Request, path: str, body: bytes, files: tuple[SentFile, ...]
    ) -> tuple[Reply, BucketDecision | None]:
        if self._gateway.faults.address_blocked:
            return BLOCKED, None
        route, parameters = self._find(request.method, path)
        authorization = request.headers.get("Authorization", "")
        authorised = authorization.startswith("Bot ") and self._gateway.authenticates(authorization)
        if isinstance(route, Reply):
            return (route if authorised else UNAUTHORIZED), None
        if not (route.open or authorised):
            return UNAUTHORIZED, None
        try:
            document = msgspec.json.decode(body) if body else None
            is_json = True
        except ValueError:
            document, is_json = None, False
        decision = self._ask(route, parameters, document, count_global=authorised and not route.interaction)
        if not decision.allowed:
            self._gateway.records.breach(ViolationKind.REST_LIMIT, None, f"{route.method} {path}")
            retry = {"message": "You are being rate limited.", "retry_after": round(decision.retry_after, 3)}
            return Reply(429, {**retry, "global": decision.is_global}), decision
        if not is_json:
            return NOT_JSON, decision
        return route.handler(Call(parameters, request.query, document, files)), decision

    def _find(self, method: str, path: str) -> tuple[Endpoint | Reply, dict[str, str]]:
        found = [(route, match) for route in self._routes if (match := route.pattern.fullmatch(path))]
        for route, match in found:
            if route.method == method:
                return route, match.groupdict()
        return (NOT_ALLOWED if found else NOT_FOUND), {}

    def _ask(self, route: Endpoint, parameters: dict[str, str], body: Any, *, count_global: bool) -> BucketDecision:
        clock = self._gateway.clock
        verb, epoch = f"{route.method} {route.template}", clock.now().timestamp()
        return self._buckets.ask(
            bucket_name(verb, parameters.get("message_id"), epoch),
            "/".join(parameters.get(name, "") for name in _MAJOR),
            now=clock.monotonic(),
            epoch=epoch,
            count_global=count_global,
            renames=verb == _EDIT_CHANNEL and isinstance(body, dict) and bool({"name", "topic"} & body.keys()),
        )

    def _add(
        self, verb: str, handler: Callable[[Call], Reply], *, is_open: bool = False, interaction: bool = False
    ) -> None:
        method, template = verb.split()
        pattern = re.sub(r"\{(\w*token)\}", r"(?P<\1>[^/]+)", template)
        pattern = re.sub(r"\{emoji\}", r"(?P<emoji>[^/]+)", pattern)
        pattern = re.sub(r"\{message_id\}", r"(?P<message_id>\\d{1,20}|@original)", pattern)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>\\d{1,20})", pattern)
        self._routes.append(Endpoint(method, template, re.compile(pattern), handler, is_open, interaction))

    def _add_routes(self) -> None:
        self._add("GET /gateway", lambda _: Reply(200, {"url": self._gateway_url()}), is_open=True)
        self._add("GET /gateway/bot", self._gateway_bot)
        self._add("GET /users/@me", lambda _: Reply(200, self._gateway.world.user))
        self._add("GET /oauth2/@me", lambda _: UNAUTHORIZED)  # for users' access tokens; a bot's gets this
        self._add("GET /oauth2/applications/@me", self._application)
        self._add("GET /applications/@me", self._application)
        for owner in ("/applications/{application_id}", "/applications/{application_id}/guilds/{guild_id}"):
            self._add(f"GET {owner}/commands", lambda _: Reply(200, []))
            self._add(f"PUT {owner}/commands", self._put_commands)
            self._add(f"POST {owner}/commands", lambda call: Reply(201, self._command(call, call.body or {})))
        self._add("GET /guilds/{guild_id}", self._get_guild)
        self._add("GET /channels/{channel_id}", self._get_channel)
        self._add(_EDIT_CHANNEL, self._edit_channel)
        self._add("POST /channels/{channel_id}/messages", self._post_message)
        message = "/channels/{channel_id}/messages/{message_id}"
        self._add(f"DELETE {message}", self._in_channel)
        for method in ("PUT", "DELETE"):
            self._add(f"{method} {message}/reactions/{{emoji}}/@me", self._in_channel)
        self._add("POST /channels/{channel_id}/typing", lambda _: Reply(204))
        exempt = {"is_open": True, "interaction": True}  # authenticated by the token in the path
        self._add("POST /interactions/{interaction_id}/{interaction_token}/callback", self._callback, **exempt)
        hook = "/webhooks/{webhook_id}/{webhook_token}"
        self._add(f"POST {hook}", self._follow_up, **exempt)
        for method in ("GET", "PATCH"):
            self._add(f"{method} {hook}/messages/{{message_id}}", self._follow_up, **exempt)
        self._add(f"DELETE {hook}/messages/{{message_id}}", lambda _: Reply(204), **exempt)

    def _gateway_bot(self, _: Call) -> Reply:
        gateway, now = self._gateway, self._gateway.clock.monotonic()
        limit = {
            "total": gateway.gate.total,
            "remaining": gateway.gate.remaining(now),
            "reset_after": gateway.gate.reset_after_ms(now),
            "max_concurrency": gateway.gate.max_concurrency,
        }
        answer = {"url": self._gateway_url(), "shards": gateway.options.shards, "session_start_limit": limit}
        return Reply(200, answer)

    def _application(self, _: Call) -> Reply:
        world = self._gateway.world
        owner = world.members[1]["user"]
        application = {
            **world.application,
            "name": world.user["username"],
            "icon": None,
            "description": "A bot that exists in a simulator only",
            "summary": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "flags_new": str(world.application["flags"]),
            "team": None,
            "owner": owner,
            "bot": world.user,
            "hook": True,
            "integration_types_config": {"0": {}},
            "approximate_guild_count": world.count,
            "interactions_endpoint_url": None,
            "role_connections_verification_url": None,
            "redirect_uris": [],
        }
        return Reply(200, application)

    def _command(self, call: Call, command: dict[str, Any]) -> dict[str, Any]:
        """Return an application command as Discord echoes it."""
        number = self._stream.new_id()
        defaults = {"type": 1, "description": "", "options": [], "default_member_permissions": None, "nsfw": False}
        fixed = {"id": number, "version": number, "application_id": call.parameters["application_id"]}
        guild = {"guild_id": call.parameters["guild_id"]} if "guild_id" in call.parameters else {}
        return defaults | command | fixed | guild

    def _put_commands(self, call: Call) -> Reply:
        if not isinstance(call.body, list) or not all(isinstance(command, dict) for command in call.body):
            return Reply(400, {"message": "Invalid Form Body", "code": 50035})
        return Reply(200, [self._command(call, command) for command in call.body])

    def _get_guild(self, call: Call) -> Reply:
        index = self._gateway.world.find_guild(call.number("guild_id"))
        return UNKNOWN_GUILD if index is None else Reply(200, self._gateway.world.guild(index))

    def _get_channel(self, call: Call) -> Reply:
        channel = self._gateway.world.channel(call.number("channel_id"))
        return UNKNOWN_CHANNEL if channel is None else Reply(200, channel)

    def _edit_channel(self, call: Call) -> Reply:
        """Return the channel with the changes, which are not kept."""
        channel = self._gateway.world.channel(call.number("channel_id"))
        if channel is None:
            return UNKNOWN_CHANNEL
        if not isinstance(call.body, dict):
            return Reply(400, {"message": "Invalid Form Body", "code": 50035})
        return Reply(200, msgspec.json.decode(channel) | call.body)

    def _in_channel(self, call: Call) -> Reply:
        """Answer 204 to a change of any message of a known channel."""
        return UNKNOWN_CHANNEL if self._gateway.world.find_channel(call.number("channel_id")) is None else Reply(204)

    def _post_message(self, call: Call) -> Reply:
        """Return the message object, and dispatch it as MESSAGE_CREATE."""
        guild = self._gateway.world.find_channel(call.number("channel_id"))
        if guild is None:
            return UNKNOWN_CHANNEL
        changes = _message_changes(call.body)
        if call.files:
            changes = (changes or {"content": ""}) | {"attachments": [self._attachment(file) for file in call.files]}
        if changes is None:
            return EMPTY_MESSAGE
        if isinstance(call.body, dict) and "nonce" in call.body:
            changes["nonce"] = call.body["nonce"]
        event = self._stream.compose(guild, {**changes, "channel_id": call.parameters["channel_id"]})
        self._gateway.publish(event)
        return Reply(200, event.data)

    def _attachment(self, file: SentFile) -> dict[str, Any]:
        number = self._stream.new_id()
        url = f"https://cdn.discordapp.com/attachments/{number}/{file.filename}"
        return {"id": number, "filename": file.filename, "size": len(file.data), "url": url, "proxy_url": url}

    def _callback(self, call: Call) -> Reply:
        """Answer 204, or with ``with_response`` the callback and the message that it made."""
        if not isinstance(call.body, dict) or type(call.body.get("type")) is not int:
            return Reply(400, {"message": "Invalid Form Body", "code": 50035})
        if call.query.get("with_response", "").lower() not in {"true", "1"}:
            return Reply(204)
        kind = call.body["type"]
        interaction = {"id": call.parameters["interaction_id"], "type": 2, "response_message_ephemeral": False}
        answer: dict[str, Any] = {"interaction": interaction}
        if kind == _CHANNEL_MESSAGE_WITH_SOURCE:
            event = self._stream.compose(0, _message_changes(call.body.get("data")) or {})
            interaction["response_message_id"] = msgspec.json.decode(event.data)["id"]
            answer["resource"] = {"type": kind, "message": msgspec.Raw(event.data)}
        return Reply(200, answer)

    def _follow_up(self, call: Call) -> Reply:
        """Return the message of a webhook, or of an interaction's response."""
        changes = _message_changes(call.body) or {}
        message_id = call.parameters.get("message_id", "@original")
        if message_id != "@original":
            changes["id"] = message_id
        return Reply(200, self._stream.compose(0, changes).data)


def _message_changes(body: Any) -> dict[str, Any] | None:
    """Return the keys of a create-message body that appear in the message; None for an empty message."""
    if not isinstance(body, dict):
        return None
    content = body.get("content") or ""
    changes = {"content": str(content), "embeds": body.get("embeds") or [], "components": body.get("components") or []}
    changes["tts"] = bool(body.get("tts", False))
    return changes if any(changes[key] for key in ("content", "embeds", "components")) else None


async def _read_body(request: web.Request) -> tuple[bytes, tuple[SentFile, ...]]:
    """Return the JSON of a body and its files; in a multipart form the JSON is ``payload_json``."""
    if not request.content_type.startswith("multipart/"):
        return await request.read(), ()
    payload, files = b"", []
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader):
            data = bytes(await part.read())
            if part.name == "payload_json":
                payload = data
            else:
                content_type = part.headers.get("Content-Type", "")
                files.append(SentFile(part.name or "", part.filename or "", content_type, data))
    return payload, tuple(files)
