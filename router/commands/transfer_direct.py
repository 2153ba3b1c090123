"""An export or import straight out of or into a data directory that no server uses.

Owns the short life of the store and of the vaults. Must never touch a directory that a server uses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from actors.store.connections import one_row, open_reader
from actors.store.data_directory import META_FILE
from actors.store.sqlite import SqliteStore, open_store
from actors.supervisor import Supervisor, open_supervisor
from models.errors import Forbidden, NotFound, SetupError, Unauthenticated
from models.ids import VaultNumber, VaultRef, parse_key
from models.settings import Settings
from router.admin_socket import SOCKET_NAME, call_admin
from router.commands.options import Progress, server_key_file
from router.commands.transfer_files import ExportFile, Selection
from router.components import wall_clock_ms
from router.embedding_models import open_configured_embedders
from router.exporting import import_messages, open_export, parse_export
from router.service import vault_limits

PAGE_TIMEOUT_S = 600.0
REQUEST_ID = "memoryrouter-import"


class _House(msgspec.Struct, frozen=True):
    """What of a server is needed to move memories."""

    store: SqliteStore
    supervisor: Supervisor


async def export_from_directory(
    file: ExportFile,
    settings: Settings,
    data_dir: Path,
    key: str | None,
    vault_number: int | None,
    selection: Selection,
    progress: Progress,
) -> None:
    """Export from a data directory that no server uses.

    Raises:
        SetupError: there is none, or a server uses it.
        Unauthenticated, Forbidden, NotFound: the key or the number opens no vault.
    """
    async with _open_house(settings, data_dir) as house:
        if vault_number is not None:
            vault = await trio.to_thread.run_sync(_find_vault, data_dir, vault_number)
        else:
            vault = await _vault_of_key(house.store, key or "", exports=True)
        stream = await open_export(
            house.supervisor,
            vault,
            now_ms=wall_clock_ms(),
            after_seq=max(selection.after, file.last_seq),
            session_id=selection.session_id,
            vectors=selection.vectors,
            timeout_s=PAGE_TIMEOUT_S,
        )
        async for piece in stream:
            file.feed(piece)
            progress.show(file.count, file.total)


async def import_into_directory(
    bodies: Iterator[tuple[int, bytes]],
    total: int,
    settings: Settings,
    data_dir: Path,
    key: str,
    progress: Progress,
) -> tuple[int, int]:
    """Import into a data directory that no server uses; the sums of what was stored and what was known.

    Raises:
        SetupError: there is none, or a server uses it.
        Unauthenticated, Forbidden: the key opens no vault, or may not write.
    """
    stored = duplicates = done = 0
    async with _open_house(settings, data_dir) as house:
        vault = await _vault_of_key(house.store, key, exports=False)
        for count, body in bodies:
            messages = parse_export(body, limits=settings.memory)
            applied = await import_messages(
                house.supervisor, vault, messages, now_ms=wall_clock_ms(), request_id=REQUEST_ID
            )
            stored, duplicates, done = stored + applied.stored, duplicates + applied.duplicates, done + count
            progress.show(done, total)
    return stored, duplicates


@asynccontextmanager
async def _open_house(settings: Settings, data_dir: Path) -> AsyncIterator[_House]:
    if not await trio.Path(data_dir / META_FILE).is_file():
        raise SetupError(f"there is no data directory {data_dir}; name it by --data-dir, or a server by --url.")
    if await call_admin(data_dir / SOCKET_NAME, "ping", {}) is not None:
        raise SetupError(
            f"a server uses the data directory {data_dir}.",
            hint="Go through it: give its address by --url, and the vault by --key.",
        )
    async with (
        open_store(data_dir, settings=settings.store, server_key_file=server_key_file(settings)) as store,
        open_configured_embedders(settings, data_dir) as embedders,
        open_supervisor(
            store,
            embedders,
            settings.vaults,
            vault_limits(settings),
            drain_timeout_s=settings.server.drain_timeout_s,
        ) as supervisor,
    ):
        yield _House(store=store, supervisor=supervisor)


async def _vault_of_key(store: SqliteStore, key: str, *, exports: bool) -> VaultRef:
    credential = parse_key(key)
    if credential.suffixed if exports else not credential.access.write:
        raise Forbidden("A key with this suffix may not do this.", hint="Give the key without its suffix.")
    principal = await store.find_key(credential.key_hash)
    if principal is None:
        raise Unauthenticated("Invalid or inactive memory key.", hint="Check the key; it may have been revoked.")
    return principal.vault


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    connection = open_reader(path)
    try:
        yield connection
    finally:
        connection.close(True)


def _find_vault(data_dir: Path, number: int) -> VaultRef:
    with _reading(data_dir / META_FILE) as meta:
        row = one_row(meta, "SELECT shard FROM vault WHERE number = ? AND state = 0", (number,))
    if row is None:
        raise NotFound(f"There is no vault {number}.")
    return VaultRef(number=VaultNumber(number), shard=row[0])
