"""`GET /v1/account/usage` and `GET /v1/me/stats`: what keys have used, in both published shapes at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from models.errors import Forbidden, InvalidRequest, StoreUnavailable
from models.messages import Stats, VaultStats
from models.times import format_time
from models.usage import NUMBERS, UsageCount, sum_up
from router.auth import Caller
from router.components import Components
from router.public_ids import public_id
from router.requests import current_usage, json_response, read_caller

DAYS_DEFAULT = 30
DAYS_MAX = 400
NO_MODEL = "none"
"""Stands for requests that name no model, such as those of the memory routes."""

LOAD_TIMEOUT_S = 10.0
CSV = "text/csv; charset=utf-8"
_EPOCH = date(1970, 1, 1)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_KEY_ID = re.compile(r"key_([1-9][0-9]{0,17})\Z")
_CSV_NAMES = (
    "requests", "errors", "memories_stored", "tokens_retrieved", "tokens_injected", "tokens_billed", "input_tokens",
    "output_tokens", "latency_ms_sum",
)  # fmt: skip


def usage_routes(components: Components) -> Blueprint:
    """The blueprint of usage."""
    routes = Blueprint("usage", __name__)
    api = _UsageApi(components)
    routes.get("/v1/account/usage")(api.account_usage)
    routes.get("/v1/me/stats")(api.my_stats)
    return routes


class Period(msgspec.Struct, frozen=True):
    """Days from the first through the last, UTC."""

    first: date
    last: date

    @property
    def days(self) -> tuple[int, int]:
        """Both ends, in days since the epoch."""
        return (self.first - _EPOCH).days, (self.last - _EPOCH).days

    def body(self) -> dict[str, str]:
        """As answers show it."""
        return {"start": self.first.isoformat(), "end": self.last.isoformat()}


class _UsageApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components

    async def account_usage(self) -> Response:
        """What the account, or one of its keys, has used, by day, model and key. A user key sees its own usage."""
        caller = await self._reader()
        caller.require_unsuffixed()
        key_number = chosen_key(caller, request.args.get("key_id"))
        if key_number is not None:  # one of another account is not even known here
            await self._parts.store.get_key(caller.principal.account_number, key_number)
        period = read_period(request.args.get("start"), request.args.get("end"), today=self._today())
        counts = await self._load(caller, key_number, period)
        as_csv = request.args.get("format", "json").lower()
        if as_csv not in {"json", "csv"}:
            raise InvalidRequest("format must be json or csv.", field="format")
        if as_csv == "csv":
            name = f"usage-{period.first}-{period.last}.csv"
            headers = {"content-disposition": f'attachment; filename="{name}"'}
            return Response(csv_of(counts), headers=headers, content_type=CSV)
        body = usage_body(
            counts,
            period,
            shown=caller.principal.shown,
            account_number=caller.principal.account_number,
            key_number=key_number,
            billing_multiplier=self._parts.settings.usage.billing_multiplier,
        )
        return json_response(body)

    async def my_stats(self) -> Response:
        """The caller's vault and what its key has used this month."""
        caller = await self._reader()
        message, timeout_s = Stats(), self._parts.settings.vaults.ask_timeout_ms / 1000
        counted: VaultStats = await self._parts.supervisor.ask(caller.principal.vault, message, timeout_s=timeout_s)
        today = self._today()
        month = Period(today.replace(day=1), today)
        enabled = self._parts.meter.journal is not None
        counts = await self._load(caller, caller.principal.key_number, month) if enabled else []
        used = _sum_of(counts)
        last_ms = await self._last_activity_ms(caller)
        return json_response(
            {
                "vaultSize": counted.memories,
                "tokensThisMonth": used["tokens_retrieved"],
                "lastActivity": None if last_ms is None else format_time(last_ms),
                "key": caller.principal.shown,
                "period": month.body(),
                "usageEnabled": enabled,
                "usage": used,
            }
        )

    async def _reader(self) -> Caller:
        """Whoever asks; reading the counts is not counted."""
        caller = await read_caller(self._parts)
        current_usage().discard()
        return caller

    async def _load(self, caller: Caller, key_number: int | None, period: Period) -> list[UsageCount]:
        journal = self._parts.meter.journal
        if journal is None:
            raise StoreUnavailable("This server does not count usage.", hint="The setting is usage.enabled.")
        first_day, last_day = period.days
        return await journal.load(
            caller.principal.account_number,
            key_number=key_number,
            first_day=first_day,
            last_day=last_day,
            timeout_s=LOAD_TIMEOUT_S,
        )

    def _today(self) -> date:
        return datetime.fromtimestamp(self._parts.now_ms() / 1000, UTC).date()

    async def _last_activity_ms(self, caller: Caller) -> int | None:
        """When the key was last used for anything but this, to the minute."""
        journal, key_number = self._parts.meter.journal, caller.principal.key_number
        unfolded_ms = None if journal is None else journal.last_used_ms(key_number)
        known = await self._parts.store.get_key(caller.principal.account_number, key_number)
        return max(filter(None, (unfolded_ms, known.last_used_ms)), default=None)


def chosen_key(caller: Caller, key_id: str | None) -> int | None:
    """The key whose usage is asked for; None for the whole account.

    Raises:
        InvalidRequest: not an id of a key.
        Forbidden: a user key asks for another key's.
    """
    own = caller.principal.key_number
    number = None
    if key_id:
        match = _KEY_ID.match(key_id)
        if match is None:
            raise InvalidRequest("key_id must be the id of a key, such as key_12.", field="key_id")
        number = int(match[1])
    if caller.principal.kind == "account":
        return number
    if number not in (None, own):
        raise Forbidden("A user key sees its own usage only.", hint="Leave key_id out, or use an account key.")
    return own


def read_period(start: str | None, end: str | None, *, today: date) -> Period:
    """The days that are asked for; the last thirty unless said otherwise.

    Raises:
        InvalidRequest: no dates, in the wrong order, or too many days.
    """
    last = _read_date(end, "end") or today
    first = _read_date(start, "start") or _days_before(last, DAYS_DEFAULT - 1)
    if first > last:
        raise InvalidRequest("start must not be after end.", field="start")
    if (last - first).days >= DAYS_MAX:
        raise InvalidRequest(f"A period may have at most {DAYS_MAX} days.", field="start")
    return Period(first, last)


def _read_date(value: str | None, name: str) -> date | None:
    if not value:
        return None
    try:
        found = date.fromisoformat(value) if _DATE.match(value) else None
    except ValueError:
        found = None
    if found is None:
        raise InvalidRequest(f"{name} must be a date as YYYY-MM-DD.", field=name)
    return found


def _days_before(day: date, days: int) -> date:
    return date.fromordinal(max(1, day.toordinal() - days))


def usage_body(
    counts: Sequence[UsageCount],
    period: Period,
    *,
    shown: str,
    account_number: int,
    key_number: int | None,
    billing_multiplier: float,
) -> dict[str, Any]:
    """The superset of the published shapes; `shown` is the part of the caller's key that may be shown."""
    total = _sum_of(counts)
    return {
        "key": shown,
        "account": public_id("acct", account_number),
        "key_id": None if key_number is None else public_id("key", key_number),
        "period": period.body(),
        "daily": [
            {"date": (_EPOCH + timedelta(days=day)).isoformat(), **_published(sums)}
            for day, sums in _grouped(counts, lambda count: count.day)
        ],
        "summary": {"memoryKey": shown, **_totals(total)},
        **{f"total_{name}": number for name, number in total.items() if name != "latency_ms_sum"},
        "total_memory_tokens": total["tokens_retrieved"],
        "by_model": dict(_grouped(counts, lambda count: count.model or NO_MODEL)),
        "by_key": dict(_grouped(counts, lambda count: public_id("key", count.key_number))),
        "billing_multiplier": billing_multiplier,
    }


def csv_of(counts: Iterable[UsageCount]) -> str:
    """One line for each day, key and model, below a line of names. No value needs quotes: see `countable_model`."""
    lines = [",".join(("date", "key_id", "model", *_CSV_NAMES))]
    for count in sum_up(counts):
        day = (_EPOCH + timedelta(days=count.day)).isoformat()
        numbers = (str(getattr(count, name)) for name in _CSV_NAMES)
        lines.append(",".join((day, public_id("key", count.key_number), count.model or NO_MODEL, *numbers)))
    return "\r\n".join(lines) + "\r\n"


def _published(sums: dict[str, int]) -> dict[str, Any]:
    """One day under the hosted product's names."""
    requests = sums["requests"]
    return {
        "requestCount": requests,
        "errorCount": sums["errors"],
        "inputTokens": sums["input_tokens"],
        "outputTokens": sums["output_tokens"],
        "memoryTokensRetrieved": sums["tokens_retrieved"],
        "memoryTokensInjected": sums["tokens_injected"],
        "tokensBilled": sums["tokens_billed"],
        "memoriesStored": sums["memories_stored"],
        "avgLatencyMrMs": round(sums["latency_ms_sum"] / requests, 2) if requests else 0,
    }


def _totals(sums: dict[str, int]) -> dict[str, Any]:
    """The same of all days: `totalRequests` and so on."""
    published = _published(sums)
    average = published.pop("avgLatencyMrMs")
    published["requests"], published["errors"] = published.pop("requestCount"), published.pop("errorCount")
    return {
        **{f"total{name[0].upper()}{name[1:]}": value for name, value in published.items()},
        "avgLatencyMrMs": average,
    }


def _sum_of(counts: Iterable[UsageCount]) -> dict[str, int]:
    sums = dict.fromkeys(NUMBERS, 0)
    for count in counts:
        for name in NUMBERS:
            sums[name] += getattr(count, name)
    return sums


def _grouped(counts: Iterable[UsageCount], name_of: Callable[[UsageCount], Any]) -> list[tuple[Any, dict[str, int]]]:
    """Sums by a name, in the order of the names."""
    groups: dict[Any, list[UsageCount]] = {}
    for count in counts:
        groups.setdefault(name_of(count), []).append(count)
    return [(name, _sum_of(group)) for name, group in sorted(groups.items())]
