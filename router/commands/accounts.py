"""The operator's commands on accounts, and the log of who did what.

Owns their options and what they print; what they do is in `router.admin`. Must never show a key but the account key of
an account that was made right now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.commands.administering import (
    ANY_ACCOUNT,
    YES,
    administer,
    administer_list,
    ask,
    days_in,
    number_in,
    print_done,
    print_item,
)
from router.commands.options import CONFIG, DATA_DIR, JSON
from router.commands.terminal import Column, print_json, print_rows

AUDIT_ENTRIES = 100
_COLUMNS = (
    Column("number", "right", "bold"),
    Column("name", shrinks=True),
    Column("created", minutes=True, rank=1),
    Column("state"),
    Column("keys", "right"),
    Column("vaults", "right"),
    Column("retention days", "right"),
)
_AUDIT_COLUMNS = (
    Column("at", style="dim", minutes=True),
    Column("account", rank=2),
    Column("actor", rank=1),
    Column("action", style="bold"),
    Column("target"),
    Column("detail", shrinks=True),
)


@click.group(short_help="Create, list and change accounts.")
def accounts() -> None:
    """Create, list and change accounts, also while the server runs. ACCOUNT is a number as in `accounts list`."""


@accounts.command("create")
@click.argument("name")
@CONFIG
@DATA_DIR
@JSON
def create_account(name: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Create an account, and print its account key once."""
    created = administer(config, data_dir, "accounts.create", name=name)
    if as_json:
        print_json(created)
    else:
        click.echo(f"account key: {created['account_key']}")


@accounts.command("list")
@CONFIG
@DATA_DIR
@JSON
def list_accounts(config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """List accounts, oldest first."""
    found = administer_list(config, data_dir, "accounts.list")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            number_in(account["id"]),
            account["name"],
            account["created_at"],
            "disabled" if account["disabled_at"] else "live",
            account["live_keys"],
            account["vaults"],
            account["retention_days"],
        )
        for account in found
    ]
    print_rows(_COLUMNS, rows)


@accounts.command("show")
@click.argument("account")
@CONFIG
@DATA_DIR
@JSON
def show_account(account: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Show everything that is known of an ACCOUNT."""
    print_item(administer(config, data_dir, "accounts.show", account=account), as_json=as_json)


@accounts.command("rename")
@click.argument("account")
@click.argument("name")
@CONFIG
@DATA_DIR
@JSON
def rename_account(account: str, name: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Give an ACCOUNT another NAME."""
    _change(config, data_dir, account, "renamed", name=name, as_json=as_json)


@accounts.command("disable")
@click.argument("account")
@CONFIG
@DATA_DIR
@JSON
def disable_account(account: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Switch an ACCOUNT off: none of its keys opens anything, until it is enabled again."""
    _change(config, data_dir, account, "disabled", disabled=True, as_json=as_json)


@accounts.command("enable")
@click.argument("account")
@CONFIG
@DATA_DIR
@JSON
def enable_account(account: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Switch an ACCOUNT on again."""
    _change(config, data_dir, account, "enabled", disabled=False, as_json=as_json)


@accounts.command("retention")
@click.argument("account")
@click.argument("days")
@CONFIG
@DATA_DIR
@JSON
def retain_account(account: str, days: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Delete the memories of an ACCOUNT after so many DAYS; none: as the settings say."""
    _change(config, data_dir, account, "changed", retention_days=days_in(days), as_json=as_json)


def _change(config: Path | None, data_dir: Path, account: str, done: str, *, as_json: bool, **change: Any) -> None:
    changed = administer(config, data_dir, "accounts.change", account=account, **change)
    print_done(changed, f"{done}: {number_in(changed['id'])}", as_json=as_json)


@accounts.command("delete")
@click.argument("account")
@YES
@CONFIG
@DATA_DIR
@JSON
def delete_account(account: str, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Delete an ACCOUNT for good: revoke its keys, shred its vaults and provider keys."""
    ask(f"Delete account {account} with all its keys and memories for good?", yes=yes)
    deleted = administer(config, data_dir, "accounts.delete", account=account)
    sentence = f"deleted: {number_in(deleted['id'])} with {deleted['vaults_deleted']} vaults"
    print_done(deleted, sentence, as_json=as_json)


@click.command(short_help="Show who did what to keys, vaults and accounts.")
@ANY_ACCOUNT
@click.option("--limit", type=click.IntRange(min=1), default=AUDIT_ENTRIES, help="At most so many entries.")
@click.option("--action", help="Only what begins so: key, or key.deleted.")
@click.option("--subject", help="Only what was done to this: key_12, vault_3, acct_1, provider:openai.")
@click.option("--actor", help="Only what this one did: key_12, operator, server.")
@click.option("--since", help="Only from this time on: ISO 8601, or epoch milliseconds.")
@click.option("--until", help="Only before this time.")
@CONFIG
@DATA_DIR
@JSON
def audit(
    account: str | None, limit: int, config: Path | None, data_dir: Path, *, as_json: bool, **only: str | None
) -> None:
    """Show who did what to which key, vault or account, newest first: never content."""
    entries = administer_list(config, data_dir, "audit.list", count_max=limit, account=account, **only)
    if as_json:
        print_json(entries)
        return
    names = ("at", "account_id", "actor", "action", "target", "detail")
    print_rows(_AUDIT_COLUMNS, [[entry[name] for name in names] for entry in entries])
