"""The mark of a store that is being filled from another one (`actors.store.migrating`): no server may start with it."""

from __future__ import annotations

from actors.store.database import Connection, one_row
from models.errors import SetupError

UNFINISHED = "unfinished_copy"
"""Name of a row of `setting`, in both engines."""


def refuse_unfinished(connection: Connection) -> None:
    """Refuse to serve what is only partly there.

    Args:
        connection: of the directory.

    Raises:
        SetupError: a move into this store was cut off, or goes on now.
    """
    if one_row(connection, "SELECT 1 FROM setting WHERE name = ?", (UNFINISHED,)) is not None:
        raise SetupError(
            "This store is the unfinished copy of another one.",
            hint="Let `memoryrouter migrate-store` finish: the same command goes on where it was.",
        )
