"""Foreign clients against a whole server: each in an environment of its own, as a process of its own.

`make test-clients` installs the environments from the requirement files here, below `.venv/clients`. A client's script
(`scripts/`) asserts what a user of that client would; what went on behind the server is for the tests to see.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings
from tests.clients.upstream import Call, Upstream, open_upstream_provider
from tests.patience import PATIENCE_S
from tests.running import ROOT, Client, open_server, settings_for

FOLDER = Path(__file__).parent
INSTALLED = ROOT / ".venv" / "clients"
SERVER_KEY = "sk-of-the-server"
OWN_KEY = "sk-of-the-caller"
DOG = "My dog is called Rex."
QUESTION = "What is my dog called?"
OPEN = "<memory_context>"


class Pair(msgspec.Struct, frozen=True):
    """A server that knows about a dog, and the provider behind it."""

    server: Client
    upstream: Upstream


def providers_at(origin: str) -> ProvidersSettings:
    """One provider of each format at this address. They retry nothing, so that the clients' own retries are seen."""

    def provider(**fields: Any) -> ProviderSettings:
        return ProviderSettings(api_key=Secret(SERVER_KEY), retries_max=0, **fields)

    return ProvidersSettings(
        by_name={
            "openai": provider(base_url=f"{origin}/v1", serves=("responses",)),
            "anthropic": provider(base_url=origin, format="anthropic"),
            "google": provider(base_url=origin, format="google"),
        }
    )


@asynccontextmanager
async def open_pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """The provider of `tests.clients.upstream` with a server before it."""
    async with open_upstream_provider() as upstream, open_server_before(upstream.origin, tmp_path) as server:
        yield Pair(server, upstream)


@asynccontextmanager
async def open_server_before(origin: str, tmp_path: Path) -> AsyncIterator[Client]:
    """A server that knows about a dog and takes this address for every provider."""
    async with open_server(tmp_path / "data", settings_for(providers=providers_at(origin))) as server:
        await server.ingest(DOG)
        yield server


def environment(server: Client, home: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a client's process finds: where the server is, a home of its own, nothing of this machine's settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_PROXY": "*",
        "MEMORYROUTER_BASE_URL": server.url,
        "MEMORYROUTER_API_KEY": server.key,
        "TEST_OWN_KEY": OWN_KEY,
        **(variables or {}),
    }


def command_of(name: str, script: str) -> list[str]:
    """What runs a script in a client's environment; "npm" is the one of all that runs on Node."""
    assert (INSTALLED / name / "installed").exists(), f"{name} is not installed; `make test-clients` installs it"
    if name != "npm":
        return [str(INSTALLED / name / "bin" / "python"), str(FOLDER / "scripts" / script)]
    for source in (FOLDER / "scripts").glob("*.mjs"):  # Node looks modules up from where a script lies
        (INSTALLED / name / source.name).write_bytes(source.read_bytes())
    return [str(INSTALLED / "nodejs" / "bin" / "node"), str(INSTALLED / name / script)]


async def run_client(
    name: str, script: str, server: Client, home: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> str:
    """Run a script in a client's environment, insist that it succeeds, and return what it printed.

    Args:
        name: of the environment: a requirement file, or "npm".
        arguments: of the script: the scenes to play, all unless named.
    """
    command = [*command_of(name, script), *arguments]
    with trio.fail_after(PATIENCE_S):
        done = await trio.run_process(
            command,
            env=environment(server, home, variables),
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output
    return output


def texts_of(call: Call) -> list[tuple[str, str]]:
    """What a request says, in order: roles and texts, each part by itself; what is no text has none."""
    body = call.body
    match call.format:
        case "responses":
            listed = body["input"]
            messages = [{"role": "user", "content": listed}] if isinstance(listed, str) else listed
        case "gemini":
            messages = [{"role": item.get("role", "user"), "content": item["parts"]} for item in body["contents"]]
        case _:
            messages = body["messages"]
    return [said for message in messages for said in _said(message)]


def _said(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    role, content = str(message.get("role", "")), message.get("content")
    if isinstance(content, str):
        yield role, content
    elif isinstance(content, list):
        for part in content:
            yield role, str(part.get("text") or "")


def assert_remembers(call: Call) -> None:
    """The block is the first text of the last user message that has a text, the question's, and nowhere else."""
    texts = [(role, text) for role, text in texts_of(call) if text]
    with_block = [number for number, (_, text) in enumerate(texts) if OPEN in text]
    assert len(with_block) == 1, texts
    (at,) = with_block
    assert texts[at][0] == "user", texts
    assert texts[at][1].startswith(OPEN), texts
    assert DOG in texts[at][1], texts
    assert any(QUESTION in text for _, text in texts[at : at + 2]), texts
    assert all(role != "user" for role, _ in texts[at + 2 :]), texts


async def stored(server: Client) -> list[tuple[str, str]]:
    """Role and text of every memory in the vault."""
    answer = await server.get("/v1/memory/export")
    assert answer.status_code == 200, answer.text
    lines = [msgspec.json.decode(line) for line in answer.content.splitlines() if line]
    return [(line["role"], line["content"]) for line in lines if "content" in line]
