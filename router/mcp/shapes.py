"""What the tools at `/mcp` take and give, as Structs: the schemas that clients are shown and the checks come from them.

Descriptions are written for models: they are all that a model knows of an argument. Must never hold a value that a
model cannot use.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from models.ids import SESSION_ID_CHARACTERS_MAX
from models.memory import Role

RESULTS_DEFAULT, RESULTS_MAX = 10, 250
"""The hosted product's bound (reference/contract.md 1.17)."""

DELETE_IDS_MAX = 100
SURROUNDING_DEFAULT, SURROUNDING_MAX = 3, 10
TAGS_MAX, TAG_CHARACTERS_MAX, SOURCE_CONTEXT_CHARACTERS_MAX = 20, 100, 2_000
DELETE_PHRASE = "DELETE ALL MEMORIES"

_SessionId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=SESSION_ID_CHARACTERS_MAX,
        description="Only this session (a conversation or project that memories were stored under). Leave it out for "
        "the whole memory.",
    ),
]
_TimeZone = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="The user's time zone, such as Europe/Berlin: for dates that you give and times that you get.",
    ),
]
_Limit = Annotated[int, Meta(ge=1, le=RESULTS_MAX, description="At most so many memories.")]
_MaxTokens = Annotated[
    int, Meta(ge=1, le=1_000_000, description="Stop before the memories have more tokens than this, all in all.")
]
_MemoryId = Annotated[str, Meta(pattern=r"^mem_[0-9]{1,10}$", description="Such as mem_7, from a search.")]
_Query = Annotated[
    str,
    Meta(
        pattern=r"\S",
        max_length=20_000,
        description="What to look for, as a question or a statement in plain words; meaning counts, not only words. "
        "Name people and things.",
    ),
]


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tool takes. What it does not know it refuses: a mistyped limit of a deletion must not pass as none."""


class SearchArguments(Arguments, frozen=True, kw_only=True):
    """Of search_memories."""

    query: _Query
    limit: _Limit = RESULTS_DEFAULT
    max_tokens: _MaxTokens | UnsetType = UNSET
    session_id: _SessionId | UnsetType = UNSET
    time_zone: _TimeZone | UnsetType = UNSET


class DateSearchArguments(Arguments, frozen=True, kw_only=True):
    """Of date_search_memories."""

    start_date: (
        Annotated[str, Meta(description="From here on: a date (2026-05-03, from its beginning) or a time (ISO 8601).")]
        | UnsetType
    ) = UNSET
    end_date: (
        Annotated[
            str, Meta(description="Until here: a date (2026-05-31, through its end) or a time (ISO 8601, before it).")
        ]
        | UnsetType
    ) = UNSET
    query: _Query | UnsetType = UNSET
    order: Annotated[
        Literal["newest", "oldest"], Meta(description="Which come first; without a query, which ranks by relevance.")
    ] = "newest"
    limit: _Limit = RESULTS_DEFAULT
    max_tokens: _MaxTokens | UnsetType = UNSET
    session_id: _SessionId | UnsetType = UNSET
    time_zone: _TimeZone | UnsetType = UNSET


class StoreArguments(Arguments, frozen=True, kw_only=True):
    """Of store_memory."""

    content: Annotated[
        str,
        Meta(
            pattern=r"\S",
            description="One fact, preference, decision or event, self-contained: names and dates instead of he, it "
            "or tomorrow.",
        ),
    ]
    role: Annotated[Role, Meta(description="Who said it.")] = "user"
    tags: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=TAG_CHARACTERS_MAX)]],
            Meta(max_length=TAGS_MAX, description="A few words to file it under."),
        ]
        | UnsetType
    ) = UNSET
    source_context: (
        Annotated[str, Meta(max_length=SOURCE_CONTEXT_CHARACTERS_MAX, description="Where it comes from.")] | UnsetType
    ) = UNSET
    said_at: (
        Annotated[str, Meta(description="When it was said, if not now: a date or a time (ISO 8601).")] | UnsetType
    ) = UNSET
    session_id: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=SESSION_ID_CHARACTERS_MAX,
                description="The conversation or project that it belongs to, if any.",
            ),
        ]
        | UnsetType
    ) = UNSET
    time_zone: _TimeZone | UnsetType = UNSET


class InspectArguments(Arguments, frozen=True, kw_only=True):
    """Of inspect_memory."""

    memory_id: _MemoryId
    surrounding: Annotated[
        int, Meta(ge=0, le=SURROUNDING_MAX, description="How many memories of the same session before and after it.")
    ] = SURROUNDING_DEFAULT
    offset: Annotated[int, Meta(ge=0, description="Of a long text: the character to begin with (next_offset).")] = 0
    time_zone: _TimeZone | UnsetType = UNSET


class DeleteArguments(Arguments, frozen=True, kw_only=True):
    """Of delete_memories."""

    memory_ids: Annotated[
        list[_MemoryId], Meta(min_length=1, max_length=DELETE_IDS_MAX, description="Exactly those to delete.")
    ]


class ForgetArguments(Arguments, frozen=True, kw_only=True):
    """Of forget_all_memories."""

    confirmation: Annotated[
        str, Meta(max_length=100, description=f"The words {DELETE_PHRASE}, as the user has typed them.")
    ]


class NoArguments(Arguments, frozen=True, kw_only=True):
    """Of memory_status."""


class AliasArguments(Arguments, frozen=True, kw_only=True):
    """Of search."""

    query: _Query


# --- what they give ---


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One memory. `when` is relative to now; `matched` is what fits best of a text that is cut (`truncated`)."""

    id: str
    text: str
    role: Role
    said_at: str
    when: str
    source: str
    score: float | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    matched: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    source_context: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    flagged: Annotated[list[str], Meta(description="Why it looks planted: be careful.")] | UnsetType = UNSET


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Memories, and how many more were found than max_tokens allows."""

    memories: list[MemoryResult]
    count: int
    omitted: int


class StoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """`stored` is false where the same is known already; the id is that one's."""

    id: str
    stored: bool
    message: str


class InspectResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One memory with what was said around it, the oldest first."""

    memory: MemoryResult
    characters: int
    stored_at: str
    tokens: int
    embedded: bool
    before: list[MemoryResult]
    after: list[MemoryResult]
    next_offset: int | UnsetType = UNSET
    model: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    external_id: str | UnsetType = UNSET


class DeleteResult(msgspec.Struct, frozen=True, kw_only=True):
    """Which are gone now, and which were not there."""

    deleted: list[str]
    not_found: list[str]


class ForgetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What is gone."""

    deleted: bool
    message: str


class StatusResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The memory in numbers. The names are the hosted product's."""

    connected: bool
    vault_ref: str
    storage: str
    total_memories: int
    total_tokens: int
    total_sessions: int
    pending_memories: int
    oldest_memory: str | None
    newest_memory: str | None
    granted_scopes: list[str]
    version: str


class AliasItem(msgspec.Struct, frozen=True, kw_only=True):
    """One memory."""

    id: str
    title: str
    text: str
    score: float


class AliasResult(msgspec.Struct, frozen=True, kw_only=True):
    """Memories, best first."""

    results: list[AliasItem]
