"""The settings in force, as the dashboard shows them: each with its default and how to change it, secrets never.

What says how memory behaves is for every account. What says where this server is, on which machine and whom it asks, is
the operator's: other accounts do not get to see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from models.provider_settings import Secret
from models.settings import Settings, describe_settings

FOR_EVERY_ACCOUNT = frozenset(
    {
        "audit", "dashboard", "embedding", "index", "ingest", "keys", "memory", "proxy", "recall", "screening",
        "sessions", "usage",
    }
)  # fmt: skip
"""Sections that tell nothing of the machine."""

_USER_INFO = re.compile(r"(?<=://)[^/@]*@")


@cache
def _docs() -> dict[str, str]:
    """What each key means; made when it is first shown, since it takes 8 ms."""
    return {setting.name: setting.description for setting in describe_settings()}


Place = tuple[str, ...]
"""A setting's section and key; with the name of its table between them, where it is in one."""


def shown_settings(settings: Settings, *, is_operator: bool) -> list[dict[str, Any]]:
    """Each setting with its value and its default; to others than the operator only `FOR_EVERY_ACCOUNT`."""
    return [
        _item(place, value, default)
        for place, value, default in _all(settings)
        if is_operator or place[0] in FOR_EVERY_ACCOUNT
    ]


def _all(settings: Settings) -> Iterator[tuple[Place, Any, Any]]:
    """Place, value and default of each."""
    defaults = Settings()
    for section in Settings.__struct_fields__:
        value, default = getattr(settings, section), getattr(defaults, section)
        if not isinstance(value, msgspec.Struct):  # the fallbacks, whose keys are names of models
            yield (section,), value, default
            continue
        for field in value.__struct_fields__:
            if field == "by_name":
                yield from _tables(section, value.by_name, default.by_name)  # type: ignore[attr-defined]
            else:
                yield (section, field), getattr(value, field), getattr(default, field)


def _tables(
    section: str, by_name: dict[str, msgspec.Struct], defaults: dict[str, msgspec.Struct]
) -> Iterator[tuple[Place, Any, Any]]:
    """The keys of tables with names of their own; what is not built in begins with the defaults of any table."""
    for name, table in by_name.items():
        default = defaults.get(name) or type(table)()
        for field in table.__struct_fields__:
            yield (section, name, field), getattr(table, field), getattr(default, field)


def _item(place: Place, value: Any, default: Any) -> dict[str, Any]:
    described_as = (place[0], "NAME", place[-1]) if len(place) > 2 else place
    return {
        "name": ".".join(place),
        "value": _plain(value),
        "default": _plain(default),
        "changed": value != default,
        "environment": environment_name(place),
        "doc": _docs().get(".".join(described_as), ""),
    }


def environment_name(place: Place) -> str | None:
    """The variable that sets it, if one does."""
    spelt = [re.sub("[-.]", "_", part.upper()) for part in place]
    return "MEMORYROUTER_" + "__".join(spelt) if len(place) > 1 else None


def _plain(value: Any) -> Any:
    """A value as JSON: of a secret only whether there is one, of a URL no name and password."""
    if isinstance(value, Secret):
        return "set" if value else "not set"
    if isinstance(value, str):
        return _USER_INFO.sub("", value)
    return msgspec.to_builtins(value)  # a secret within something else fails here, which is as it should be
