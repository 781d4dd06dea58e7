"""The client of a node's port for operators, and the options of the commands that use it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import click

from tribes.admin.gate import read_token
from tribes.errors import ConfigError

__all__ = ["STATUS_NOT_FOUND", "Client", "asks", "in_words", "printable"]

STATUS_NOT_FOUND: Final = 4

_TIMEOUT_S: Final = 10.0
_ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024
_URL: Final = "http://127.0.0.1:9480"


class _NotFound(click.ClickException):
    """There is no such context or session."""

    exit_code = STATUS_NOT_FOUND


class Client:
    """One node's port.

    Args:
        url: Where it is.
        token_file: The file with its token; None: none is shown.

    Raises:
        click.ClickException: The token cannot be read, or the URL is none.
    """

    def __init__(self, url: str, token_file: str | None) -> None:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or not parts.hostname:
            raise click.UsageError(f"--url: {url!r} is no address like {_URL}")
        self._url = url
        self._parts = parts
        try:
            self._token = read_token(token_file).decode() if token_file else None
        except ConfigError as error:
            raise click.ClickException(f"{error.source}: {error.message}") from None

    def get(self, path: str) -> Any:
        """What it answers.

        Raises:
            click.ClickException: It does not answer, or refuses.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, **body: str | bool | int) -> Any:
        """The same for what changes something."""
        return self._ask("POST", path, json.dumps(body).encode())

    def send(self, path: str, data: bytes) -> Any:
        """The same for bytes."""
        return self._ask("POST", path, data, "application/octet-stream")

    def _ask(
        self, method: str, path: str, body: bytes | None, kind: str = "application/json"
    ) -> Any:
        parts = self._parts
        how = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = how(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        headers = {"Content-Type": kind} if body is not None else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            data = answer.read(_ANSWER_MAX_BYTES)
        except ConnectionRefusedError:
            raise click.ClickException(
                f"{self._url} does not answer: nothing listens there. Start a node with [http] in "
                "its configuration, or say by --url where it is"
            ) from None
        except (OSError, http.client.HTTPException, UnicodeError) as why:
            # The last: a name of a host, or a token, that has no form on the wire.
            raise click.ClickException(f"{self._url} does not answer: {why}") from None
        finally:
            connection.close()
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            raise click.ClickException(f"{self._url} is no node: its answer is no JSON") from None
        if answer.status >= 400:
            _refused(answer.status, said)
        if not isinstance(said, dict):
            raise click.ClickException(f"{self._url} is no node: its answer is no JSON object")
        return said


def _refused(status: int, said: Any) -> NoReturn:
    text = str(said.get("error") if isinstance(said, dict) else f"the node answered {status}")
    if status == 401:
        text += " (give the same file with --token-file)"
    raise _NotFound(text) if status == 404 else click.ClickException(text)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command its options, and its client instead of them."""

    @wraps(command)
    def wrapper(*, url: str, token_file: str | None, **rest: Any) -> None:
        try:
            command(Client(url, token_file), **rest)
        except KeyError as why:
            raise click.ClickException(
                f"{url} is no node, or one of another release: its answer has no {why}"
            ) from why

    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
        click.option("--token-file", help="The file that http.token_file of the node names."),
        click.option("--url", default=_URL, show_default=True, help="Where the node answers."),
    ):
        wrapper = option(wrapper)
    return wrapper


def in_words(seconds: float | None) -> str:
    """A short time for people; ``-``: it is not known."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def printable(text: str) -> str:
    """What others chose: a terminal must not act on it."""
    return "".join(c if c.isprintable() else "�" for c in text)
