"""Where the server is that a command talks to, whose key it uses, and what is wrong when that fails.

Owns the options `--url` and `--key` with their environment variables, the HTTP client of the command line, and the
words for everything that can go wrong on the way to a server. Must never show a key, and never send one anywhere but to
the address that was given: redirects are not followed. Heavy imports happen inside the functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import MemoryRouterError, SetupError, StoreUnavailable

if TYPE_CHECKING:
    import ssl

    import httpx

HTTP_TIMEOUT_S = 150.0
"""Longer than a server takes for a page of an export, or for one body of an import."""

CONNECT_TIMEOUT_S = 10.0
RETRIED = (429, 502, 503, 504)
KEY_FILE_CHARACTERS_MAX = 4_096
KEY_VARIABLE = "MEMORYROUTER_API_KEY"
KEY_FILE_VARIABLE = "MEMORYROUTER_API_KEY_FILE"
URL_VARIABLE = "MEMORYROUTER_BASE_URL"
_NOT_OURS = "That is no MemoryRouter, or another path is meant."


class RefusedByServer(MemoryRouterError):
    """A server answered with an error; the message is the server's."""

    code = "refused_by_server"


# --- options ---


def _key_or_file(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The key as given, else what the file that the environment names holds."""
    path = os.environ.get(KEY_FILE_VARIABLE)
    if value is None and path:
        try:
            with Path(path).open(encoding="utf-8") as file:
                value = file.read(KEY_FILE_CHARACTERS_MAX)
        except (OSError, UnicodeError) as error:
            raise click.UsageError(f"{KEY_FILE_VARIABLE}: {path} cannot be read: {error}.") from error
    key = (value or "").strip()
    if not key.isascii() or any(not character.isprintable() for character in key):
        raise click.UsageError("The key has characters that no key has; keys look like mk_...")
    return key or None


KEY = click.option(
    "--key",
    envvar=KEY_VARIABLE,
    callback=_key_or_file,
    help=f"Memory Key of the vault. Better given as {KEY_VARIABLE}, or in the file that {KEY_FILE_VARIABLE} names: "
    "other users of the machine can read a command's arguments.",
)
URL = click.option(
    "--url",
    envvar=URL_VARIABLE,
    help=f"Address of a running server, with or without /v1; also {URL_VARIABLE}. Without it the server that runs on "
    "the data directory is used.",
)


def base_url(url: str) -> str:
    """An address as requests need it: without `/v1`, which their paths have.

    Raises:
        SetupError: it is none.
    """
    from urllib.parse import urlsplit

    base = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(base)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        (parts.hostname or "").encode("idna")  # labels that are empty or too long
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        shown = "That" if "@" in url else url  # there may be a password in it
        raise SetupError(f"{shown} is not an address like http://127.0.0.1:8080.")
    return base


# --- which server ---


def server_of(data_dir: Path) -> str | None:
    """The address of the server that runs on a data directory, as it says itself; None where none runs.

    Raises:
        SetupError: its socket belongs to somebody else.
        StoreUnavailable: it does not answer.
    """
    import trio

    from router.admin_socket import SOCKET_NAME, call_admin

    answer = trio.run(call_admin, data_dir / SOCKET_NAME, "ping", {})
    return None if answer is None else reachable(str(answer.get("url", "")))


def reachable(url: str) -> str:
    """A server's own address as this machine reaches it: one that listens everywhere is also here."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def require_server(url: str | None, data_dir: Path) -> str:
    """The address of the server that is meant, for a command that needs one.

    Raises:
        SetupError: none was named and none runs.
    """
    found = url or server_of(data_dir)
    if not found:
        raise SetupError(
            f"no server runs on the data directory {data_dir}.",
            hint=f"Start one with `memoryrouter serve`, or name one by --url or {URL_VARIABLE}.",
        )
    return found


def require_key(key: str | None) -> str:
    """The key, for a command that needs one.

    Raises:
        click.UsageError: there is none.
    """
    if not key:
        raise click.UsageError(f"Give the vault's Memory Key in {KEY_VARIABLE}, or by --key.")
    return key


# --- requests ---


@contextmanager
def open_client(url: str, key: str | None, *, timeout_s: float = HTTP_TIMEOUT_S) -> Iterator[httpx.Client]:
    """A client of the server at `url`, for the length of the block.

    Raises:
        SetupError: `url` is no address.
    """
    import httpx

    try:
        base = httpx.URL(base_url(url))
        _ = base.host  # decoded, which a request does, too
    except (httpx.InvalidURL, UnicodeError):
        raise SetupError("That is not an address like http://127.0.0.1:8080.") from None
    headers = {"accept-encoding": "identity"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    with httpx.Client(
        base_url=base,
        headers=headers,
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        verify=_trusted() if url.strip().startswith("https:") else False,
        trust_env=False,  # no proxy gets to see a vault
    ) as client:
        yield client


def _trusted() -> ssl.SSLContext:
    """The certificates that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others."""
    import ssl

    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


@contextmanager
def in_words(url: str) -> Iterator[None]:
    """Errors of the way to a server, raised in the block, become sentences.

    Raises:
        StoreUnavailable: the server is not there, or the connection broke: trying again may help.
        SetupError: it will never work like this.
    """
    import httpx

    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: httpx.TransportError) -> MemoryRouterError:
    """The sentence for a connection that was not made, or broke."""
    import socket
    import ssl

    import httpx

    cause = _innermost(error)
    text = str(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SetupError(
            f"the certificate of {url} is not trusted: {cause.verify_message}.",
            hint="If it is your own, name its authority's file in SSL_CERT_FILE.",
        )
    if isinstance(cause, ssl.SSLError):
        return SetupError(f"{url} does not speak TLS.", hint="Is it an http:// address?")
    if isinstance(cause, socket.gaierror):
        return SetupError(f"{url}: the name of the host is not known.")
    if isinstance(cause, ConnectionRefusedError):
        return StoreUnavailable(f"{url} refuses the connection: no server listens there.", hint="Is it started?")
    if isinstance(error, httpx.ConnectTimeout):
        return StoreUnavailable(f"{url} does not answer within {CONNECT_TIMEOUT_S:g} s.")
    if isinstance(error, httpx.TimeoutException):
        return StoreUnavailable(f"{url} does not answer in time.")
    if isinstance(error, httpx.RemoteProtocolError) and "illegal" in text:
        return SetupError(f"{url} does not speak HTTP.", hint="Is it an https:// address, or another server?")
    return StoreUnavailable(f"{url} does not answer: {type(error).__name__}.")


def _innermost(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def check(answer: httpx.Response) -> None:
    """Insist on a success.

    Raises:
        StoreUnavailable: the server is busy or stopping: trying again may help.
        RefusedByServer: it said no; in its words, as far as it has some.
    """
    if answer.is_success:
        return
    answer.read()
    if answer.is_redirect:
        where = answer.headers.get("location", "elsewhere")
        raise RefusedByServer(f"The server sends us to {where}.", hint="Give that address by --url.")
    message, hint = words_of(answer)
    if answer.status_code in RETRIED:
        after = answer.headers.get("retry-after", "")
        raise StoreUnavailable(message, hint=hint, retry_after_s=int(after) if after.isdecimal() else 1)
    raise RefusedByServer(message, hint=hint)


def words_of(answer: httpx.Response) -> tuple[str, str]:
    """The message and the hint of an error: ours, or one in a provider's shape."""
    try:
        error = answer.json()["error"]
        if isinstance(error, str):
            return error, str(answer.json().get("hint", ""))
        return str(error["message"]), ""
    except (ValueError, LookupError, TypeError, AttributeError):
        where = f"The server answered {answer.status_code} to {answer.request.url.path}."
        return where, _NOT_OURS if answer.status_code in {404, 405} else ""


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer that was a success.

    Raises:
        StoreUnavailable, RefusedByServer: as `check`, or the answer is no JSON object.
    """
    check(answer)
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedByServer(f"The answer of {answer.request.url.path} is no JSON object.", hint=_NOT_OURS)
    return value
