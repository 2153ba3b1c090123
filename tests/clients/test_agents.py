"""Claude Code and Codex, headless, with the configuration that their pages give: by base URL, and by MCP.

The programs are those of npm (`tests/clients/agents/`), each test with a home of its own. What they would ask of the
internet goes to a proxy that is not there.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.clients.agent_upstream import ToolCall, open_agent_provider, tool_results
from tests.clients.running import (
    DOG,
    INSTALLED,
    OPEN,
    OWN_KEY,
    QUESTION,
    SERVER_KEY,
    Pair,
    environment,
    open_server_before,
    stored,
)
from tests.clients.test_sdks import users_texts
from tests.clients.upstream import HELLO, Call
from tests.documents.blocks import Block, read_blocks
from tests.patience import PATIENCE_S
from tests.running import ROOT

PAGES = ROOT / "docs" / "integrations"
RUN_HERE = "run by: tests/clients/test_agents.py"
ASK_BY_URL, ASK_WITH_OWN_KEY, ASK_WITH_TOOLS = 0, 1, 2
"""Which shell block of a page does what."""

SEARCH = ToolCall("search_memories", {"query": QUESTION}, namespace="mcp__memoryrouter")
CLAUDES_SEARCH = ToolCall("mcp__memoryrouter__search_memories", {"query": QUESTION})
CLAUDES_LOADING = ToolCall("ToolSearch", {"query": f"select:{CLAUDES_SEARCH.name}"})  # its schemas come on demand
UNKNOWN = ToolCall("get_weather", {"city": "Lisbon"})
"""A tool that no agent has: the loop goes on with the error, wherever it runs."""


class Desk:
    """Where an agent works: its home, a project, and the server with its provider."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair = pair
        self.home = folder / "home"
        self.project = folder / "project"
        self._programs = folder / "programs"
        for made in (self.home, self.project, self._programs):
            made.mkdir()
        subprocess.run(["git", "init", "--quiet", str(self.project)], check=True)
        for name in ("claude", "codex"):
            (self._programs / name).symlink_to(program(name))

    def write(self, path: Path, page: str, *names: str) -> None:
        """These files of a page, one behind the other, into one."""
        texts = {block.marks["file"]: block.text for block in read_blocks(PAGES / page) if "file" in block.marks}
        path.parent.mkdir(exist_ok=True)
        path.write_text(self._filled_in("\n".join(texts[name] for name in names)), encoding="utf-8")

    async def run(self, script: str, variables: Mapping[str, str] | None = None) -> str:
        """Run a shell block in the project, insist that it succeeds, and return what it printed."""
        own = environment(self.pair.server, self.home, variables)
        own |= {"PATH": f"{self._programs}:{own['PATH']}", "NO_PROXY": "127.0.0.1", "HTTPS_PROXY": "http://127.0.0.1:9"}
        own |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(
                ["bash", "-euc", self._filled_in(script)],
                env=own,
                cwd=self.project,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output + done.stderr.decode(errors="replace")
        return output

    def _filled_in(self, text: str) -> str:
        text = text.replace("http://127.0.0.1:8080", self.pair.server.url).replace("sk-ant-...", OWN_KEY)
        return text.replace("mk_...", self.pair.server.key)


def program(name: str) -> Path:
    """An agent's own executable; what npm puts before it only finds it."""
    packages = INSTALLED / "agents" / "node_modules"
    assert (INSTALLED / "agents" / "installed").exists(), "the agents are not installed; `make test-clients` does it"
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    if name == "claude":
        return packages / "@anthropic-ai" / f"claude-code-linux-{machine}" / "claude"
    (found,) = (packages / "@openai" / f"codex-linux-{machine}" / "vendor").glob("*/bin/codex")
    return found


def shell_blocks(page: str) -> list[Block]:
    """The commands of a page that are run here."""
    return [block for block in read_blocks(PAGES / page) if block.marks.get("not run") == RUN_HERE]


@asynccontextmanager
async def open_desk(folder: Path, *plan: ToolCall) -> AsyncIterator[Desk]:
    """A desk before a server that knows about a dog, whose provider follows this plan."""
    async with open_agent_provider(*plan) as upstream, open_server_before(upstream.origin, folder) as server:
        yield Desk(Pair(server, upstream), folder)


async def ask_claude(desk: Desk, which: int) -> str:
    """What Claude Code answers to a block of its page."""
    return await desk.run(shell_blocks("claude-code.md")[which].text)


async def ask_codex(desk: Desk, *files: str, variables: Mapping[str, str] | None = None) -> str:
    """What Codex answers to the question of its page, configured by these files of it."""
    desk.write(desk.home / ".codex" / "config.toml", "codex.md", *files)
    return await desk.run(shell_blocks("codex.md")[ASK_BY_URL].text, variables)


def assert_asked_with_memory(call: Call) -> None:
    """The question comes last of what is said for the user, and one block stands before it, with the dog in it."""
    texts = users_texts(call)
    (block,) = [text for text in texts if OPEN in text]
    assert block.startswith(OPEN), texts
    assert DOG in block, texts
    assert texts[-1].endswith(QUESTION), texts


# --- Claude Code ---


async def test_claude_code_remembers_by_its_base_url(tmp_path: Path) -> None:
    """The question has its memory, and is kept as it was asked, with the reply and nothing else."""
    async with open_desk(tmp_path) as desk:
        desk.write(desk.home / ".claude" / "settings.json", "claude-code.md", "settings.json")
        assert HELLO in await ask_claude(desk, ASK_BY_URL)
        (call,) = desk.pair.upstream.calls()
        assert (call.format, call.stream, call.key) == ("messages", True, SERVER_KEY)
        assert_asked_with_memory(call)
        assert b"mk_" not in call.recorded.body
        assert set(await stored(desk.pair.server)) == {("user", DOG), ("user", QUESTION), ("assistant", HELLO)}


async def test_claude_code_keeps_its_memory_in_a_tool_loop(tmp_path: Path) -> None:
    """Byte for byte; the tool's result is not stored."""
    async with open_desk(tmp_path, UNKNOWN) as desk:
        desk.write(desk.home / ".claude" / "settings.json", "claude-code.md", "settings.json")
        assert HELLO in await ask_claude(desk, ASK_BY_URL)
        first, second = desk.pair.upstream.calls()
        assert_asked_with_memory(first)
        assert "get_weather" in tool_results(second)[0]
        assert users_texts(second) == users_texts(first)
        assert set(await stored(desk.pair.server)) == {("user", DOG), ("user", QUESTION), ("assistant", HELLO)}


async def test_claude_code_brings_a_key_of_its_own(tmp_path: Path) -> None:
    """The Memory Key in a header."""
    async with open_desk(tmp_path) as desk:
        assert HELLO in await ask_claude(desk, ASK_WITH_OWN_KEY)
        (call,) = desk.pair.upstream.calls()
        assert call.key == OWN_KEY
        assert_asked_with_memory(call)
        assert not [name for name in call.recorded.headers if name.startswith("x-memory")]


async def test_claude_code_searches_by_mcp(tmp_path: Path) -> None:
    """With the file of the page."""
    async with open_desk(tmp_path, CLAUDES_LOADING, CLAUDES_SEARCH) as desk:
        desk.write(desk.home / ".claude" / "settings.json", "claude-code.md", "settings.json")
        desk.write(desk.project / ".mcp.json", "claude-code.md", ".mcp.json")
        assert HELLO in await ask_claude(desk, ASK_WITH_TOOLS)
        assert DOG in tool_results(desk.pair.upstream.calls()[-1])[-1]


async def test_claude_code_adds_the_server_by_command(tmp_path: Path) -> None:
    """The command of the page on MCP; Claude Code then finds the server well."""
    (added,) = [block for block in read_blocks(ROOT / "docs" / "mcp.md") if "claude mcp add" in block.text]
    async with open_desk(tmp_path) as desk:
        await desk.run(added.text)
        assert re.search(r"memoryrouter: .*Connected", await desk.run("claude mcp list"))


async def test_claude_code_s_reminders_are_no_memories(tmp_path: Path) -> None:
    """Without any setting, in a repository with a CLAUDE.md: the provider gets it, the vault does not."""
    async with open_desk(tmp_path) as desk:
        (desk.project / "CLAUDE.md").write_text("Use tabs.\n", encoding="utf-8")
        assert HELLO in await ask_claude(desk, ASK_WITH_OWN_KEY)
        (call,) = desk.pair.upstream.calls()
        texts = users_texts(call)
        assert DOG in texts[0]
        assert any("Use tabs." in text for text in texts)
        assert set(await stored(desk.pair.server)) == {("user", DOG), ("user", QUESTION), ("assistant", HELLO)}


# --- Codex ---


async def test_codex_remembers_by_its_base_url(tmp_path: Path) -> None:
    """The question has its memory; it and the reply are kept."""
    async with open_desk(tmp_path) as desk:
        assert HELLO in await ask_codex(desk, "provider.toml")
        (call,) = desk.pair.upstream.calls()
        assert (call.format, call.stream, call.key) == ("responses", True, SERVER_KEY)
        assert_asked_with_memory(call)
        assert b"mk_" not in call.recorded.body
        assert {("user", DOG), ("user", QUESTION), ("assistant", HELLO)} == set(await stored(desk.pair.server))


async def test_what_codex_says_for_the_user_is_no_memory(tmp_path: Path) -> None:
    """Neither the environment nor AGENTS.md."""
    async with open_desk(tmp_path) as desk:
        (desk.project / "AGENTS.md").write_text("Use tabs.\n", encoding="utf-8")
        assert HELLO in await ask_codex(desk, "provider.toml")
        (call,) = desk.pair.upstream.calls()
        assert any("Use tabs." in text for text in users_texts(call))
        assert set(await stored(desk.pair.server)) == {("user", DOG), ("user", QUESTION), ("assistant", HELLO)}


async def test_codex_keeps_its_memory_in_a_tool_loop(tmp_path: Path) -> None:
    """Byte for byte; neither the call nor its result is stored."""
    async with open_desk(tmp_path, UNKNOWN) as desk:
        assert HELLO in await ask_codex(desk, "provider.toml")
        first, second = desk.pair.upstream.calls()
        assert "get_weather" in tool_results(second)[0]
        assert users_texts(second) == users_texts(first)
        assert not [text for _, text in await stored(desk.pair.server) if "get_weather" in text]


async def test_codex_brings_a_key_of_its_own_and_only_reads(tmp_path: Path) -> None:
    """The Memory Key and the mode are headers of the configuration."""
    async with open_desk(tmp_path) as desk:
        assert HELLO in await ask_codex(desk, "own-key.toml", variables={"OPENAI_API_KEY": OWN_KEY})
        (call,) = desk.pair.upstream.calls()
        assert call.key == OWN_KEY
        assert_asked_with_memory(call)
        assert await stored(desk.pair.server) == [("user", DOG)]


@pytest.mark.parametrize("provider", ["provider.toml", "own-key.toml"])
async def test_codex_searches_and_stores_by_mcp(tmp_path: Path, provider: str) -> None:
    """Whatever its model traffic does with memory."""
    store = ToolCall("store_memory", {"content": "We moved to Lisbon."}, namespace=SEARCH.namespace)
    async with open_desk(tmp_path, SEARCH, store) as desk:
        assert HELLO in await ask_codex(desk, provider, "mcp.toml", variables={"OPENAI_API_KEY": OWN_KEY})
        found, told = tool_results(desk.pair.upstream.calls()[-1])
        assert DOG in found
        assert "Stored." in told
        assert ("user", "We moved to Lisbon.") in await stored(desk.pair.server)
