"""Names of ours that clients see for numbers: `key_12`, `vault_3`, `acct_1`, `mem_7`. Pure."""

from __future__ import annotations

import re

from models.errors import NotFound
from models.memory import memory_number

_NUMBER = re.compile(r"[1-9][0-9]{0,17}\Z")


def public_id(prefix: str, number: int) -> str:
    """A number of the directory as clients see it."""
    return f"{prefix}_{number}"


def number_of(public: str, prefix: str) -> int:
    """The number behind a public id; the bare number does too.

    Raises:
        NotFound: it cannot be one.
    """
    bare = public.removeprefix(f"{prefix}_")
    if not _NUMBER.match(bare):
        raise NotFound(f"There is no {prefix} of this id.", hint=f"Ids look like {prefix}_1.")
    return int(bare)


def memory_number_of(public: str) -> int:
    """The number of a memory within its vault; the bare number does not do.

    Raises:
        NotFound: no memory has such an id.
    """
    number = memory_number(public)
    if number is None:
        raise NotFound("There is no such memory.", hint="Ids look like mem_7.")
    return number
