"""`memoryrouter status`: whether a server runs, is ready, and what it holds.

Owns the exit code that scripts ask for: 0 only while requests are served. Through the admin socket of the data
directory it knows all accounts; over HTTP it knows what the key may see. Heavy imports happen inside the functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.administering import administer_list, administer_list_of_accounts
from router.commands.connecting import KEY, URL, base_url, in_words, json_of, open_client, server_of
from router.commands.options import CONFIG, DATA_DIR, EXIT_FAULT, JSON
from router.commands.terminal import print_fields, print_json

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0

Body = dict[str, Any]


@click.command(short_help="Say whether a server is ready, and what it holds.")
@URL
@KEY
@CONFIG
@DATA_DIR
@JSON
@click.pass_context
def status(
    context: click.Context,
    url: str | None,
    key: str | None,
    config: Path | None,
    data_dir: Path,
    *,
    as_json: bool,
) -> None:
    """Say whether a server runs and is ready, its version, and how much it holds.

    Without --url this is the server of the data directory, with all its accounts. With --url, and a key, it is one
    vault. Exit code 0: requests are served. 1: no server runs, or it is not ready.
    """
    if url:
        found = _served(url) | (_vault(url, key) if key else {})
    else:
        own = server_of(data_dir)
        held = _held(config, data_dir)  # fails where there is no data directory
        found = ({"state": "stopped"} if own is None else _served(own)) | held
    if as_json:
        print_json(found)
    else:
        print_fields(found)
    context.exit(0 if found["state"] == "ready" else EXIT_FAULT)


def _served(url: str) -> Body:
    """What the server at this address says of itself to everybody."""
    with open_client(url, None, timeout_s=TIMEOUT_S) as client, in_words(url):
        health = json_of(client.get("/health"))
        answer = client.get("/readyz")
        ready = answer.status_code == 200
        missing = {} if ready else _missing(answer)
    return {
        "state": "ready" if ready else "not ready",
        **({"missing": missing} if missing else {}),
        "url": base_url(url),
        "version": health.get("version"),
    }


def _missing(answer: httpx.Response) -> Body:
    """Which parts are not ready; nothing where a proxy answers in the server's place."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    missing = said.get("missing") if isinstance(said, dict) else None
    return missing if isinstance(missing, dict) else {}


def _vault(url: str, key: str) -> Body:
    with open_client(url, key, timeout_s=TIMEOUT_S) as client, in_words(url):
        stats = json_of(client.get("/v1/memory/stats"))
    return {name: stats.get(name) for name in ("key", "memories", "pending", "sessions", "newest")}


def _held(config: Path | None, data_dir: Path) -> Body:
    """What the data directory holds, in all accounts."""
    accounts = administer_list(config, data_dir, "accounts.list")
    vaults = administer_list_of_accounts(config, data_dir, "vaults.list")
    return {
        "data_dir": str(data_dir),
        "accounts": len(accounts),
        "keys": sum(account["live_keys"] for account in accounts),
        "vaults": len(vaults),
        "memories": sum(vault["memories"] for vault in vaults),
        "bytes": sum(vault["bytes"] for vault in vaults),
    }
