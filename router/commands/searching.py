"""`memoryrouter search`: what a vault remembers about a query, best first, with the reasons if they are asked for.

Owns how found memories look. Over HTTP where a server's address is given or one runs on the data directory; else by
opening the directory itself, by key or by the vault's number. Heavy imports happen inside the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.connecting import KEY, URL, in_words, json_of, open_client, require_key, server_of
from router.commands.options import CONFIG, DATA_DIR, JSON, load, run
from router.commands.terminal import (
    Column,
    console_for,
    is_terminal,
    new_table,
    one_line,
    print_json,
    print_rows,
    printable,
)

if TYPE_CHECKING:
    from models.settings import Settings

LIMIT_DEFAULT = 10
LIMIT_MAX = 1_000
TIMEOUT_S = 30.0
BAR_CHARACTERS = 10
CONTENT_CHARACTERS_MAX = 400
"""Of a memory in a table; `--json` and piped lines have all of it."""

REASONS_MAX = 4
"""Of one memory in a table: those that count most."""

_COLUMNS = (Column("score"), Column("id"), Column("when"), Column("role"), Column("session"), Column("memory"))


@click.command()
@click.argument("query")
@click.option(
    "--limit", type=click.IntRange(1, LIMIT_MAX), default=LIMIT_DEFAULT, show_default=True, help="At most so many."
)
@click.option("--session", help="Only this session.")
@click.option("--explain", is_flag=True, help="Say what placed each memory.")
@KEY
@click.option("--vault", type=int, help="Number of the vault instead of a key; without a running server.")
@URL
@CONFIG
@DATA_DIR
@JSON
def search(
    query: str,
    limit: int,
    session: str | None,
    key: str | None,
    vault: int | None,
    url: str | None,
    config: Path | None,
    data_dir: Path,
    *,
    explain: bool,
    as_json: bool,
) -> None:
    """Search a vault for QUERY, best first.

    Piped, each memory is one line: score, id, time, role, session, content, and with --explain the reasons.
    """
    if not query.strip():
        raise click.UsageError("QUERY is empty.")
    asked = {"query": query, "limit": limit, "explain": explain, **({"session_id": session} if session else {})}
    if vault is None:
        key = require_key(key)
        url = url or server_of(data_dir)
    if url and key and vault is None:
        memories = _over_http(url, key, asked)
    else:
        memories = run(partial(_in_directory, load(config), data_dir, key, vault, asked))
    if as_json:
        print_json({"memories": memories, "count": len(memories)})
    elif is_terminal(sys.stdout):
        _print_table(memories)
    else:
        print_rows([*_COLUMNS, *([Column("reasons")] if explain else [])], map(_row, memories))


def _over_http(url: str, key: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    with open_client(url, key, timeout_s=TIMEOUT_S) as client, in_words(url):
        memories: list[dict[str, Any]] = json_of(client.post("/v1/memory/search", json=asked)).get("memories", [])
    return memories


async def _in_directory(
    settings: Settings, data_dir: Path, key: str | None, vault_number: int | None, asked: dict[str, Any]
) -> list[dict[str, Any]]:
    """The same from a data directory that no server uses.

    Raises:
        SetupError: there is none, or a server uses it.
        Unauthenticated, NotFound: the key or the number opens no vault.
    """
    import time

    from models.ids import Access
    from router.commands.directory_vaults import open_house
    from router.components import wall_clock_ms
    from router.memory_answers import search_item
    from router.options import resolve_options
    from router.recalling import Recaller

    async with open_house(settings, data_dir) as house:
        bound = Access()
        if vault_number is not None:
            vault = await house.vault_of_number(vault_number)
        else:
            vault, credential = await house.vault_of_key(key or "")
            bound = credential.access
        options = resolve_options(headers={}, query={}, body=asked, bound=bound, settings=settings)
        if not options.access.read:
            return []
        recaller = Recaller(
            house.supervisor.embedders.default, house.supervisor, block_cache_s=0.0, clock=time.monotonic
        )
        hits = await recaller.search(
            vault,
            asked["query"],
            options,
            limit=asked["limit"],
            now_ms=wall_clock_ms(),
            timeout_s=TIMEOUT_S,
            explain=asked["explain"],
        )
    return [search_item(hit) for hit in hits]


# --- how they look ---


def _when(memory: dict[str, Any]) -> str:
    from models.times import format_time

    at_ms = memory.get("timestamp")
    return format_time(at_ms) if isinstance(at_ms, int) else "-"


def _row(memory: dict[str, Any]) -> list[object]:
    row = [f"{memory['score']:.4f}", memory["id"], _when(memory), memory["role"], memory.get("session_id")]
    row.append(one_line(memory["content"]))
    if "explanation" in memory:
        row.append(" ".join(f"{name}={value:+.4f}" for name, value in _reasons(memory["explanation"])))
    return row


def _reasons(explanation: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What each feature brought the memory, the largest first: its value by its weight."""
    weights = explanation["weights"]
    brought = {name: value * weights.get(name, 0.0) for name, value in explanation["features"].items()}
    for name in sorted(brought, key=lambda name: -abs(brought[name])):
        if brought[name]:
            yield name, brought[name]


def _print_table(memories: list[dict[str, Any]]) -> None:
    from rich.text import Text

    if not memories:
        click.echo("nothing found")
        return
    table = new_table()
    table.add_column("score", no_wrap=True)
    table.add_column("when", no_wrap=True, style="dim")
    table.add_column("memory", overflow="fold")
    for memory in memories:
        text = Text(_shortened(memory["content"]))
        about = [
            memory["role"],
            memory["id"],
            *([f"session {memory['session_id']}"] if memory.get("session_id") else []),
        ]
        text.append("\n" + printable(" · ".join(about)), style="dim")
        for name, value in list(_reasons(memory.get("explanation") or {"weights": {}, "features": {}}))[:REASONS_MAX]:
            text.append(f"\n  {value:+.2f} {printable(name)}", style="green" if value > 0 else "red")
        table.add_row(_bar(memory["score"]), _when(memory)[:10], text)
    console_for(sys.stdout).print(table)


def _shortened(content: str) -> str:
    text = one_line(content)
    return text if len(text) <= CONTENT_CHARACTERS_MAX else text[: CONTENT_CHARACTERS_MAX - 1] + "…"


def _bar(score: float) -> Any:
    from rich.text import Text

    full = round(max(0.0, min(1.0, score)) * BAR_CHARACTERS)
    bar = Text("█" * full, style="cyan")
    bar.append("░" * (BAR_CHARACTERS - full), style="dim")
    return bar.append(f" {score:.2f}", style="bold")
