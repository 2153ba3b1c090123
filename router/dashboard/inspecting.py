"""What a chat of this session did with memory, as JSON: what was injected, and what the vault has of it now.

Must never show a chat of another session, nor of a vault that the session may not see.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from models.errors import MemoryRouterError, NotFound
from models.memory import memory_id
from models.messages import Listed, ListMemories
from models.selection import MemoryFilter
from router.components import Components
from router.dashboard.chats import ChatWatch
from router.dashboard.sessions import Session
from router.public_ids import number_of, public_id

CHAT = "chat"
"""The question to other workers, with the session's number and the request's id behind it."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_]{1,100}")


async def inspected(components: Components, session: Session, request_id: str) -> dict[str, Any]:
    """One chat that this session had.

    Raises:
        NotFound: it had none of this id, or it is one of too long ago, or the vault changed since or is gone.
        Overloaded: the vault does not answer in time.
    """
    chats = components.dashboard.chats
    watch = chats.find(session.number, request_id)
    if watch is None:
        return await _inspected_elsewhere(components, session, request_id)
    try:
        await components.store.get_vault(session.account_number, watch.vault.number)
    except NotFound:
        chats.forget_vault(watch.vault)
        raise _unknown() from None
    return await _shown(components, watch, request_id)


async def _inspected_elsewhere(components: Components, session: Session, request_id: str) -> dict[str, Any]:
    """The same of a chat whose vault is another worker's."""
    if components.siblings is None or not _REQUEST_ID.fullmatch(request_id):
        raise _unknown()
    answers = await components.siblings.ask_all(f"{CHAT} {session.number} {request_id}")
    for answer in filter(None, answers.values()):
        shown: dict[str, Any] = msgspec.msgpack.decode(answer)
        try:
            await components.store.get_vault(session.account_number, number_of(shown["vault_id"], "vault"))
        except NotFound:
            raise _unknown() from None
        return shown
    raise _unknown()


async def told_chat(components: Components, asked: str) -> bytes:
    """What this worker knows of a chat, for the one in which the dashboard lives; b"" where that is nothing."""
    session, _, request_id = asked.partition(" ")
    watch = components.dashboard.chats.find(int(session), request_id)
    if watch is None:
        return b""
    try:
        return msgspec.msgpack.encode(await _shown(components, watch, request_id))
    except MemoryRouterError:
        return b""


async def _shown(components: Components, watch: ChatWatch, request_id: str) -> dict[str, Any]:
    """A chat as JSON. Who asks has seen, or sees to it, that the vault is one that the session may see."""
    stored = await _stored(components, watch) if watch.messages_max else []
    handed_over = watch.stored_status == "handed_over"
    return {
        "request_id": request_id,
        "vault_id": public_id("vault", watch.vault.number),
        "status": watch.status,
        "mode": watch.mode,
        "block": watch.block,
        "memory_ids": list(watch.memory_ids),
        "messages_stored": stored,
        "stored_status": ("stored" if stored else "nothing_new") if handed_over else watch.stored_status,
        "recall_ms": watch.recall_ms,
    }


async def _stored(components: Components, watch: ChatWatch) -> list[dict[str, Any]]:
    """What the vault holds of the request."""
    message = ListMemories(
        wanted=MemoryFilter(request_id=watch.stored_under), limit=watch.messages_max, descending=True, after=None
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
