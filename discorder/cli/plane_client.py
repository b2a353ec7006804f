"""Request status, events and commands from the HTTP server of a running control plane; errors name the remedy.

Uses http.client, which loads in a tenth of the time that aiohttp takes: a health check starts a process each time.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from queue import Empty, Queue
from typing import Any, TypeVar

from discorder.cli.event_reader import EventReader
from discorder.cli.target import target_of_config, target_of_url, tls_context
from discorder.config import Config
from discorder.errors import ConfigError, ControlPlaneAbsent, OperatorRefused, OperatorTokenRefused
from discorder.escapes import escape_controls, escape_controls_in_json
from discorder.http.signature import sign_request

T = TypeVar("T")

REALM = 'realm="discorder"'  # of the HTTP server's WWW-Authenticate
ANSWER_SECONDS = 2.0  # until a control plane that does not answer is reported
MAX_ANSWER = 64 * 1024 * 1024  # bytes; a status document of 500 shards has a quarter of a megabyte
_CHECK = "check that it runs (discorder serve), and name its configuration with --config, or its address with --url"


class PlaneClient:
    """Sends requests to one control plane. Each method opens a connection of its own and blocks."""

    def __init__(self, config: Config, url: str | None = None) -> None:
        """Raise `ConfigError` if ``url`` is none, or if the configuration gives no address."""
        self._config = config
        self._token_path: Path | None = None  # of the token that signed a request
        self.target = target_of_url(url, config) if url is not None else target_of_config(config)

    def status(self) -> bytes:
        """Return the status document, its control characters escaped. Raises `ControlPlaneAbsent`, `OperatorTokenRefused`."""
        status, body = self._in_time(lambda connection: self._read(connection, "/status.json"))
        document = _document(body) if status == HTTPStatus.OK else {}
        if not str(document.get("schema", "")).startswith("discorder.status/"):
            raise self._stranger(status, body)
        return escape_controls_in_json(body.decode()).encode()

    def health(self, path: str, key: str) -> dict[str, Any]:
        """Return the answer of ``/livez`` or ``/readyz``, which has ``key``, ready to be printed.

        It has a list of ``reasons`` and may have a ``headline``. Raises `ControlPlaneAbsent`.
        """
        status, body = self._in_time(lambda connection: self._read(connection, path))
        document = _document(body)
        reasons, headline = document.get("reasons", []), document.get("headline", "")
        has_reasons = isinstance(reasons, list) and all(isinstance(reason, str) for reason in reasons)
        if not isinstance(document.get(key), bool) or not has_reasons or not isinstance(headline, str):
            raise self._stranger(status, body)
        words: dict[str, Any] = {"headline": escape_controls(headline)} if "headline" in document else {}
        return document | words | {"reasons": [escape_controls(reason) for reason in reasons]}

    def command(self, path: str, document: dict[str, Any] | None = None) -> str:
        """Carry out an operator command and return what it did, as one line.

        Raises `OperatorRefused` with the control plane's sentence, `OperatorTokenRefused`, `ControlPlaneAbsent`, and
        `UnusableFile` for a token file that cannot be read.
        """

        def post(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
            connection.connect()  # that nothing runs there is worth more than that there is no token
            sent = json.dumps(document or {}).encode()
            signature = sign_request(self._token(), "POST", path, sent)
            headers = {"Authorization": signature, "Content-Type": "application/json"}
            connection.request("POST", path, sent, headers)
            return _answer(connection)

        status, body = self._in_time(post)
        done = _document(body).get("done")
        if status != HTTPStatus.OK or not isinstance(done, str):
            raise self._stranger(status, body)
        return escape_controls(done)

    def events(self, silence: float) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of each event of the stream.

        Raises like `status`, and `ControlPlaneAbsent` when the stream ends, or when no event comes for ``silence`` seconds.
        """
        connection = self._connection()
        try:
            with self._in_time(self._open_stream, connection) as reader, self._explaining(silence):
                while (event := reader.next(silence)) is not None:
                    yield event
            msg = f"the control plane at {self.target.url} has ended its events"
            raise ControlPlaneAbsent(msg)
        finally:
            connection.close()

    # ---------------------------------------------------------------- requests

    def _read(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        """Request ``path``, signed with the token only if the server wants that."""
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER)
        if not _wants_token(response):
            return response.status, body
        connection.close()
        connection.request("GET", path, headers={"Authorization": sign_request(self._token(), "GET", path)})
        return _answer(connection)

    def _open_stream(self, connection: http.client.HTTPConnection) -> EventReader:
        connection.request("GET", "/events")
        sock: socket.socket = connection.sock  # a response after which the server closes takes it away
        response = connection.getresponse()
        if _wants_token(response):
            response.read(MAX_ANSWER)
            connection.request(
                "GET", "/events", headers={"Authorization": sign_request(self._token(), "GET", "/events")}
            )
            sock = connection.sock
            response = connection.getresponse()
        if response.headers.get_content_type() != "text/event-stream":
            raise self._stranger(response.status, response.read(MAX_ANSWER))
        sock.settimeout(None)
        return EventReader(response, sock)

    def _in_time(
        self, work: Callable[[http.client.HTTPConnection], T], connection: http.client.HTTPConnection | None = None
    ) -> T:
        """Return what ``work`` returns with a connection; give up after `ANSWER_SECONDS`, however the server's bytes drip.

        A time limit of a socket holds for each read of it, and none for the look-up of a name. ``connection`` stays open.
        """
        used = connection or self._connection()
        ended: Queue[T | Exception] = Queue()

        def run() -> None:
            try:
                with self._explaining():
                    ended.put(work(used))
            except Exception as error:  # noqa: BLE001  # the caller gets every error
                ended.put(error)
            finally:
                if connection is None:
                    used.close()

        threading.Thread(target=run, name="request", daemon=True).start()
        try:
            result = ended.get(timeout=ANSWER_SECONDS)
        except Empty:
            late = TimeoutError()
            raise self._explained(late, ANSWER_SECONDS) from late
        if isinstance(result, Exception):
            raise result
        return result

    def _connection(self) -> http.client.HTTPConnection:
        target = self.target
        if target.scheme == "https":
            return http.client.HTTPSConnection(
                target.host, target.port, timeout=ANSWER_SECONDS, context=tls_context(target)
            )
        return http.client.HTTPConnection(target.host, target.port, timeout=ANSWER_SECONDS)

    @contextmanager
    def _explaining(self, seconds: float = ANSWER_SECONDS) -> Iterator[None]:
        """Turn the errors of a connection into a sentence. ``seconds``: after which it counts as silent."""
        try:
            yield
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # UnicodeError: a name that IDNA refuses
            raise self._explained(error, seconds) from error

    def _token(self) -> str:
        """Return the token that signs requests. It is never sent, so an address without TLS cannot lose it."""
        from discorder.http.operator_token import token_file  # noqa: PLC0415  # most commands need no token

        file = token_file(self._config)
        if file is None:
            msg = (
                'this configuration switches operator commands off (http.operator_token_file is ""); '
                'set it to "auto" or to a path, and restart the control plane'
            )
            raise ConfigError(msg)
        self._token_path = file.path
        try:
            return file.read()
        except FileNotFoundError:
            msg = (
                f"there is no operator token at {file.path}; the control plane makes it at its start: run this command as the "
                "same user and with the same configuration, or set http.operator_token_file to the path of the token"
            )
            raise OperatorTokenRefused(msg) from None

    # ---------------------------------------------------------------- answers

    def _stranger(self, status: int, body: bytes) -> ControlPlaneAbsent | OperatorRefused:
        """Return the error for an answer that is not the expected one: a refusal of the control plane, or another program."""
        sentence = _document(body).get("error")
        if not isinstance(sentence, str):
            return ControlPlaneAbsent(
                f"what answers at {self.target.url} (HTTP status {status}) is no control plane; {_CHECK}"
            )
        sentence = escape_controls(sentence)
        if status == HTTPStatus.UNAUTHORIZED:
            return OperatorTokenRefused(
                f"{self.target.url}: {sentence}; it was read from {self._token_path}: name the configuration of that control "
                "plane with --config, or set http.operator_token_file to the path of its token"
            )
        return OperatorRefused(sentence)

    def _explained(self, error: Exception, seconds: float) -> ControlPlaneAbsent:
        url = self.target.url
        if isinstance(error, ssl.SSLError):
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            return ControlPlaneAbsent(
                f"TLS with {url} failed: {reason}; check that it speaks https, and that http.tls_cert_file or SSL_CERT_FILE "
                "names the certificate that it uses"
            )
        if isinstance(error, TimeoutError):
            return ControlPlaneAbsent(f"no control plane answers at {url} within {seconds:g} s; {_CHECK}")
        if isinstance(error, OSError):
            return ControlPlaneAbsent(f"no control plane answers at {url}: {error.strerror or error}; {_CHECK}")
        return ControlPlaneAbsent(f"what answers at {url} is no control plane: {error!r}; {_CHECK}")


def _document(body: bytes) -> dict[str, Any]:
    """Return a JSON object, empty if ``body`` is something else."""
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _wants_token(response: http.client.HTTPResponse) -> bool:
    """Return whether it is a control plane that wants the operator token."""
    return response.status == HTTPStatus.UNAUTHORIZED and REALM in response.headers.get("WWW-Authenticate", "")


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    return response.status, response.read(MAX_ANSWER)
