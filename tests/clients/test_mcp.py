"""The official MCP clients for Python and TypeScript, the Inspector and the conformance suite, on a whole server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.running import DOG, run_client, stored
from tests.running import open_server

CLIENTS = [("mcp-2", "mcp_sdk.py"), ("mcp-1", "mcp_sdk.py"), ("npm", "mcp_sdk.mjs")]


@pytest.mark.parametrize(("name", "script"), CLIENTS)
async def test_an_official_client_does_all_that_it_can(tmp_path: Path, name: str, script: str) -> None:
    """In every version that it speaks; in the end the vault is as it was."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        output = await run_client(name, script, server, tmp_path)
        assert "FAILED" not in output
        assert await stored(server) == [("user", DOG)]
