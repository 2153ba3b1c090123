"""What is counted of requests: for each key, day and model, how many and how much.

Pure data, msgspec Structs. Numbers only: never a key's text, never a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MINUTE_MS = 60_000
DAY_MINUTES = 1_440

MODELS_MAX = 100
"""Of one key and day; further names count as `other`, so that no client fills the table."""

NAMED_MAX = 100_000
OTHER_MODEL = "other"
"""Stands for models whose names cannot be counted: strange ones, and too many of one key."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\Z")
_KEY_SHAPED = re.compile(r"\b(mk[_-]|sk-|xai-|gsk_|AIza)")


class UsageCount(msgspec.Struct, frozen=True, kw_only=True):
    """What one key used on one day of one model.

    Attributes:
        day: whole days since the Unix epoch, UTC.
        model: as clients name it; "" where requests name none.
        requests: authenticated requests that were answered, whatever the answer.
        errors: those of them that ended with a status of 400 or more, or whose reply broke off.
        memories_stored: memories that were new; a duplicate counts nothing.
        tokens_retrieved: of the memory that was found, as the embedding model counts.
        tokens_injected: of the memory that a provider was given.
        tokens_billed: billing units.
        input_tokens, output_tokens: as providers counted them, where they did.
        latency_ms_sum: the time that this server added, without its provider's; summed over the requests.
    """

    key_number: int
    account_number: int
    day: int
    model: str = ""
    requests: int = 0
    memories_stored: int = 0
    tokens_retrieved: int = 0
    tokens_injected: int = 0
    tokens_billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    errors: int = 0
    latency_ms_sum: int = 0


IDENTITY = ("key_number", "account_number", "day", "model")
NUMBERS = tuple(name for name in UsageCount.__struct_fields__ if name not in IDENTITY)
"""The names of what is summed up."""


def sum_up(counts: Iterable[UsageCount]) -> list[UsageCount]:
    """One count for each key, day and model, in that order."""
    sums: dict[tuple[int, int, int, str], list[int]] = {}
    for count in counts:
        numbers = sums.setdefault((count.day, count.key_number, count.account_number, count.model), [0] * len(NUMBERS))
        for place, name in enumerate(NUMBERS):
            numbers[place] += getattr(count, name)
    return [
        UsageCount(
            key_number=key, account_number=account, day=day, model=model, **dict(zip(NUMBERS, numbers, strict=True))
        )
        for (day, key, account, model), numbers in sorted(sums.items())
    ]


def countable_model(name: str) -> str:
    """A model's name as it may be kept: nothing that a client could smuggle a text or a key in."""
    return name if _MODEL.match(name) and not _KEY_SHAPED.search(name) else OTHER_MODEL


class ModelNames:
    """Which names of models are counted as they are: the first `MODELS_MAX` of each key and day."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], set[str]] = {}

    def known(self, name: str | None, *, key_number: int, day: int) -> str:
        """The name under which a model is counted; "" for none."""
        if not name:
            return ""
        name = countable_model(name)
        names = self._names.get((key_number, day))
        if names is None:
            if len(self._names) >= NAMED_MAX:
                self._names.clear()
            names = self._names[key_number, day] = set()
        if name not in names and len(names) >= MODELS_MAX:
            return OTHER_MODEL
        names.add(name)
        return name
