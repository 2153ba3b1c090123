"""PostgreSQL's failures by neutral names, which the stores' code goes by whatever the database is.

Must never repeat the server's text: it may quote values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from actors.store.database import ConnectionFailed, ConstraintViolated, DatabaseFull, StatementFailed

if TYPE_CHECKING:
    import psycopg

_SERVER_IS_AT_FAULT = frozenset({"XX", "25006", "25P03", "57P", "58"})
"""Beginnings of error codes that no statement brings about: damage, a standby, an end by the server."""


@contextmanager
def neutral_errors() -> Iterator[None]:
    """What fails within raises by its neutral name."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise neutral(error) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise StatementFailed(f"a value cannot be stored: {type(error).__name__}") from error


def neutral(error: psycopg.Error) -> StatementFailed:
    """The failure by its neutral name. Its text is the error's code only: the server's text may quote values."""
    import psycopg

    code = error.sqlstate or ""
    text = f"{type(error).__name__} {code}".strip()
    if isinstance(error, psycopg.IntegrityError):
        return ConstraintViolated(text)
    if isinstance(error, psycopg.errors.DiskFull):
        return DatabaseFull(text)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ConnectionFailed(text)
    if any(code.startswith(beginning) for beginning in _SERVER_IS_AT_FAULT):
        return ConnectionFailed(text)
    return StatementFailed(text)
