"""How what a request brings gets into its vault's log: room under the quota, a place in the inbox, whose key it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from actors.inbox_lag import weigh
from actors.pin import Receipt
from models.ids import Principal
from models.memory import Exchange, Message, charged_to
from models.messages import Applied
from router.components import Components
from router.spans import step
from router.uploads import ROOM_TIMEOUT_S, exchanges_of

COMMIT_TIMEOUT_S = 30.0
"""For what a route stores, changes or deletes to be durable."""

APPLY_TIMEOUT_S = 120.0
LOOK_TIMEOUT_S = 10.0
"""For a vault to say what it knows of a part of an upload; it may have to be loaded. Not to know makes an upload wait
for room that it does not need: minutes, if it is large."""


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


async def store_upload(
    components: Components, principal: Principal, messages: list[Message], *, request_id: str
) -> Applied:
    """Store an upload, and return what its vault made of it, once that is durable and findable by its words.

    What the vault knows is left out before room is waited for: it needs none. An upload that comes again, all of it or
    its first half, is then answered while what it brought the first time is still being embedded. The vault decides
    again about the rest; should something have been deleted meanwhile, about all of it.

    Raises:
        As `hand_over`, and DeadlineExceeded, VaultUnavailable: it may be durable, but its counts are not known.
    """
    now_ms = components.now_ms()
    vault, rememberer = principal.vault, components.rememberer
    fresh = await rememberer.fresh(vault, messages, source="upload", now_ms=now_ms, timeout_s=LOOK_TIMEOUT_S)
    applied = Applied(stored=0, duplicates=0, chunks=0)
    if fresh.messages:
        applied = await _stored(components, principal, fresh.messages, now_ms=now_ms, request_id=request_id)
    if not await rememberer.count_left_out(fresh, vault, timeout_s=LOOK_TIMEOUT_S):
        return await _stored(components, principal, messages, now_ms=now_ms, request_id=request_id)
    return msgspec.structs.replace(applied, duplicates=applied.duplicates + fresh.left_out)


async def _stored(
    components: Components, principal: Principal, messages: list[Message], *, now_ms: int, request_id: str
) -> Applied:
    exchanges = exchanges_of(messages, now_ms=now_ms, request_id=request_id)
    async with hand_over(components, principal, exchanges, wait_room_s=ROOM_TIMEOUT_S) as receipt:
        with step("commit"):
            return await receipt.wait_applied(timeout_s=APPLY_TIMEOUT_S)
