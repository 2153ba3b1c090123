"""What a request wants of memory: one parser for headers, query and body, in all their historical spellings.

Reading and storing are upper bounds: the strictest of suffix, header, query and body wins. For everything else the body
wins over the query, and the query over the header (contract 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Literal

import msgspec

from models.embedder_settings import EmbeddersSettings
from models.errors import InvalidRequest
from models.ids import Access, parse_session_id
from models.memory import Role
from models.memory_settings import RecallSettings
from models.messages import Scope
from models.settings import Settings
from models.times import parse_time_zone
from router.bodies import replace_surrogates
from router.request_values import whole_number

CHUNKS_MAX = 1000
"""More chunks than this never fit a context; the same bound as a search's `limit`."""

CONTEXT_TOKENS_MAX = 10_000_000
"""The same bound as that of `recall.context_tokens_max`."""

_MODES = {
    "on": Access(), "all": Access(), "auto": Access(), "default": Access(), "true": Access(),
    "read": Access(write=False), "selective": Access(write=False),
    "write": Access(read=False),
    "off": Access(read=False, write=False), "none": Access(read=False, write=False),
    "false": Access(read=False, write=False),
}  # fmt: skip
_FLAGS = {
    "true": True,
    "1": True,
    "on": True,
    "yes": True,
    "false": False,
    "0": False,
    "off": False,
    "no": False,
}
Injection = Literal["tail", "system"]


class MemoryOptions(msgspec.Struct, frozen=True):
    """A request's wishes, resolved against its key and the settings.

    Attributes:
        access: whether to recall and whether to store at all.
        store_input, store_response: which sides of the exchange to store.
        chunks_max: how many chunks a context may have.
        context_tokens_max: how many tokens it may have, within what the settings allow; 0 for no wish.
        embedder: the name of the embedder that the request asks for, or None.
    """

    access: Access
    store_input: bool
    store_response: bool
    session_id: str | None
    scope: Scope
    chunks_max: int
    injection: Injection
    time_zone: tzinfo
    context_tokens_max: int = 0
    embedder: str | None = None

    @property
    def stores(self) -> bool:
        """Whether anything of the exchange is to be stored."""
        return self.access.write and (self.store_input or self.store_response)

    def stores_role(self, role: Role) -> bool:
        """Whether what this side says is to be stored."""
        return self.access.write and (self.store_input if role == "user" else self.store_response)


def resolve_options(
    *,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    body: Mapping[str, Any],
    bound: Access,
    settings: Settings,
) -> MemoryOptions:
    """Read every option of a request.

    Raises:
        InvalidRequest: an option has a wrong type or an unknown value; the message names it.
    """
    access = bound & _mode(headers.get("x-memory-mode"), "X-Memory-Mode")
    access &= _mode(query.get("mode"), "mode") & _mode(query.get("memory"), "memory")
    access &= _mode(body.get("memory_mode"), "memory_mode") & _mode(body.get("memory"), "memory")
    session_id = parse_session_id(replace_surrogates(body.get("session_id")))
    session_id = session_id or parse_session_id(headers.get("x-session-id"))
    store_both = _flag(body.get("memory_store"), "memory_store")
    return MemoryOptions(
        access=access,
        store_input=store_both
        and _flag(body.get("store_input"), "store_input")
        and _flag(query.get("store"), "store")
        and _header_flags(headers, "X-Memory-Store", "X-Store-Input"),
        store_response=store_both
        and _flag(body.get("memory_store_response"), "memory_store_response")
        and _flag(body.get("store_response"), "store_response")
        and _flag(query.get("store_response"), "store_response")
        and _header_flags(headers, "X-Memory-Store-Response", "X-Store-Response"),
        session_id=session_id,
        scope=_scope(session_id, headers, settings),
        chunks_max=_chunks_max(headers, query, body, settings.recall),
        injection=_injection(headers.get("x-memory-injection"), settings.proxy.injection),
        time_zone=_time_zone(headers.get("x-timezone") or settings.recall.time_zone),
        context_tokens_max=whole_number(
            headers.get("x-memory-max-tokens") or 0, "X-Memory-Max-Tokens", 0, CONTEXT_TOKENS_MAX
        ),
        embedder=_embedder(headers, body, settings.embedders),
    )


def _embedder(headers: Mapping[str, str], body: Mapping[str, Any], embedders: EmbeddersSettings) -> str | None:
    """The configured name of the embedder that a request names, whatever its case; a body wins over a header.

    Clients of the hosted product may name a model of its. Where a server has one embedder there is nothing to choose,
    so that changes nothing, and the answer's `X-Embedding-Model` says what was used; where it has several, it is an
    error.
    """
    name, field = body.get("embeddings"), "embeddings"
    if name is None or name == "":
        name, field = headers.get("x-embedding-model"), "X-Embedding-Model"
    if name is None or name == "":
        return None
    found = embedders.find(name.strip()) if isinstance(name, str) else None
    if found is None and isinstance(name, str) and len(embedders.by_name) == 1:
        return None
    if found is None:
        configured = ", ".join(embedders.by_name)
        raise InvalidRequest(f"{field} must be one of this server's embedding models: {configured}.", field=field)
    return found


def _mode(value: Any, name: str) -> Access:
    if value is None or value == "":
        return Access()
    if isinstance(value, bool):
        return _MODES["on" if value else "off"]
    access = _MODES.get(value.strip().lower()) if isinstance(value, str) else None
    if access is None:
        raise InvalidRequest(f"{name} must be on, off, read or write.", field=name)
    return access


def _flag(value: Any, name: str) -> bool:
    """A switch that is on unless somebody turned it off."""
    if value is None or value == "":
        return True
    if isinstance(value, bool):
        return value
    flag = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    if flag is None:
        raise InvalidRequest(f"{name} must be true or false.", field=name)
    return flag


def _header_flags(headers: Mapping[str, str], *names: str) -> bool:
    return all(_flag(headers.get(name.lower()), name) for name in names)


def _scope(session_id: str | None, headers: Mapping[str, str], settings: Settings) -> Scope:
    wanted = (headers.get("x-session-scope") or "session").strip().lower()
    if wanted not in ("session", "vault"):
        raise InvalidRequest("X-Session-Scope must be session or vault.", field="X-Session-Scope")
    strict = settings.sessions.isolation == "strict"
    return Scope(
        session_id=session_id,
        whole_vault=wanted == "vault" and session_id is not None,
        sessionless_only=strict and session_id is None,
    )


def _chunks_max(
    headers: Mapping[str, str], query: Mapping[str, str], body: Mapping[str, Any], recall: RecallSettings
) -> int:
    explicit = {
        "context_limit": body.get("context_limit"),
        "memory_limit": body.get("memory_limit"),
        "limit": query.get("limit"),
        "X-Memory-Context-Limit": headers.get("x-memory-context-limit"),
        "X-Context-Limit": headers.get("x-context-limit"),
    }
    densities = {
        "low": recall.chunks_low, "default": recall.chunks_default,
        "high": recall.chunks_high, "xhigh": recall.chunks_xhigh,
    }  # fmt: skip
    density = body.get("density")
    density = (headers.get("x-memory-density") or None) if density is None else density
    if density is not None and (not isinstance(density, str) or density not in densities):
        raise InvalidRequest(f"density must be one of {', '.join(densities)}.", field="density")
    limits = [whole_number(value, name, 0, CHUNKS_MAX) for name, value in explicit.items() if value not in (None, "")]
    return limits[0] if limits else densities[density or "default"]


def _time_zone(name: str) -> tzinfo:
    try:
        return parse_time_zone(name)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, field="X-Timezone", hint=error.hint) from None


def _injection(value: str | None, default: Injection) -> Injection:
    match (value or default).strip().lower():
        case "tail":
            return "tail"
        case "system":
            return "system"
        case _:
            raise InvalidRequest("X-Memory-Injection must be tail or system.", field="X-Memory-Injection")
