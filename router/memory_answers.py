"""What `/v1/memory/*` answers, as JSON: each the superset of the published shapes. Pure; knows no requests."""

from __future__ import annotations

from typing import Any

from models.messages import Applied, Explanation, Hit, VaultStats
from models.times import format_time
from router.memory_items import memory_fields
from router.recalling import Recollection


def prepared(recollection: Recollection, *, billed: int, total_ms: float) -> dict[str, Any]:
    """The answer of prepare."""
    return {
        "context": recollection.context,
        "memories_found": recollection.chunks,
        "memory_ids": recollection.ids,
        "memory_tokens": recollection.tokens,
        "retrieval_tokens": recollection.tokens,
        "tokens_billed": billed,
        "metrics": {"total_ms": total_ms, "embedding_ms": round(recollection.embedding_ms, 2)},
    }


def search_item(hit: Hit) -> dict[str, Any]:
    """One item of a search (design section 12)."""
    item = {**memory_fields(hit.memory), "matched": hit.matched, "score": round(hit.score, 4)}
    if hit.explanation is not None:
        item["explanation"] = explanation_body(hit.explanation)
    return item


def explanation_body(explanation: Explanation) -> dict[str, Any]:
    """What placed a memory; rounded to what a reader can use."""
    return {
        "features": {name: round(value, 4) for name, value in explanation.features.items()},
        "weights": {name: round(value, 4) for name, value in explanation.weights.items()},
        "relevance": round(explanation.relevance, 4),
        "rank": explanation.rank,
    }


def stats_body(counted: VaultStats, *, key: str) -> dict[str, Any]:
    """The superset of the published shapes; `key` is the part of it that may be shown."""
    oldest, newest = (None if at is None else format_time(at) for at in (counted.oldest_ms, counted.newest_ms))
    return {
        "key": key,
        "memories": counted.memories,
        "pending": counted.pending,
        "chunks": counted.chunks,
        "sessions": counted.sessions,
        "stored": counted.memories,
        "duplicates": counted.duplicates,
        "flagged": counted.flagged,
        "total_tokens": counted.tokens,
        "totalTokens": counted.tokens,
        "totalVectors": counted.chunks,
        "vectorCount": counted.chunks,
        "hotVectors": counted.chunks,
        "dims": counted.dims,
        "embedding": {
            "model": counted.embedder,
            "model_id": counted.model_id or None,
            "pending": counted.pending,
            "total": counted.memories,
            "progress": round(1 - counted.pending / counted.memories, 4) if counted.memories else 1.0,
        },
        "storage": "sqlite",
        "oldestItem": counted.oldest_ms,
        "newestItem": counted.newest_ms,
        "oldest": oldest,
        "newest": newest,
        "oldestMemory": oldest,
        "newestMemory": newest,
        "createdAt": counted.created_ms,
        "lastAccess": counted.newest_ms or counted.created_ms,
        "kronos_config": None,
        "index": counted.index,
    }


def stored_body(
    applied: Applied, *, items: int, key: str, tokens: int | None = None, session_id: str | None = None
) -> dict[str, Any]:
    """What became of an upload or an import.

    Args:
        items: how many memories it brought.
        key: the part of it that may be shown.
        tokens: of their texts, where they were counted.
        session_id: where the request named one.
    """
    return {
        "status": "complete",
        "memoryKey": key,
        "vault": "session" if session_id else "core",
        "stats": {
            "inputItems": items,
            **({} if tokens is None else {"inputTokens": tokens}),
            "chunks": applied.chunks,
            "stored": applied.stored,
            "duplicates": applied.duplicates,
            "failed": 0,
            "total": items,
            "processed": items,
        },
        "message": f"Stored {applied.stored} memories.",
        **({"sessionId": session_id} if session_id else {}),
    }
