"""How what a request brings gets into its vault's log: room under the quota, a place in the inbox, whose key it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from actors.inbox_lag import weigh
from actors.pin import Receipt
from models.ids import Principal
from models.memory import Exchange, charged_to
from router.components import Components

COMMIT_TIMEOUT_S = 30.0
"""For what a route stores, changes or deletes to be durable."""


@asynccontextmanager
async def hand_over(
    components: Components, principal: Principal, exchanges: Sequence[Exchange], *, wait_room_s: float = 0.0
) -> AsyncIterator[Receipt]:
    """Hand exchanges of one source to the caller's vault. Room for them is held until the block ends: wait within it.

    Args:
        exchanges: at least one.
        wait_room_s: how long to wait for room in the vault's inbox.

    Raises:
        QuotaExceeded: the vault may not hold so many memories.
        Overloaded, DeadlineExceeded, VaultQuarantined, ShuttingDown: no place now.
        StorageFull, StoreUnavailable: they cannot be written.
    """
    first = exchanges[0]
    messages = [message for exchange in exchanges for message in exchange.messages]
    room = await components.quota.reserve(principal, messages, source=first.source, now_ms=first.accepted_ms)
    with room, await components.supervisor.pin(principal.vault, weigh(exchanges), wait_room_s=wait_room_s) as pin:
        yield pin.submit([charged_to(principal, exchange) for exchange in exchanges])
