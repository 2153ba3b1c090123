"""What a request did to memories, for the audit log: how many, of which vault, by whom. Never content."""

from __future__ import annotations

import logging

from models.accounts import Actor
from models.errors import MemoryRouterError
from router.auth import Caller
from router.components import Components
from router.observe import log_event
from router.request_ids import current_request_id


def actor_of(caller: Caller) -> Actor:
    """The caller of the current request, as the audit log names it."""
    principal = caller.principal
    return Actor(f"key:{principal.key_number}", principal.account_number, current_request_id())


async def audit_memories(components: Components, caller: Caller, action: str, **detail: str | int | None) -> None:
    """Note what was done. It is done: a log that cannot be written now does not make an error of it."""
    principal = caller.principal
    try:
        await components.store.audit(
            at_ms=components.now_ms(),
            account_number=principal.account_number,
            action=action,
            target=f"vault:{principal.vault.number}",
            by=actor_of(caller),
            detail=detail,
        )
    except MemoryRouterError as error:
        log_event("not_audited", level=logging.ERROR, action=action, vault=principal.vault.number, code=error.code)
