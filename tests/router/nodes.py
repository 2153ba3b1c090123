"""Several servers on one PostgreSQL database, in one loop: what tests of a cluster over HTTP have in common."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import trio

from models.cluster_settings import ClusterSettings
from models.provider_settings import Secret
from models.settings import Settings, StoreSettings
from tests.patience import PATIENCE_S
from tests.running import Client, open_server, settings_for

PARTS = 8
SERVER_KEY = Secret(base64.b64encode(b"k" * 32).decode())


def node_settings(url: str, name: str, *, ttl_s: float = 4.0, **sections: Any) -> Settings:
    """Of a node on this database. Its name is given, so that placement is always the same."""
    store = StoreSettings(kind="postgres", url=Secret(url), parts=PARTS, server_key=SERVER_KEY)
    return settings_for(store=store, cluster=ClusterSettings(node_id=name, ttl_s=ttl_s), **sections)


@asynccontextmanager
async def open_node(
    folder: Path, name: str, url: str, *, key: str | None = None, **sections: Any
) -> AsyncIterator[Client]:
    """One node; the first of a database makes the account.

    Args:
        key: the account key, for all nodes but the first.
    """
    data_dir = folder / name
    if key is not None:
        await trio.Path(data_dir.with_suffix(".account-key")).write_text(key)
    async with open_server(data_dir, node_settings(url, name, **sections)) as client:
        yield client


@asynccontextmanager
async def open_nodes(folder: Path, url: str, *names: str, **sections: Any) -> AsyncIterator[list[Client]]:
    """Several nodes, as the holder of the account key sees each; with every partition where placement wants it."""
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for name in names:
            key = clients[0].key if clients else None
            clients.append(await stack.enter_async_context(open_node(folder, name, url, key=key, **sections)))
        await wait_spread(url, len(names))
        yield clients


async def wait_spread(url: str, nodes: int) -> None:
    """Wait until each partition has an owner, and each of so many nodes some."""
    with trio.fail_after(PATIENCE_S):
        while True:
            found = await trio.to_thread.run_sync(owners, url)
            if None not in found and len(set(found)) == nodes:
                return


def owners(url: str) -> list[str | None]:
    """Who owns each partition."""
    with psycopg.connect(url) as connection:
        return [owner for (owner,) in connection.execute("SELECT owner FROM part ORDER BY part").fetchall()]


def at(node: Client, user: Client) -> Client:
    """The same user, asking another node."""
    return Client(node.http, user.key)


async def users(client: Client, count: int) -> list[Client]:
    """So many users, whose vaults are in as many partitions."""
    return [await client.other(f"user {number}") for number in range(count)]
