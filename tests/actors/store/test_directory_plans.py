"""No look-up and no page of a list reads a whole table: SQLite's own plan says so for every statement of the directory.

The statements are those that the store really runs, as a profiler of its connections sees them.
"""

from __future__ import annotations

import apsw
import pytest

from actors.store import accounts, audit, keys, provider_keys, usage_rows, vault_rows
from actors.store.connections import all_rows
from actors.store.migrations import META_MIGRATIONS, migrate
from actors.store.seal import ServerKey


class Plans:
    """A connection that notes the plan of each SELECT that runs on it."""

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")
        migrate(self.connection, META_MIGRATIONS, now_ms=1)
        self.connection.execute("INSERT INTO account(created_ms) VALUES (1)")
        self.statements: list[str] = []
        self.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._note)

    def _note(self, event: dict[str, object]) -> None:
        self.statements.append(str(event["sql"]))

    def steps(self) -> list[str]:
        """What SQLite does for each statement that ran."""
        self.connection.trace_v2(0, None)
        return [
            f"{detail}  <-  {' '.join(statement.split())}"
            for statement in self.statements
            for _, _, _, detail in all_rows(
                self.connection, f"EXPLAIN QUERY PLAN {statement}", tuple([None] * statement.count("?"))
            )
        ]


@pytest.fixture
def plans() -> Plans:
    return Plans()


def test_every_list_goes_along_an_index_from_where_the_page_before_ended(plans: Plans) -> None:
    connection, now_ms = plans.connection, 5
    for account in (1, None):
        for search in ("", "x"):
            for include_revoked in (False, True):
                keys.list_keys(
                    connection,
                    account,
                    after=7,
                    limit=3,
                    search=search,
                    include_revoked=include_revoked,
                    now_ms=now_ms,
                )
        for before in (9, None):
            audit.list_entries(connection, account, before=before, limit=3)
    accounts.list_accounts(connection, after=1, limit=3, now_ms=now_ms)
    for without_keys in (False, True):
        vault_rows.list_vaults(connection, 1, after=1, limit=3, without_keys=without_keys, now_ms=now_ms)
    vault_rows.list_retentions(connection, after=1, limit=3)
    provider_keys.list_provider_keys(connection, 1)
    usage_rows.load_usage(connection, 1, key=None, first_day=1, last_day=2)
    steps = plans.steps()
    assert len(steps) > 20
    scans = [step for step in steps if step.startswith("SCAN") and "FROM audit ORDER BY" not in step]
    assert scans == []
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert sorts == [], "a sort would read the whole table first"


def test_every_look_up_is_by_an_index(plans: Plans) -> None:
    connection = plans.connection
    keys.find_key(connection, b"hash")
    keys.check_keyless(connection, 3, now_ms=5)
    keys.end_grace(connection, 3, now_ms=5)
    keys.revoke_account_keys(connection, 1, now_ms=5, kind="account")
    accounts.get_account(connection, 1, now_ms=5)
    provider_keys.find_provider_key(connection, 1, "openai", server_key=ServerKey(bytes(32)))
    usage_rows.load_usage(connection, 1, key=7, first_day=1, last_day=2)
    usage_rows.folded_through(connection, "j")
    steps = plans.steps()
    assert len(steps) > 10
    assert [step for step in steps if step.startswith("SCAN") and not step.startswith("SCAN before")] == []
    (of_one_key,) = [step for step in steps if "FROM usage WHERE" in step and "TEMP" not in step]
    assert "usage_key" in of_one_key, "one key's usage does not read its account's"
