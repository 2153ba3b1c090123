"""The program for browser tests, in a process of its own, with blocking calls only.

Playwright's blocking interface keeps an asyncio loop in this thread, so nothing here runs Trio while a browser is open.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec

from router.admin_socket import SOCKET_NAME
from tests.patience import PATIENCE_S
from tests.prepared_model import put_model
from tests.running import ROOT, serve_command, serve_environment


class Account:
    """An account of a running server, by its account key, and what tests do with it over the public API."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, status: int | None = None
    ) -> Any:
        """The JSON that a request is answered with.

        Args:
            body: bytes as they are, everything else as JSON.
            key: a key instead of the account's.
            status: insisted on; without it, any below 300.
        """
        content = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        headers = {"authorization": f"Bearer {key or self.key}"}
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False, verify=False) as http:  # it is HTTP
            answer = http.request(method, path, content=content, headers=headers)
        assert answer.status_code == status if status else answer.status_code < 300, answer.text
        return answer.json()

    def mint(self, name: str, **body: Any) -> dict[str, Any]:
        """A new key with a vault: what `POST /v1/keys` says."""
        created: dict[str, Any] = self.call("POST", "/v1/keys", {"name": name, **body}, status=201)
        return created

    def upload(self, lines: list[dict[str, Any]], *, key: str | None = None) -> None:
        """Store memories."""
        self.call("POST", "/v1/memory/upload", b"\n".join(map(msgspec.json.encode, lines)), key=key)

    def memories(self, *, key: str | None = None, query: str = "") -> list[dict[str, Any]]:
        """The memories of a vault, newest first."""
        found: list[dict[str, Any]] = self.call("GET", f"/v1/memories?limit=1000{query}", key=key)["data"]
        return found


class RunningServer:
    """The program, listening.

    Attributes:
        url: its origin.
        account_key: of the account that the first start made; "" on a directory that was there.
    """

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes]) -> None:
        self.data_dir = data_dir
        self.process = process
        self.url = ""
        self.account_key = ""
        self.log: list[str] = []
        self._serving = threading.Event()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_keys, args=[process.stdout]),
            threading.Thread(target=self._read_log, args=[process.stderr]),
        ]
        for reader in self._readers:
            reader.start()

    def wait_serving(self) -> None:
        """Return once it has said where it serves."""
        assert self._serving.wait(PATIENCE_S), "the server said nothing"
        assert self.url, self.log

    def _read_keys(self, lines: IO[bytes]) -> None:
        for line in lines:
            if line.startswith(b"account key: "):
                self.account_key = line.decode().removeprefix("account key: ").strip()

    def _read_log(self, lines: IO[bytes]) -> None:
        for line in lines:
            self.log.append(line.decode(errors="replace"))
            entry = msgspec.json.decode(line) if line.startswith(b"{") else {}
            if entry.get("event") == "serving":
                self.url = entry["url"]
                self._serving.set()
        self._serving.set()

    def stop(self) -> None:
        """Kill it, and read the rest of what it said."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def new_account(self, name: str = "browser") -> Account:
        """An account that has nothing but its key, made by the operator."""
        return Account(self.url, self.operate("accounts.create", name=name)["account_key"])

    def operate(self, command: str, **arguments: Any) -> dict[str, Any]:
        """An operator's command, through the socket in the data directory."""
        directory = os.open(self.data_dir, os.O_RDONLY | os.O_DIRECTORY)  # its path may be too long for a socket's
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door, door.makefile("rb") as answers:
                door.settimeout(PATIENCE_S)
                door.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
                door.sendall(msgspec.json.encode({"command": command, "arguments": arguments}) + b"\n")
                reply = msgspec.json.decode(answers.readline())
        finally:
            os.close(directory)
        answer: dict[str, Any] = reply["answer"]
        return answer


@contextmanager
def running_server(data_dir: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[RunningServer]:
    """`python -m router serve` with this data directory on a free port; killed at the end."""
    if not data_dir.exists():
        put_model(data_dir)
    process = subprocess.Popen(
        serve_command(data_dir),
        cwd=ROOT,
        env=serve_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server = RunningServer(data_dir, process)
    try:
        server.wait_serving()
        yield server
    finally:
        server.stop()
