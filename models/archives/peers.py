"""Memories of mem0 and Zep, as their interfaces return them.

Facts of the formats:

* mem0: `get_all` and an export answer objects with `id`, `memory`, `metadata`, `created_at` and `updated_at`
  (mem0ai/mem0, mem0/configs/base.py, `MemoryItem`), with `user_id`, `agent_id` and `run_id` beside them
  (mem0/memory/main.py); they stand in a list or under `results`
  (docs.mem0.ai/cookbooks/essentials/exporting-memories).
* Zep: the messages of a session are under `messages`, with `uuid`, `content`, `role_type` (norole, system, assistant,
  user, function, tool), `role` (a name) and `created_at`
  (help.getzep.com/v2/sdk-reference/memory/get-session-messages); its facts under `facts`, with `uuid`, `content`
  (before: `fact`), `created_at`, `valid_at`, `invalid_at` and `expired_at`
  (help.getzep.com/v2/sdk-reference/deprecated/memory/get-session-facts). Edges of a graph are read as facts and
  episodes as messages, under `edges` and `episodes`.
"""

from __future__ import annotations

from models.archives.entries import (
    Conversation,
    Entries,
    Item,
    Object,
    Passed,
    name_within,
    objects_in,
    text_of,
    time_ms,
    upload_line,
)

MEM0 = "mem0"
ZEP = "zep"
_ZEP_ROLES = {"user": "user", "assistant": "assistant", "norole": "user"}
_ZEP_LISTS = ("messages", "episodes", "facts", "edges")


def is_mem0(value: Object) -> bool:
    """Whether this is a memory of mem0, or a page of them."""
    return isinstance(value.get("memory"), str) or isinstance(value.get("results"), list)


def read_mem0(value: Object, place: str) -> Entries:
    """Each memory as a user's statement. A run becomes a session."""
    listed = objects_in(value.get("results")) if "results" in value else [value]
    for memory in listed:
        content = text_of(memory.get("memory")).strip()
        if not content:
            yield Passed("empty", place)
            continue
        own = memory.get("metadata")
        fields = upload_line(
            "assistant" if memory.get("role") == "assistant" else "user",
            content,
            timestamp_ms=time_ms(memory.get("created_at")) or time_ms(memory.get("updated_at")),
            session_id=name_within(MEM0, memory.get("run_id")),
            external_id=name_within(MEM0, memory.get("id")),
            source=MEM0,
            categories=memory.get("categories") or None,
            metadata=own if isinstance(own, dict) and own else None,
        )
        yield Item(fields, place, owner=text_of(memory.get("user_id")) or None)


def is_zep(value: Object) -> bool:
    """Whether this is something of Zep: a page of messages, episodes, facts or edges, or one of them."""
    if any(isinstance(value.get(name), list) for name in _ZEP_LISTS[1:]):
        return True
    if any("role_type" in message for message in objects_in(value.get("messages"))):
        return True
    return isinstance(value.get("fact"), str) or ("role_type" in value and "content" in value)


def read_zep(value: Object, place: str) -> Entries:
    """Messages as what was said, facts as a user's statements. A session or thread becomes a session."""
    owner = text_of(value.get("user_id")) or None
    session = name_within(ZEP, value.get("session_id") or value.get("thread_id"))
    pages = [name for name in _ZEP_LISTS if isinstance(value.get(name), list)]
    if "messages" in pages or "episodes" in pages:
        yield Conversation(place)
    for name in pages:
        for listed in objects_in(value[name]):
            yield from _zep_entry(listed, place, owner, session)
    if not pages:
        yield from _zep_entry(value, place, owner, session)


def _zep_entry(value: Object, place: str, owner: str | None, session: str | None) -> Entries:
    is_fact = "role_type" not in value
    role = "user" if is_fact else _ZEP_ROLES.get(text_of(value.get("role_type")))
    content = (text_of(value.get("content")) or text_of(value.get("fact"))).strip()
    if role is None:
        yield Passed("system" if value.get("role_type") == "system" else "tool", place)
    elif not content:
        yield Passed("empty", place)
    elif is_fact and (value.get("invalid_at") or value.get("expired_at")):
        yield Passed("outdated", place)
    else:
        fields = upload_line(
            role,
            content,
            timestamp_ms=time_ms(value.get("valid_at")) or time_ms(value.get("created_at")),
            session_id=name_within(ZEP, value.get("session_id") or value.get("thread_id")) or session,
            external_id=name_within(ZEP, value.get("uuid")),
            source=ZEP,
        )
        yield Item(fields, place, owner=text_of(value.get("user_id")) or owner)
