"""The operator's commands on keys and vaults.

Owns their options and what they print; what they do is in `router.admin`. Must never print a key but once, when it is
made: lists show its first characters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.commands.administering import (
    ACCOUNT,
    ANY_ACCOUNT,
    YES,
    administer,
    administer_list,
    administer_list_of_accounts,
    ask,
    days_in,
    number_in,
    print_done,
    print_item,
)
from router.commands.options import CONFIG, DATA_DIR, JSON
from router.commands.terminal import Column, note, print_json, print_rows

Body = dict[str, Any]

_COLUMNS = (
    Column("number", "right", "bold"),
    Column("name", shrinks=True),
    Column("kind", rank=1),
    Column("key"),
    Column("state"),
    Column("created", minutes=True, rank=2),
    Column("account", rank=3),
    Column("vault"),
    Column("memories", "right"),
)
_VAULT_COLUMNS = (
    Column("number", "right", "bold"),
    Column("created", minutes=True),
    Column("account", rank=1),
    Column("keys", "right"),
    Column("memories", "right"),
    Column("bytes", "right"),
    Column("retention days", "right"),
)


@click.group(short_help="Create, list, limit, rotate and revoke Memory Keys.")
def keys() -> None:
    """Create, list and change Memory Keys, also while the server runs. KEY is a number as in `keys list`."""


@keys.command("create")
@click.argument("name")
@ACCOUNT
@click.option("--kind", type=click.Choice(["user", "account"]), default="user", help="What the key may do.")
@click.option("--vault", help="Number of a vault that no key opens any more; a new one unless given.")
@click.option("--expires-at", help="When the key ends: ISO 8601, or epoch milliseconds.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="A limit of this key alone; repeatable.")
@CONFIG
@DATA_DIR
@JSON
def create_key(
    name: str,
    account: str | None,
    kind: str,
    vault: str | None,
    expires_at: str | None,
    limits: tuple[str, ...],
    config: Path | None,
    data_dir: Path,
    *,
    as_json: bool,
) -> None:
    """Create a key with a vault of its own, or for a vault that was kept. The key is shown once."""
    asked: Body = {"kind": kind, "vault_id": vault, "expires_at": expires_at, "limits": _limits(limits) or None}
    created = administer(config, data_dir, "keys.create", name=name, account=account, **asked)
    if as_json:
        print_json({field: created[field] for field in ("key", "name", "created_at")})
    else:
        click.echo(f"key: {created['key']}")


@keys.command("list")
@ANY_ACCOUNT
@click.option("--search", help="Only keys with this in their name.")
@click.option("--all", "include_revoked", is_flag=True, help="Also revoked keys.")
@click.option("--newest", is_flag=True, help="Newest first.")
@CONFIG
@DATA_DIR
@JSON
def list_keys(
    account: str | None,
    search: str | None,
    config: Path | None,
    data_dir: Path,
    *,
    include_revoked: bool,
    newest: bool,
    as_json: bool,
) -> None:
    """List keys, oldest first. Only the first characters of a key are known."""
    chosen: Body = {"account": account, "search": search, "include_revoked": include_revoked}
    found = administer_list(config, data_dir, "keys.list", order="desc" if newest else "asc", **chosen)
    if as_json:
        print_json([_with_number(key) for key in found])
        return
    names = ("name", "kind", "prefix", "state", "created_at", "account_id", "vault_id", "vault_memories")
    print_rows(_COLUMNS, [(number_in(key["id"]), *(key[name] for name in names)) for key in found])


@keys.command("show")
@click.argument("key")
@CONFIG
@DATA_DIR
@JSON
def show_key(key: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Show everything that is known of a KEY."""
    print_item(_with_number(administer(config, data_dir, "keys.show", key=key)), as_json=as_json)


@keys.command("rename")
@click.argument("key")
@click.argument("name")
@CONFIG
@DATA_DIR
@JSON
def rename_key(key: str, name: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Give a KEY another NAME."""
    _change(config, data_dir, key, "renamed", name=name, as_json=as_json)


@keys.command("disable")
@click.argument("key")
@CONFIG
@DATA_DIR
@JSON
def disable_key(key: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Switch a KEY off, until it is enabled again."""
    _change(config, data_dir, key, "disabled", disabled=True, as_json=as_json)


@keys.command("enable")
@click.argument("key")
@CONFIG
@DATA_DIR
@JSON
def enable_key(key: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Switch a KEY on again."""
    _change(config, data_dir, key, "enabled", disabled=False, as_json=as_json)


def _change(config: Path | None, data_dir: Path, key: str, done: str, *, as_json: bool, **change: Any) -> None:
    changed = administer(config, data_dir, "keys.change", key=key, **change)
    print_done(_with_number(changed), f"{done}: {number_in(changed['id'])}", as_json=as_json)


@keys.command("expire")
@click.argument("key")
@click.argument("time")
@CONFIG
@DATA_DIR
@JSON
def expire_key(key: str, time: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Let a KEY end at a TIME: ISO 8601, epoch milliseconds, or never."""
    expires_at = None if time.lower() == "never" else time
    changed = administer(config, data_dir, "keys.change", key=key, expires_at=expires_at)
    sentence = f"expires: {number_in(changed['id'])} {changed['expires_at'] or 'never'}"
    print_done(_with_number(changed), sentence, as_json=as_json)


@keys.command("rotate")
@click.argument("key")
@click.option("--grace-s", type=int, help="Seconds that the old key stays valid; keys.rotation_grace_s unless given.")
@CONFIG
@DATA_DIR
@JSON
def rotate_key(key: str, grace_s: int | None, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Create a new key for the same vault in the place of a KEY. The new key is shown once."""
    rotated = administer(config, data_dir, "keys.rotate", key=key, grace_s=grace_s)
    if as_json:
        print_json(_with_number(rotated, key_text=rotated["key"]))
        return
    click.echo(f"key: {rotated['key']}")
    old = rotated["replaces"]
    note(f"{old['id']} stays valid until {old['valid_until']}")


@keys.command("revoke")
@click.argument("key")
@YES
@CONFIG
@DATA_DIR
@JSON
def revoke_key(key: str, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Make a KEY invalid at once, for good. Its vault is kept."""
    ask(f"Revoke key {key} for good?", yes=yes)
    revoked = administer(config, data_dir, "keys.delete", key=key, vault="keep")
    print_done(revoked, f"revoked: {number_in(revoked['id'])}", as_json=as_json)


@keys.command("delete")
@click.argument("key")
@click.option("--vault", type=click.Choice(["keep", "delete"]), default="keep", help="What becomes of its vault.")
@YES
@CONFIG
@DATA_DIR
@JSON
def delete_key(key: str, vault: str, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Revoke a KEY for good, and keep or shred its vault."""
    with_vault = " with all memories of its vault" if vault == "delete" else ""
    ask(f"Delete key {key}{with_vault} for good?", yes=yes)
    deleted = administer(config, data_dir, "keys.delete", key=key, vault=vault)
    fate = "shredded" if deleted["vault_deleted"] else "kept"
    sentence = f"deleted: {number_in(deleted['id'])}; {deleted['vault_id']} is {fate}"
    print_done(deleted, sentence, as_json=as_json)


@keys.command("replace-account-key")
@ACCOUNT
@YES
@CONFIG
@DATA_DIR
@JSON
def replace_account_key(account: str | None, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Revoke the account keys of an account and print a new one for the same vault."""
    ask("Revoke the account's present account keys?", yes=yes)
    replaced = administer(config, data_dir, "keys.replace-account-key", account=account)
    if as_json:
        print_json(replaced)
    else:
        click.echo(f"account key: {replaced['account_key']}")


@click.group()
def vaults() -> None:
    """List vaults, and delete those that no key opens. VAULT is a number as in `vaults list`."""


@vaults.command("list")
@ANY_ACCOUNT
@click.option("--without-keys", is_flag=True, help="Only vaults that no key opens.")
@CONFIG
@DATA_DIR
@JSON
def list_vaults(account: str | None, config: Path | None, data_dir: Path, *, without_keys: bool, as_json: bool) -> None:
    """List vaults, oldest first."""
    if account is None:
        found = administer_list_of_accounts(config, data_dir, "vaults.list", without_keys=without_keys)
    else:
        found = administer_list(config, data_dir, "vaults.list", account=account, without_keys=without_keys)
    if as_json:
        print_json(found)
        return
    names = ("created_at", "account_id", "live_keys", "memories", "bytes", "retention_days")
    print_rows(_VAULT_COLUMNS, [(number_in(vault["id"]), *(vault[name] for name in names)) for vault in found])


@vaults.command("show")
@click.argument("vault")
@CONFIG
@DATA_DIR
@JSON
def show_vault(vault: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Show everything that is known of a VAULT but its memories."""
    print_item(administer(config, data_dir, "vaults.show", vault=vault), as_json=as_json)


@vaults.command("retention")
@click.argument("vault")
@click.argument("days")
@CONFIG
@DATA_DIR
@JSON
def retain_vault(vault: str, days: str, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Delete a VAULT's memories after so many DAYS; none: as its account says."""
    changed = administer(config, data_dir, "vaults.change", vault=vault, retention_days=days_in(days))
    sentence = f"retention: {number_in(changed['id'])} {changed['retention_days'] or 'none'}"
    print_done(changed, sentence, as_json=as_json)


@vaults.command("delete")
@click.argument("vault")
@YES
@CONFIG
@DATA_DIR
@JSON
def delete_vault(vault: str, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool) -> None:
    """Shred a VAULT that no key opens any more."""
    ask(f"Delete all memories of vault {vault} for good?", yes=yes)
    deleted = administer(config, data_dir, "vaults.delete", vault=vault)
    print_done(deleted, f"deleted: {number_in(deleted['id'])}", as_json=as_json)


# --- words ---


def _limits(assignments: tuple[str, ...]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if not value.isascii() or not value.isdigit():
            raise click.BadParameter(f"--limit {name} must be NAME=NUMBER, such as requests_per_minute=60.")
        limits[name] = int(value)
    return limits


def _with_number(key: Body, *, key_text: str | None = None) -> Body:
    """A key with its bare number; `key` is what may be shown of it, unless it was made just now."""
    return {"number": int(number_in(key["id"])), "key": key_text or key["prefix"], **key}
