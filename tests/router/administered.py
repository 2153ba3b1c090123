"""What tests of accounts and keys share: requests of every method, and further accounts, made by the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec

from router.admin_socket import SOCKET_NAME, call_admin
from tests.running import Client, object_of


async def operate(data_dir: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """A command of the operator beside the running server."""
    answer = await call_admin(data_dir / SOCKET_NAME, command, arguments)
    assert answer is not None
    return answer


async def another_account(server: Client, data_dir: Path, name: str = "another") -> Client:
    """A client with the account key of a new account."""
    created = await operate(data_dir, "accounts.create", name=name)
    return Client(server.http, created["account_key"])


async def call(client: Client, method: str, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
    """One request with a JSON body or none."""
    content = None if body is None else msgspec.json.encode(body)
    headers = {"authorization": f"Bearer {client.key if key is None else key}"}
    return await client.http.request(method, path, content=content, headers=headers)


async def done(client: Client, method: str, path: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
    """The object that a request is answered with; insists on the status."""
    answer = await call(client, method, path, body)
    assert answer.status_code == status, answer.text
    return object_of(answer)


async def mint(server: Client, **body: Any) -> tuple[Client, dict[str, Any]]:
    """A client with a new key, and what was said of the key."""
    created = await done(server, "POST", "/v1/keys", body, status=201)
    return Client(server.http, created["key"]), created


async def status_of(client: Client) -> int:
    """What the key is answered when it is used."""
    return (await client.get("/v1/memory/stats")).status_code


def number_in(metrics: str, name: str) -> float:
    """What the metrics say of one thing."""
    (line,) = [line for line in metrics.splitlines() if line.startswith(f"memoryrouter_{name} ")]
    return float(line.rpartition(" ")[2])
