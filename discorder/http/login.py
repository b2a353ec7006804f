"""Log a browser of another host in: the form, and the cookie for the operator token."""

from __future__ import annotations

import base64
import hashlib
import html
from http import HTTPStatus
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from discorder.http.answers import RequestRefused, answer
from discorder.http.security import HttpSecurity, check_origin
from discorder.http.verbs import read_body

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 24rem; padding: 0 1rem; }
input, button { font: inherit; box-sizing: border-box; width: 100%; padding: .5rem; margin-top: .5rem; }
"""
_FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Discorder: log in</title>
<style>{style}</style>
<main>
<h1>Discorder</h1>
<p>The status of this control plane is shown to its operators. The token is on its machine, in the file of
<code>http.operator_token_file</code>: by default <code>STORE.operator-token</code> beside the session store, or
<code>operator-token</code> in the state directory of its user.</p>
{said}
<form method="post" action="/login">
<label for="token">Operator token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
</main>
</html>
""".replace("{style}", _STYLE)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


class LoginRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /login`` in JSON."""

    token: str


class LoginForm:
    """The handlers of ``/login``."""

    def __init__(self, security: HttpSecurity) -> None:
        self._security = security

    async def form(self, _request: web.Request) -> web.Response:
        """Show the form."""
        self._security.require_token()
        return _form("", HTTPStatus.OK)

    async def log_in(self, request: web.Request) -> web.Response:
        """Set the cookie for a request with the token: from the form, then redirect to the page; or as JSON."""
        self._security.require_token()
        check_origin(request)
        body = await read_body(request)
        if request.content_type == "application/x-www-form-urlencoded":
            return self._from_form(request, parse_qs(body.decode(errors="replace")).get("token", [""])[0])
        try:
            token = msgspec.json.decode(body, type=LoginRequest).token
        except msgspec.MsgspecError as error:
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST, f'the body must be JSON such as {{"token": "…"}}: {error}'
            ) from error
        self._security.check_token(token, self._security.client(request))
        response = answer({"done": "logged in"})
        self._security.log_in(response, request)
        return response

    def _from_form(self, request: web.Request, token: str) -> web.Response:
        try:
            self._security.check_token(token.strip(), self._security.client(request))
        except RequestRefused as refused:
            return _form(f'<p role="alert"><strong>{html.escape(str(refused))}</strong></p>', refused.status)
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        self._security.log_in(response, request)
        return response


def _form(said: str, status: HTTPStatus) -> web.Response:
    text = _FORM.replace("{said}", said)
    return web.Response(
        text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )
