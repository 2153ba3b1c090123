"""The operator's commands beside a running server, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.patience import PATIENCE_S
from tests.running import ROOT, Client, open_http, open_process, open_server

UPLOADS = 24
LINES_EACH = 20


async def command(
    *arguments: str, environment: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the program as an operator does."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MEMORYROUTER_")}
    with trio.fail_after(PATIENCE_S):
        return await trio.run_process(
            [sys.executable, "-m", "router", *arguments],
            cwd=ROOT, env={**own, **(environment or {})}, stdin=stdin, capture_stdout=True, capture_stderr=True,
            check=False,
        )  # fmt: skip


async def result(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    """The JSON that a command prints."""
    done = await command(*arguments, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_backup_beside_a_writing_server_holds_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    """And can be restored elsewhere; the doctor finds both healthy.

    What needs the directory alone is refused; an export by key goes through the server.
    """
    data_dir, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    acknowledged: list[str] = []
    backing_up = trio.Event()

    async def write(client: Client) -> None:
        for upload in range(UPLOADS):
            texts = [f"Harbour log {upload}, line {line}." for line in range(LINES_EACH)]
            await client.upload([{"content": text} for text in texts])
            acknowledged.extend(texts)
            if upload == UPLOADS // 4:
                backing_up.set()

    async with open_process(data_dir) as server, open_http(server.url) as http, trio.open_nursery() as writing:
        client = Client(http, server.account_key)
        writing.start_soon(write, client)
        await backing_up.wait()
        before = set(acknowledged)
        await result("backup", str(tmp_path / "backup"), "--data-dir", str(data_dir))
        for arguments in (
            ["restore", str(tmp_path / "backup"), "--yes"], ["rotate-server-key"], ["export", "--vault", "1"],
        ):  # fmt: skip
            refused = await command(*arguments, "--data-dir", str(data_dir))
            assert refused.returncode == 2, (arguments, refused)
            assert refused.stdout == b""
            assert refused.stderr.startswith(b"error: ")
        assert b"--key" in refused.stderr
        exported = await command("export", "--key", client.key, "--data-dir", str(data_dir))
        assert exported.returncode == 0, exported.stderr
        lines = [json.loads(line) for line in exported.stdout.splitlines()]
        assert before <= {line["content"] for line in lines if "content" in line}
        report = await result("doctor", "--data-dir", str(data_dir))
        assert (report["healthy"], report["running"]) == (True, True)

    elsewhere.mkdir()
    (elsewhere / "server.key").write_bytes((data_dir / "server.key").read_bytes())
    (elsewhere / "server.key").chmod(0o600)
    await result("restore", str(tmp_path / "backup"), "--data-dir", str(elsewhere))
    assert (await result("doctor", "--data-dir", str(elsewhere)))["healthy"]
    async with open_process(elsewhere) as server, open_http(server.url) as http:
        found = await Client(http, client.key).contents("harbour log")
    assert before <= found <= set(acknowledged)


async def test_a_vault_moves_between_servers_by_file_and_by_pipe(tmp_path: Path) -> None:
    """The copy needs no embedding, and doing it again adds nothing."""
    file = tmp_path / "vault.jsonl"
    async with (
        open_server(tmp_path / "old") as client,
        open_server(tmp_path / "new") as copy,
    ):  # fmt: skip
        await client.upload([{"content": f"The ferry number {number} sails at noon."} for number in range(60)])
        await client.wait_embedded()
        source = {"MEMORYROUTER_API_KEY": client.key, "MEMORYROUTER_BASE_URL": client.url}
        target = {"MEMORYROUTER_API_KEY": copy.key, "MEMORYROUTER_BASE_URL": f"{copy.url}/v1/"}
        send = partial(result, "import", str(file), environment=target)

        assert (await result("export", "--output", str(file), environment=source))["memories"] == 60
        assert await send() == {"memories": 60, "stored": 60, "duplicates": 0}
        assert (await copy.stats())["pending"] == 0
        assert await send() == {"memories": 60, "stored": 0, "duplicates": 60}
        assert await copy.contents("ferry") == await client.contents("ferry")
        scores = [[item["score"] for item in await one.search("when does ferry 7 sail?")] for one in (client, copy)]
        assert scores[0] == scores[1]

        piped = await command("export", "--no-vectors", "--after", "50", environment=source)
        assert (piped.returncode, piped.stderr) == (0, b"")
        third = await copy.other()
        into = {**target, "MEMORYROUTER_API_KEY": third.key}
        done = await command("import", "-", stdin=piped.stdout, environment=into)
        assert done.stdout == b"imported: 10 of 10 memories; 0 were known already\n", done.stderr
        refused = await command("import", "-", stdin=piped.stdout[:-9], environment=into)
        assert (refused.returncode, refused.stdout) == (1, b"")
        suffixed = await command("export", "--key", f"{client.key}:read", environment=source)
        assert suffixed.returncode == 1
        assert b"suffix" in suffixed.stderr
