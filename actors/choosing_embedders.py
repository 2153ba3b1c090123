"""Which embedder a vault uses, for those who ask it something, and how it gets another one.

Owns the order of a change: the store first, then the vault. Must never embed anything.
"""

from __future__ import annotations

import logging

from actors.embedder import Embedder
from actors.supervisor import Supervisor
from models.ids import VaultRef
from models.messages import Barrier, Rehydrate

logger = logging.getLogger(__name__)


async def embedder_of(supervisor: Supervisor, vault: VaultRef) -> Embedder:
    """The embedder of a vault.

    Raises:
        StoreUnavailable: what the vault remembers cannot be read.
    """
    known = supervisor.embedder_nowait(vault)
    return known or await supervisor.embedders.of_vault(supervisor.current(vault), supervisor.store)


async def choose_embedder(
    supervisor: Supervisor, vault: VaultRef, name: str, *, timeout_s: float, only_new: bool = False
) -> Embedder:
    """Let a vault use this embedder from now on, and return the one that it uses.

    When this returns the choice is durable and the vault uses it. Its memories are embedded anew in the background;
    until then words find those that have no vectors of the new model.

    Args:
        name: of a configured embedder; any other changes nothing.
        only_new: leave a vault alone that has memories, or for which somebody chose before.

    Raises:
        StorageFull, StoreUnavailable, NotFound: nothing was changed.
        DeadlineExceeded, Overloaded: chosen, but the vault goes on with the one it had for a while.
    """
    wanted, present = supervisor.embedders.find(name), await embedder_of(supervisor, vault)
    if wanted is None or wanted is present:
        return present
    vault = supervisor.current(vault)
    if only_new and await supervisor.store.remembered_embedder(vault) is not None:
        return present
    await supervisor.store.choose_embedder(vault, name)
    logger.info("vault_changes_embedder", extra={"vault": vault.number, "before": present.name, "after": name})
    await supervisor.ask(vault, Rehydrate(), timeout_s=timeout_s)
    await supervisor.ask(vault, Barrier(), timeout_s=timeout_s)  # the next incarnation answers
    return wanted
