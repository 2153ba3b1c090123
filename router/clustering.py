"""This process's place among others: the nodes on one PostgreSQL database, or the workers on one data directory.

One server on PostgreSQL is a cluster of one: there is no other way to own a partition. Owns the order: the store first,
which owns nothing yet; then the vaults; then the cluster, whose partitions they are, so that it is left before them.
Must never import PostgreSQL's driver where the store is SQLite.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from actors.cluster.workers import WorkerOwnership
from actors.store.protocol import Store
from actors.supervisor import Supervisor
from models.errors import MemoryRouterError, SetupError
from models.ids import VaultRef
from models.provider_settings import Secret
from models.settings import Settings
from router.configured_store import LateOwnership
from router.forwarding import Forwarder
from router.new_parts import NewParts, go_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from actors.cluster.cluster import Cluster
    from router.worker import Worker

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class SharedStore(Protocol):
    """What of a store that several processes use is needed here."""

    @property
    def parts(self) -> int:
        """How many partitions, or shards, it has."""

    @property
    def node_token(self) -> Secret:
        """What its processes know each other by."""

    def call_on_shredded(self, callback: Callable[[VaultRef], None]) -> None:
        """Whom to tell that another one has shredded a vault."""

    async def resume_purges(self, parts: Collection[int] | None = None) -> None:
        """Go on with the removal of shredded vaults."""


class Member:
    """This process among the others.

    Attributes:
        cluster: who owns what, on PostgreSQL.
        forwarder: the way to the others.
        parts: how many partitions there are in all.
    """

    __slots__ = ("cluster", "forwarder", "parts")

    def __init__(self, cluster: Cluster | None, forwarder: Forwarder, parts: int) -> None:
        self.cluster = cluster
        self.forwarder = forwarder
        self.parts = parts


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
    worker: Worker | None = None,
) -> AsyncIterator[Member | None]:
    """Join the others for the length of the block; None where the store is SQLite and this is its only process.

    Args:
        address: `host:port` at which this server listens.
        retire: takes a vault out of memory that another one has shredded.
        worker: which of several on SQLite this is.

    Raises:
        SetupError: the settings do not fit, or another living node has this name.
        StoreUnavailable: the database does not answer.
    """
    if settings.store.kind == "sqlite" and worker is None:
        yield None
        return
    shared: SharedStore = store  # type: ignore[assignment]  # by the kind
    new = NewParts()
    async with trio.open_nursery() as beside:

        def shredded(vault: VaultRef) -> None:
            beside.start_soon(_retire, retire, vault)

        if worker is None:
            joining = _among_nodes(settings, data_dir, address, shared, ownership, supervisor, new)
        else:
            joining = _among_workers(worker, data_dir, shared, ownership, new)
        async with joining as member:
            shared.call_on_shredded(shredded)
            beside.start_soon(partial(go_on, shared, supervisor, new, check_owned=ownership.epoch_nowait))
            beside.start_soon(member.forwarder.watch)
            try:
                yield member
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await member.forwarder.aclose()
        beside.cancel_scope.cancel(reason="the node has left")


@asynccontextmanager
async def _among_nodes(
    settings: Settings,
    data_dir: Path,
    address: str,
    store: SharedStore,
    ownership: LateOwnership,
    supervisor: Supervisor,
    new: NewParts,
) -> AsyncIterator[Member]:
    """A node of the cluster on a database."""
    from msgspec.structs import replace

    from actors.cluster.cluster import open_cluster
    from actors.store.postgres.schema import refuse_newer

    node = replace(settings.cluster, address=settings.cluster.address or _reachable(address))
    async with open_cluster(
        settings.store.url.reveal(),
        node,
        data_dir=data_dir,
        parts=store.parts,
        released=supervisor.release_part,
        acquired=new.add,
        lost=supervisor.drop_part_nowait,
        check_schema=refuse_newer,
    ) as cluster:
        ownership.join(cluster.ownership)
        scheme = "https" if settings.server.tls_certificate_file else "http"
        forwarder = Forwarder(cluster, token=store.node_token, scheme=scheme, tls=ssl.create_default_context())
        yield Member(cluster, forwarder, store.parts)


@asynccontextmanager
async def _among_workers(
    worker: Worker, data_dir: Path, store: SharedStore, ownership: LateOwnership, new: NewParts
) -> AsyncIterator[Member]:
    """One of several workers: what it owns is its own from the beginning to the end."""
    workers = WorkerOwnership(worker.share, store.parts, address_of=worker.address_of, alive=worker.alive)
    ownership.join(workers)
    new.add_again([part for part in range(store.parts) if worker.share.owns(part)])
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody listens in on a Unix socket
    forwarder = Forwarder(workers, token=store.node_token, scheme="http", tls=unused, sockets=data_dir)
    yield Member(None, forwarder, store.parts)


def _reachable(address: str) -> str:
    """The address that others are told, if they can be told the one that is listened at.

    Raises:
        SetupError: it means every interface.
    """
    host = address.rpartition(":")[0]
    if host in ("0.0.0.0", "[::]", ""):
        raise SetupError("cluster.address must say where the other nodes reach this one: server.host names no machine.")
    return address


async def _retire(retire: Callable[[VaultRef], Awaitable[None]], vault: VaultRef) -> None:
    try:
        await retire(vault)
    except MemoryRouterError as error:
        logger.error("vault_not_retired", extra={"vault": vault.number, "code": error.code})
