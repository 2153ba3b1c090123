"""A server killed while a vault moves to another embedding model: the next start goes on, with exact counts."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.fakes.tiny_model import write_tiny_model
from tests.patience import PATIENCE_S
from tests.running import Client, open_http, open_process, user

COUNT = 120
TEXTS = [f"note number {number} of my dog" for number in range(COUNT)]


async def moved(client: Client) -> dict[str, Any]:
    """What stats say of the embedding once it is complete."""
    with trio.fail_after(PATIENCE_S):
        while True:
            stats = await client.stats()
            if not stats["pending"]:
                return stats
            await trio.lowlevel.checkpoint()


async def test_a_kill_in_the_middle_of_a_move_costs_nothing(tmp_path: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny")
    environment = {"MEMORYROUTER_EMBEDDERS__TINY__KIND": "onnx", "MEMORYROUTER_EMBEDDERS__TINY__PATH": str(tiny)}
    async with open_process(tmp_path / "data", environment=environment) as server, open_http(server.url) as http:
        key = server.account_key
        client = Client(http, key)
        await client.upload([user(text) for text in TEXTS])
        body = msgspec.json.encode(user("the last note"))
        answer = await client.post("/v1/memory/upload", body, headers={"X-Embedding-Model": "tiny"})
        assert (answer.status_code, answer.headers["x-embedding-model"]) == (200, "tiny")
        server.signal(signal.SIGKILL)
        await server.wait()
    async with open_process(tmp_path / "data", environment=environment) as server, open_http(server.url) as http:
        client = Client(http, key)
        stats = await moved(client)
        assert (stats["embedding"]["model"], stats["dims"]) == ("tiny", 16)
        assert (stats["memories"], stats["embedding"]["total"]) == (COUNT + 1, COUNT + 1)
        assert await client.contents("note dog") == {*TEXTS, "the last note"}
