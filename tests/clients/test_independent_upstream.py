"""Clients that nobody here wrote before a provider that nobody here wrote: aimock has formats of its own making."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.clients.running import DOG, INSTALLED, QUESTION, command_of, open_server_before, run_client, stored
from tests.clients.upstream import HELLO, PICTURE, SUNNY
from tests.patience import PATIENCE_S

CHATS = "chat chat_stream chat_stream_usage chat_async chat_tools chat_tools_stream chat_image"
RESPONSES = "responses responses_stream responses_async responses_tools embeddings"
CLIENTS = {
    "openai-3": ("openai_sdk.py", f"{CHATS} {RESPONSES}"),
    "anthropic-2": ("anthropic_sdk.py", "messages messages_stream messages_async tools tools_stream image"),
    "google-genai-1": ("google_sdk.py", "content content_stream content_async conversation tools image"),
}


@asynccontextmanager
async def open_aimock() -> AsyncIterator[str]:
    """aimock in a process of its own: its address."""
    process = await trio.lowlevel.open_process(
        command_of("npm", "aimock_server.mjs"),
        cwd=INSTALLED / "npm",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = b""
        with trio.fail_after(PATIENCE_S):
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece, "aimock ended"
                line += piece
        yield line.decode().strip()
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE_S):
            await process.wait()


@pytest.mark.parametrize("name", CLIENTS)
async def test_the_same_scenes_play_before_an_independent_provider(tmp_path: Path, name: str) -> None:
    """Chats, streams, tools and pictures; Chat Completions also translated for its Anthropic side."""
    script, scenes = CLIENTS[name]
    async with open_aimock() as origin, open_server_before(origin, tmp_path) as server:
        variables = {"TEST_CHAT_MODELS": "gpt-{} openai/gpt-{} anthropic/claude-{}"}
        await run_client(name, script, server, tmp_path, *scenes.split(), variables=variables)
        found = set(await stored(server))
        said = {("assistant", HELLO), ("assistant", SUNNY), ("assistant", PICTURE)}
        assert {("user", DOG), ("user", QUESTION), *said} <= found
