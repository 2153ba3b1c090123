"""Vaults of a data directory that no server uses, for a command that reads or fills one itself.

Owns the short life of the store and of the vaults, and who may open which. Must never touch a directory that a server
uses: a command goes through the server then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.store.connections import open_reader
from actors.store.data_directory import META_FILE
from actors.store.database import one_row
from actors.store.sqlite import SqliteStore, open_store
from actors.supervisor import Supervisor, open_supervisor
from models.errors import Forbidden, NotFound, SetupError, Unauthenticated
from models.ids import Credential, VaultNumber, VaultRef, parse_key
from models.settings import Settings
from router.admin_socket import SOCKET_NAME, call_admin
from router.configured_store import require_sqlite
from router.embedding_models import open_configured_embedders
from router.service import vault_limits


class House(msgspec.Struct, frozen=True):
    """What of a server is needed to work on vaults.

    Attributes:
        data_dir: where it all lies.
    """

    data_dir: Path
    store: SqliteStore
    supervisor: Supervisor

    async def vault_of_key(self, key: str) -> tuple[VaultRef, Credential]:
        """The vault that a key opens, and what the key says of itself.

        Raises:
            Unauthenticated: none.
        """
        credential = parse_key(key)
        principal = await self.store.find_key(credential.key_hash)
        if principal is None:
            raise Unauthenticated("Invalid or inactive memory key.", hint="Check the key; it may have been revoked.")
        return principal.vault, credential

    async def vault_of_number(self, number: int) -> VaultRef:
        """The live vault with this number: whoever can read the data directory may open each.

        Raises:
            NotFound: there is none.
        """
        return await trio.to_thread.run_sync(_find_vault, self.data_dir, number)


@asynccontextmanager
async def open_house(settings: Settings, data_dir: Path) -> AsyncIterator[House]:
    """A data directory that no server uses, with its vaults, for the length of the block.

    Raises:
        SetupError: there is none, or a server uses it.
    """
    require_sqlite(settings, "its servers have the vaults; name one by --url")
    if not await trio.Path(data_dir / META_FILE).is_file():
        raise SetupError(f"there is no data directory {data_dir}; name it by --data-dir, or a server by --url.")
    if await call_admin(data_dir / SOCKET_NAME, "ping", {}) is not None:
        raise SetupError(
            f"a server uses the data directory {data_dir}.",
            hint="Go through it: give the vault's key by --key, or better in MEMORYROUTER_API_KEY.",
        )
    async with (
        open_store(data_dir, settings=settings.store, server_key_file=settings.store.key_path) as store,
        open_configured_embedders(settings, data_dir) as embedders,
        open_supervisor(
            store,
            embedders,
            settings.vaults,
            vault_limits(settings),
            drain_timeout_s=settings.server.drain_timeout_s,
        ) as supervisor,
    ):
        yield House(data_dir=data_dir, store=store, supervisor=supervisor)


def refuse_suffix(credential: Credential) -> None:
    """For what a key may do only without its suffix.

    Raises:
        Forbidden: it has one.
    """
    if credential.suffixed:
        raise Forbidden("A key with this suffix may not do this.", hint="Give the key without its suffix.")


def require_write(credential: Credential) -> None:
    """For what needs a key that may write.

    Raises:
        Forbidden: its suffix says that it may not.
    """
    if not credential.access.write:
        raise Forbidden("A key with this suffix may not do this.", hint="Give the key without its suffix.")


def _find_vault(data_dir: Path, number: int) -> VaultRef:
    meta = open_reader(data_dir / META_FILE)
    try:
        row = one_row(meta, "SELECT shard FROM vault WHERE number = ? AND state = 0", (number,))
    finally:
        meta.close(True)
    if row is None:
        raise NotFound(f"There is no vault {number}.")
    return VaultRef(number=VaultNumber(number), shard=row[0])
