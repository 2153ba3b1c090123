"""What `/openapi.json` says of usage: `/v1/account/usage` and `/v1/me/stats`.

Must never import a route's handler.
"""

from __future__ import annotations

from models.usage import NUMBERS
from router.openapi.operation import JSON, KEYED, Operation, json_content
from router.openapi.shapes import COUNT, FLAG, MILLISECONDS, TEXT, TIME, Schema, answer, maybe, ref

_DATE: Schema = {"type": "string", "format": "date"}
_KEY_ID: Schema = {"type": "string", "pattern": "^key_[1-9][0-9]{0,17}$"}
_SHOWN_KEY: Schema = {"type": "string", "description": "The part of the key that may be shown."}

PARAMETERS: dict[str, Schema] = {
    "UsageStart": {
        "name": "start",
        "in": "query",
        "schema": _DATE,
        "description": "First day, UTC; 30 days through `end` unless given, and at most 400.",
    },
    "UsageEnd": {"name": "end", "in": "query", "schema": _DATE, "description": "Last day; today unless given."},
    "UsageKey": {
        "name": "key_id",
        "in": "query",
        "schema": _KEY_ID,
        "description": "One key of the account. A user key can only name itself, and sees no other in any case.",
    },
    "UsageFormat": {"name": "format", "in": "query", "schema": {"type": "string", "enum": ["json", "csv"]}},
}

_SUMS: Schema = answer(dict.fromkeys(NUMBERS, COUNT))
_DAY_COUNTS = (
    "requestCount", "errorCount", "inputTokens", "outputTokens", "memoryTokensRetrieved", "memoryTokensInjected",
    "tokensBilled", "memoriesStored",
)  # fmt: skip
_TOTALS = (
    "totalRequests", "totalErrors", "totalInputTokens", "totalOutputTokens", "totalMemoryTokensRetrieved",
    "totalMemoryTokensInjected", "totalTokensBilled", "totalMemoriesStored",
)  # fmt: skip
_TOTAL_NAMES = (*(f"total_{name}" for name in NUMBERS if name != "latency_ms_sum"), "total_memory_tokens")

SCHEMAS: dict[str, Schema] = {
    "UsagePeriod": answer({"start": _DATE, "end": _DATE}),
    "UsageSums": _SUMS,
    "UsageDay": answer({"date": _DATE, **dict.fromkeys(_DAY_COUNTS, COUNT), "avgLatencyMrMs": MILLISECONDS}),
    "Usage": answer(
        {
            "key": _SHOWN_KEY,
            "account": {"type": "string", "pattern": "^acct_[1-9][0-9]*$"},
            "key_id": {**maybe(_KEY_ID), "description": "The key that this is of; null for the whole account."},
            "period": ref("UsagePeriod"),
            "daily": {"type": "array", "items": ref("UsageDay"), "description": "Days on which anything was used."},
            "summary": answer(
                {"memoryKey": _SHOWN_KEY, **dict.fromkeys(_TOTALS, COUNT), "avgLatencyMrMs": MILLISECONDS}
            ),
            **dict.fromkeys(_TOTAL_NAMES, COUNT),
            "by_model": {
                "type": "object",
                "additionalProperties": ref("UsageSums"),
                "description": "By model as clients name it; `none` for requests that name none.",
            },
            "by_key": {"type": "object", "additionalProperties": ref("UsageSums")},
            "billing_multiplier": {"type": "number", "minimum": 0},
        }
    ),
    "MyStats": answer(
        {
            "vaultSize": {**COUNT, "description": "Memories of the caller's vault."},
            "tokensThisMonth": {**COUNT, "description": "Tokens of memory that this key was given this month, UTC."},
            "lastActivity": maybe(TIME),
            "key": _SHOWN_KEY,
            "period": ref("UsagePeriod"),
            "usageEnabled": {**FLAG, "description": "false: this server counts nothing."},
            "usage": ref("UsageSums"),
        }
    ),
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get", path="/v1/account/usage", name="account_usage", tag="usage",
        summary="What the account, or one of its keys, has used, by day, model and key.",
        answers={200: {**json_content("Usage"), "text/csv": TEXT}}, errors=(*KEYED, 400, 403, 404),
        parameters=("UsageStart", "UsageEnd", "UsageKey", "UsageFormat"),
    ),
    Operation(
        method="get", path="/v1/me/stats", name="my_stats", tag="usage",
        summary="The caller's vault, and what its key has used this month.",
        answers={200: {JSON: ref("MyStats")}}, errors=KEYED,
    ),
)  # fmt: skip
