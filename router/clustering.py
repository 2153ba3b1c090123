"""On PostgreSQL: this node's place among the servers on the same database.

One server on PostgreSQL is a cluster of one: there is no other way to own a partition. Owns the order: the store first,
which owns nothing yet; then the vaults; then the cluster, whose partitions they are, so that it is left before them.
Must never import PostgreSQL's driver where the store is SQLite.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from actors.store.protocol import Store
from actors.supervisor import Supervisor
from models.errors import MemoryRouterError, SetupError
from models.ids import VaultRef
from models.settings import Settings
from router.configured_store import LateOwnership
from router.forwarding import Forwarder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.cluster.cluster import Cluster
    from actors.store.postgres.store import PostgresStore

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class Member:
    """This node in its cluster.

    Attributes:
        cluster: who owns what.
        forwarder: the way to the other nodes.
    """

    __slots__ = ("cluster", "forwarder")

    def __init__(self, cluster: Cluster, forwarder: Forwarder) -> None:
        self.cluster = cluster
        self.forwarder = forwarder


@asynccontextmanager
async def open_member(
    settings: Settings,
    data_dir: Path,
    *,
    address: str,
    store: Store,
    ownership: LateOwnership,
    supervisor: Supervisor,
    retire: Callable[[VaultRef], Awaitable[None]],
) -> AsyncIterator[Member | None]:
    """Join the cluster for the length of the block; None where the store is SQLite, which has one server.

    Args:
        address: `host:port` at which this server listens.
        retire: takes a vault out of memory that another node has shredded.

    Raises:
        SetupError: the settings do not fit, or another living node has this name.
        StoreUnavailable: the database does not answer.
    """
    if settings.store.kind == "sqlite":
        yield None
        return
    from msgspec.structs import replace

    from actors.cluster.cluster import open_cluster

    postgres: PostgresStore = store  # type: ignore[assignment]  # by the kind
    node = replace(settings.cluster, address=settings.cluster.address or _reachable(address))
    new = NewParts()
    async with trio.open_nursery() as beside:

        def shredded(vault: VaultRef) -> None:
            beside.start_soon(_retire, retire, vault)

        async with open_cluster(
            settings.store.url.reveal(),
            node,
            data_dir=data_dir,
            parts=postgres.parts,
            released=supervisor.release_part,
            acquired=new.add,
            lost=supervisor.drop_part_nowait,
        ) as cluster:
            ownership.join(cluster.ownership)
            postgres.call_on_shredded(shredded)
            beside.start_soon(_go_on, postgres, supervisor, new)
            scheme = "https" if settings.server.tls_certificate_file else "http"
            forwarder = Forwarder(cluster, token=postgres.node_token, scheme=scheme, tls=ssl.create_default_context())
            beside.start_soon(forwarder.watch)
            try:
                yield Member(cluster, forwarder)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await forwarder.aclose()
        beside.cancel_scope.cancel(reason="the node has left")


def _reachable(address: str) -> str:
    """The address that others are told, if they can be told the one that is listened at.

    Raises:
        SetupError: it means every interface.
    """
    host = address.rpartition(":")[0]
    if host in ("0.0.0.0", "[::]", ""):
        raise SetupError("cluster.address must say where the other nodes reach this one: server.host names no machine.")
    return address


class NewParts:
    """Partitions that have just come to this node, and are to be looked through."""

    def __init__(self) -> None:
        self._parts: set[int] = set()
        self._some = trio.Event()

    def add(self, part: int, epoch: int) -> None:
        """One more."""
        self._parts.add(part)
        self._some.set()

    async def take(self) -> set[int]:
        """All that have come, as soon as there is one."""
        await self._some.wait()
        self._some = trio.Event()
        parts, self._parts = self._parts, set()
        return parts


async def _go_on(store: PostgresStore, supervisor: Supervisor, new: NewParts) -> None:
    """Go on with what the earlier owners of partitions have left, until cancelled."""
    while True:
        parts = await new.take()
        try:
            await store.resume_purges(parts)
            await supervisor.resume(parts)
        except MemoryRouterError as error:  # the vaults do it when they are asked for
            logger.warning("parts_not_resumed", extra={"parts": len(parts), "code": error.code})


async def _retire(retire: Callable[[VaultRef], Awaitable[None]], vault: VaultRef) -> None:
    try:
        await retire(vault)
    except MemoryRouterError as error:
        logger.error("vault_not_retired", extra={"vault": vault.number, "code": error.code})
