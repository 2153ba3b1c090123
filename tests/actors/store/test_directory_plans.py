"""No look-up and no page of a list reads a whole table: SQLite's own plan says so for every statement of the directory.

The statements are those that the store really runs, as a profiler of its connections sees them.
"""

from __future__ import annotations

from itertools import product

import apsw
import pytest

from actors.store import accounts, audit, keys, provider_keys, usage_rows, vault_rows
from actors.store.database import all_rows
from actors.store.migrations import META_MIGRATIONS, migrate
from actors.store.seal import ServerKey
from models.accounts import AuditFilter


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


FILTERS = (
    AuditFilter(),
    AuditFilter(action="key."),
    AuditFilter(actor="key:1"),
    AuditFilter(since_ms=3, until_ms=4),
    AuditFilter(target="key:1"),
    AuditFilter(action="key.", target="key:1", actor="key:1", since_ms=3),
)


def list_keys(
    connection: apsw.Connection, account: int | None, search: str, *, include_revoked: bool, newest_first: bool
) -> None:
    """A page behind key 7."""
    keys.list_keys(
        connection,
        account,
        after=7,
        limit=3,
        search=search,
        include_revoked=include_revoked,
        newest_first=newest_first,
        now_ms=5,
    )


def columns_of(connection: apsw.Connection, index: str) -> list[str]:
    """What an index holds."""
    return [name for (name,) in all_rows(connection, "SELECT name FROM pragma_index_info(?)", (index,))]


@pytest.fixture
def plans() -> Plans:
    return Plans()


def test_every_list_goes_along_an_index_from_where_the_page_before_ended(plans: Plans) -> None:
    connection, now_ms = plans.connection, 5
    for account in (1, None):
        for search, include_revoked, newest_first in product(("", "x"), (False, True), (False, True)):
            list_keys(connection, account, search, include_revoked=include_revoked, newest_first=newest_first)
        for before, only in product((9, None), FILTERS):
            audit.list_entries(connection, account, before=before, limit=3, only=only)
    accounts.list_accounts(connection, after=1, limit=3, now_ms=now_ms)
    for without_keys in (False, True):
        vault_rows.list_vaults(connection, 1, after=1, limit=3, without_keys=without_keys, now_ms=now_ms)
    vault_rows.list_retentions(connection, after=1, limit=3)
    provider_keys.list_provider_keys(connection, 1)
    usage_rows.load_usage(connection, 1, key=None, first_day=1, last_day=2)
    steps = plans.steps()
    assert len(steps) > 60
    of_all = [step for step in steps if "FROM audit" in step and "account = ?" not in step]
    assert not {step.split("  <-  ")[0] for step in of_all} - {
        "SCAN audit",
        "SEARCH audit USING INTEGER PRIMARY KEY (rowid<?)",
    }
    scans = [step for step in steps if step.startswith("SCAN") and step not in of_all]
    assert scans == []
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert sorts == [], "a sort would read the whole table first"


def test_what_a_list_is_searched_and_filtered_by_is_in_the_index_that_it_goes_along(plans: Plans) -> None:
    """Else each key of an account, or each entry of its log, would be read for a search that finds nothing."""
    for include_revoked, newest_first in product((False, True), (False, True)):
        list_keys(plans.connection, 1, "x", include_revoked=include_revoked, newest_first=newest_first)
    for only in FILTERS:
        audit.list_entries(plans.connection, 1, before=9, limit=3, only=only)
    steps = [step.split("  <-  ")[0] for step in plans.steps() if not step.startswith("SEARCH vault")]
    assert steps[:2] == [
        "SEARCH key USING INDEX key_listed (account=? AND number>?)",
        "SEARCH key USING INDEX key_listed (account=? AND number<?)",
    ]
    assert steps[2:4] == steps[:2]
    by_target = "SEARCH audit USING INDEX audit_target (account=? AND target=? AND rowid<?)"
    along = "SEARCH audit USING INDEX audit_listed (account=? AND number<?)"
    assert steps[4:] == [by_target if only.target else along for only in FILTERS]
    held = {name: columns_of(plans.connection, name) for name in ("key_listed", "audit_listed")}
    assert set(held["key_listed"]) >= {"name", "revoked_ms", "rotated_to", "expires_ms"}
    assert set(held["audit_listed"]) >= {"action", "actor", "at_ms"}


def test_vaults_without_keys_are_found_by_an_index_that_holds_no_others(plans: Plans) -> None:
    """A hundred thousand vaults with keys cost a list of those without nothing."""
    vault_rows.list_vaults(plans.connection, 1, after=1, limit=3, without_keys=True, now_ms=5)
    vaults = [step for step in plans.steps() if step.startswith(("SEARCH vault", "SCAN vault"))]
    assert [step.split("  <-  ")[0] for step in vaults] == [
        "SEARCH vault USING INDEX vault_kept (account=? AND rowid>?)"
    ]


def test_the_audit_log_is_trimmed_from_its_oldest_entries_on(plans: Plans) -> None:
    """Only so many are looked at, however long it is."""
    audit.trim_entries(plans.connection, before_ms=5, limit=3)
    steps = {step.split("  <-  ")[0] for step in plans.steps()}
    assert "SEARCH audit USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert not [step for step in steps if "TEMP B-TREE" in step]


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
