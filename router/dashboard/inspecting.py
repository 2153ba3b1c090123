"""What a chat of this session did with memory, as JSON: what was injected, and what the vault has of it now.

Must never show a chat of another session, nor of a vault that the session may not see.
"""

from __future__ import annotations

from typing import Any

from models.errors import NotFound
from models.memory import memory_id
from models.messages import Listed, ListMemories
from models.selection import MemoryFilter
from router.components import Components
from router.dashboard.chats import ChatWatch
from router.dashboard.sessions import Session

REQUEST_ID_CHARACTERS_MAX = 100


async def inspected(components: Components, session: Session, request_id: str) -> dict[str, Any]:
    """One chat that this session had.

    Raises:
        NotFound: it had none of this id, or it is one of too long ago, or the vault changed since or is gone.
        Overloaded: the vault does not answer in time.
    """
    chats = components.dashboard.chats
    watch = chats.find(session.number, request_id[:REQUEST_ID_CHARACTERS_MAX])
    if watch is None:
        raise _unknown()
    try:
        await components.store.get_vault(session.account_number, watch.vault.number)
    except NotFound:
        chats.forget_vault(watch.vault)
        raise _unknown() from None
    stored = await _stored(components, watch, request_id) if watch.messages_max else []
    handed_over = watch.stored_status == "handed_over"
    return {
        "request_id": request_id,
        "vault_id": f"vault_{watch.vault.number}",
        "status": watch.status,
        "mode": watch.mode,
        "block": watch.block,
        "memory_ids": list(watch.memory_ids),
        "messages_stored": stored,
        "stored_status": ("stored" if stored else "nothing_new") if handed_over else watch.stored_status,
        "recall_ms": watch.recall_ms,
    }


async def _stored(components: Components, watch: ChatWatch, request_id: str) -> list[dict[str, Any]]:
    """What the vault holds of the request."""
    message = ListMemories(
        wanted=MemoryFilter(request_id=request_id), limit=watch.messages_max, descending=True, after=None
    )
    timeout_s = components.settings.vaults.ask_timeout_ms / 1000
    listed: Listed = await components.supervisor.ask(watch.vault, message, timeout_s=timeout_s)
    return [
        {"id": memory_id(memory), "role": memory.role, "content": memory.content}
        for memory in sorted(listed.memories, key=lambda memory: memory.seq)
    ]


def _unknown() -> NotFound:
    return NotFound(
        "This session had no such chat.", hint="The last chats are kept until the session ends or memories change."
    )
