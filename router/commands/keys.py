"""The operator's commands on keys and vaults: what they print. What they do is in `router.admin`.

A key is printed once, when it is made; lists show its first characters.
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
    print_item,
    printable,
)
from router.commands.options import CONFIG, DATA_DIR, JSON, print_json

Body = dict[str, Any]


@click.group()
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
    as_json: bool,
) -> None:
    """List keys, oldest first. Only the first characters of a key are known."""
    found = administer_list(
        config, data_dir, "keys.list", account=account, search=search, include_revoked=include_revoked
    )
    if as_json:
        print_json([_with_number(key) for key in found])
        return
    for key in found:
        memories = "?" if key["vault_memories"] is None else key["vault_memories"]
        click.echo(
            f"{number_in(key['id']):>6}  {key['kind']:<8}{key['prefix']:<10}{key['created_at']}  {_state(key):<8}  "
            f"{key['account_id']}  {key['vault_id']} ({memories} memories)  {printable(key['name'])}"
        )


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
def rename_key(key: str, name: str, config: Path | None, data_dir: Path) -> None:
    """Give a KEY another NAME."""
    changed = administer(config, data_dir, "keys.change", key=key, name=name)
    click.echo(f"renamed: {number_in(changed['id'])}")


@keys.command("disable")
@click.argument("key")
@CONFIG
@DATA_DIR
def disable_key(key: str, config: Path | None, data_dir: Path) -> None:
    """Switch a KEY off, until it is enabled again."""
    changed = administer(config, data_dir, "keys.change", key=key, disabled=True)
    click.echo(f"disabled: {number_in(changed['id'])}")


@keys.command("enable")
@click.argument("key")
@CONFIG
@DATA_DIR
def enable_key(key: str, config: Path | None, data_dir: Path) -> None:
    """Switch a KEY on again."""
    changed = administer(config, data_dir, "keys.change", key=key, disabled=False)
    click.echo(f"enabled: {number_in(changed['id'])}")


@keys.command("expire")
@click.argument("key")
@click.argument("time")
@CONFIG
@DATA_DIR
def expire_key(key: str, time: str, config: Path | None, data_dir: Path) -> None:
    """Let a KEY end at a TIME: ISO 8601, epoch milliseconds, or never."""
    expires_at = None if time.lower() == "never" else time
    changed = administer(config, data_dir, "keys.change", key=key, expires_at=expires_at)
    click.echo(f"expires: {number_in(changed['id'])} {changed['expires_at'] or 'never'}")


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
    click.echo(f"{old['id']} stays valid until {old['valid_until']}", err=True)


@keys.command("revoke")
@click.argument("key")
@YES
@CONFIG
@DATA_DIR
def revoke_key(key: str, config: Path | None, data_dir: Path, *, yes: bool) -> None:
    """Make a KEY invalid at once, for good. Its vault is kept."""
    ask(f"Revoke key {key} for good?", yes=yes)
    revoked = administer(config, data_dir, "keys.delete", key=key, vault="keep")
    click.echo(f"revoked: {number_in(revoked['id'])}")


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
    if as_json:
        print_json(deleted)
    else:
        fate = "shredded" if deleted["vault_deleted"] else "kept"
        click.echo(f"deleted: {number_in(deleted['id'])}; {deleted['vault_id']} is {fate}")


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
    for vault in found:
        days = vault["retention_days"]
        click.echo(
            f"{number_in(vault['id']):>6}  {vault['created_at']}  {vault['account_id']}  keys: {vault['live_keys']}  "
            f"memories: {vault['memories']}  bytes: {vault['bytes']}  retention: {days or '-'}"
        )


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
def retain_vault(vault: str, days: str, config: Path | None, data_dir: Path) -> None:
    """Delete a VAULT's memories after so many DAYS; none: as its account says."""
    changed = administer(config, data_dir, "vaults.change", vault=vault, retention_days=days_in(days))
    click.echo(f"retention: {number_in(changed['id'])} {changed['retention_days'] or 'none'}")


@vaults.command("delete")
@click.argument("vault")
@YES
@CONFIG
@DATA_DIR
def delete_vault(vault: str, config: Path | None, data_dir: Path, *, yes: bool) -> None:
    """Shred a VAULT that no key opens any more."""
    ask(f"Delete all memories of vault {vault} for good?", yes=yes)
    deleted = administer(config, data_dir, "vaults.delete", vault=vault)
    click.echo(f"deleted: {number_in(deleted['id'])}")


# --- words ---


def _limits(assignments: tuple[str, ...]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if not value.isascii() or not value.isdigit():
            raise click.BadParameter(f"--limit {name} must be NAME=NUMBER, such as requests_per_minute=60.")
        limits[name] = int(value)
    return limits


def _state(key: Body) -> str:
    since = key[f"{key['state']}_at"] if key["state"] in {"revoked", "disabled"} else None
    return f"{key['state']} {since}" if since else str(key["state"])


def _with_number(key: Body, *, key_text: str | None = None) -> Body:
    """A key with its bare number; `key` is what may be shown of it, unless it was made just now."""
    return {"number": int(number_in(key["id"])), "key": key_text or key["prefix"], **key}
