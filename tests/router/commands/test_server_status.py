"""`memoryrouter status`: one word, some figures, and an exit code for scripts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from models.version import VERSION
from router.cli import run_program
from tests.router.test_cli import error_line
from tests.running import open_server


async def test_a_running_server_is_ready_and_a_stopped_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside its data directory everything is counted; by its address, what the key may see."""
    where = ["--data-dir", str(tmp_path / "data")]

    async def status(*arguments: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        got = await trio.to_thread.run_sync(partial(run_program, ["status", *arguments, "--json"]))
        captured = capsys.readouterr()
        assert got == code, captured.err
        answer: dict[str, Any] = json.loads(captured.out)
        return answer

    async with open_server(tmp_path / "data") as server:
        other = await server.other()
        await server.upload([{"content": "My dog is called Rex."}])
        await other.upload([{"content": "My cat is called Tom."}, {"content": "She eats fish."}])
        for client in (server, other):
            await client.wait_embedded()  # the directory counts what is a memory for good
        found = await status(*where)
        assert (found["state"], found["url"], found["version"]) == ("ready", server.url, VERSION)
        assert [found[name] for name in ("accounts", "keys", "vaults", "memories")] == [1, 2, 2, 3]
        assert await status("--url", f"{server.url}/v1") == {
            "state": "ready", "url": server.url, "version": VERSION,
        }  # fmt: skip
        key = server.key.removeprefix("account key: ").strip()
        assert (await status("--url", server.url, "--key", key))["memories"] == 1
    found = await status(*where, code=1)
    assert found["state"] == "stopped"
    assert [found[name] for name in ("accounts", "keys", "vaults", "memories")] == [1, 2, 2, 3]
    assert "url" not in found


def test_without_a_data_directory_there_is_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status"]) == 2
    assert "there is no data directory data" in error_line(capsys)
