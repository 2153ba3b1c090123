"""What a request did to memories, for the audit log: how many, of which vault, by whom. Never content.

Owns that what is audited is done whole, and that what is done is audited.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from models.accounts import Actor
from models.errors import MemoryRouterError, StoreUnavailable
from router.auth import Caller
from router.components import Components
from router.observe import log_event
from router.request_ids import current_request_id

FINISH_TIMEOUT_S = 40.0
"""Above the 30 s that a vault has for one step, and what a commit may take then."""


@contextmanager
def to_the_end() -> Iterator[None]:
    """Whoever begins to delete or to change does it whole, with its line in the audit log, though the client leaves.

    Else one who sends a request and hangs up would delete unseen.

    Raises:
        StoreUnavailable: it took longer than anything may; how far it got is not known.
    """
    with trio.move_on_after(FINISH_TIMEOUT_S, shield=True) as finishing:
        yield
    if finishing.cancelled_caught:
        raise StoreUnavailable("This takes too long; some of it may be done.", hint="Ask again until it is confirmed.")


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
