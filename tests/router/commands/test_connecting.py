"""Where the server is: addresses, keys, and what is said when one cannot be talked to. No key is ever shown."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import trio

from models.errors import SetupError, StoreUnavailable
from models.server_settings import ServerSettings
from router.cli import run_program
from router.commands.connecting import base_url, open_client, reachable, unreachable
from tests.fakes.certificates import SelfSigned
from tests.router.test_cli import error_line
from tests.running import open_server, settings_for

KEY = "mk_" + "x" * 32


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (" http://127.0.0.1:8080/v1/ ", "http://127.0.0.1:8080"),
        ("https://memory.example/v1", "https://memory.example"),
        ("https://example.org/memory/v1", "https://example.org/memory"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_an_address_may_have_the_version_or_not(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.parametrize(
    "url",
    ["localhost", "localhost:8080", "ftp://x", "http://", "http://x:many", "http://u:p@x", "http://x/?a=1", "",
     "http://a..b", f"http://{'a' * 64}.com"],
)  # fmt: skip
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    with pytest.raises(SetupError, match="is not an address like"):
        base_url(url)


@pytest.mark.parametrize("url", ["http://a\x01b", "http://xn--a", "http://x/\x7f"])
def test_an_address_that_no_client_takes_is_a_mistake_too(url: str) -> None:
    with pytest.raises(SetupError, match="is not an address like"), open_client(url, KEY):
        pass


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("https://[::]:8080", "https://[::1]:8080"),
        ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
    ],
)
def test_a_server_that_listens_everywhere_is_found_here(bound: str, reached: str) -> None:
    assert reachable(bound) == reached


class OtherServer(BaseHTTPRequestHandler):
    """Answers everything in the same way, and is no MemoryRouter."""

    status = 200
    body = b"<html>"
    location = ""
    given: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.given.append(self.headers["authorization"])
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        if self.location:
            self.send_header("location", self.location)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing to stderr."""


@contextmanager
def other_server(**attributes: object) -> Iterator[str]:
    """Its address."""
    handler = type("Other", (OtherServer,), attributes)
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def search(url: str, key: str = KEY) -> int:
    """A command that talks to a server; its exit code."""
    return run_program(["search", "x", "--url", url, "--key", key])


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "The answer of /v1/memory/search is no JSON object. That is no MemoryRouter"),
        ({"status": 404}, "answered 404 to /v1/memory/search. That is no MemoryRouter"),
        ({"status": 401, "body": b'{"error": "No such key.", "hint": "Look."}'}, "No such key. Look."),
        ({"status": 401, "body": b'{"error": {"message": "No, sir."}}'}, "No, sir."),
        ({"status": 308, "location": "https://elsewhere/"}, "sends us to https://elsewhere/. Give that address"),
        ({"status": 503, "body": b"[]"}, "answered 503"),
    ],
)
def test_another_server_is_told_from_ours(
    capsys: pytest.CaptureFixture[str], attributes: dict[str, object], words: str
) -> None:
    with other_server(**attributes) as url:
        assert search(url) == 1
    line = error_line(capsys)
    assert words in line
    assert KEY not in line


def test_where_nothing_listens_the_connection_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At once, also for commands that try a broken connection again."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("MEMORYROUTER_BASE_URL", url)
        monkeypatch.setenv("MEMORYROUTER_API_KEY", KEY)
        (tmp_path / "e.jsonl").write_text("")
        for command in (["search", "x"], ["chat", "x"], ["export", "--output", "x"], ["status"]):
            assert run_program(command) == 1
            assert (
                error_line(capsys) == f"error: {url} refuses the connection: no server listens there. Is it started?\n"
            )


@pytest.mark.parametrize(
    ("error", "cause", "kind", "words"),
    [
        (httpx.ConnectError("x"), socket.gaierror("x"), SetupError, "the name of the host is not known"),
        (httpx.ConnectTimeout("x"), None, StoreUnavailable, "does not answer within"),
        (httpx.ReadTimeout("x"), None, StoreUnavailable, "does not answer in time"),
        (httpx.RemoteProtocolError("illegal status line"), None, SetupError, "does not speak HTTP"),
        (httpx.ReadError("x"), None, StoreUnavailable, "does not answer: ReadError"),
    ],
)
def test_every_way_of_not_arriving_has_its_sentence(
    error: httpx.TransportError, cause: Exception | None, kind: type[Exception], words: str
) -> None:
    error.__cause__ = cause
    said = unreachable("http://host", error)
    assert type(said) is kind
    assert said.message.startswith("http://host")
    assert words in said.message


async def test_certificates_are_checked_and_own_ones_can_be_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what speaks no TLS, or nothing else, is named."""
    own = SelfSigned(tmp_path)
    settings = settings_for(
        server=ServerSettings(
            host="127.0.0.1", port=0, tls_certificate_file=str(own.certificate), tls_key_file=str(own.key)
        )
    )
    async with open_server(tmp_path / "data", settings, tls=own.client()) as server:

        async def search_there(url: str) -> int:
            capsys.readouterr()
            return await trio.to_thread.run_sync(partial(search, url, server.key))

        assert server.url.startswith("https://")
        assert await search_there(server.url) == 2
        assert f"the certificate of {server.url} is not trusted" in capsys.readouterr().err
        monkeypatch.setenv("SSL_CERT_FILE", str(own.certificate))
        assert await search_there(server.url) == 0
        assert await search_there(server.url.replace("https", "http")) in {1, 2}
        assert "error: http://127.0.0.1" in capsys.readouterr().err
    async with open_server(tmp_path / "plain") as server:
        assert await search_there(server.url.replace("http", "https")) == 2
        assert "does not speak TLS" in capsys.readouterr().err


def test_a_key_comes_from_the_command_the_environment_or_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In that order; without any, the command says where it belongs."""
    given: list[str] = []
    with other_server(body=b'{"memories": []}', given=given) as url:
        monkeypatch.setenv("MEMORYROUTER_BASE_URL", f"{url}/v1")
        assert run_program(["search", "x"]) == 2
        assert "Give the vault's Memory Key in MEMORYROUTER_API_KEY, or by --key." in error_line(capsys)
        monkeypatch.setenv("MEMORYROUTER_API_KEY_FILE", "absent")
        assert run_program(["search", "x"]) == 2
        assert "MEMORYROUTER_API_KEY_FILE: absent cannot be read" in error_line(capsys)
        Path("key").write_text("mk_file\n")
        monkeypatch.setenv("MEMORYROUTER_API_KEY_FILE", "key")
        assert run_program(["search", "x"]) == 0
        monkeypatch.setenv("MEMORYROUTER_API_KEY", "mk_environment")
        assert run_program(["search", "x"]) == 0
        assert run_program(["search", "x", "--key", "mk_given"]) == 0
        capsys.readouterr()
        assert run_program(["search", "x", "--key", "mk_\nx"]) == 2
        assert "keys look like mk_" in error_line(capsys)
    assert given == ["Bearer mk_file", "Bearer mk_environment", "Bearer mk_given"]


def test_advice_on_keys_says_that_the_environment_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a command takes a key as an argument."""
    for command in ("search", "chat", "export", "import", "upload", "status", "rotate-server-key"):
        run_program([command, "--help"])
        words = " ".join(capsys.readouterr().out.split())
        assert "other users of the machine can read a command's arguments" in words, command
