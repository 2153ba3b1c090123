"""The operator's commands on the providers' keys that accounts store.

Owns their options and what they print; what they do is in `router.admin`. Must never take a key as an argument, which
every user of the machine could read: it comes from standard input or the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from router.commands.administering import ACCOUNT, YES, administer, ask, print_done
from router.commands.options import CONFIG, DATA_DIR, EXIT_FAULT, JSON
from router.commands.terminal import Column, print_json, print_rows

_COLUMNS = (
    Column("provider", style="bold"),
    Column("format", rank=2),
    Column("key of"),
    Column("ends"),
    Column("stored", minutes=True, rank=1),
    Column("prefixes", shrinks=True),
)


@click.group(short_help="Store and check the keys of providers.")
def providers() -> None:
    """List providers, and store, check and remove an account's keys for them, also while the server runs."""


@providers.command("list")
@ACCOUNT
@CONFIG
@DATA_DIR
@JSON
def list_providers(account: str | None, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """List providers, and whose key counts: the account's, the server's, or none."""
    found = administer(config, data_dir, "providers.list", account=account)["providers"]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            provider["name"],
            provider["format"],
            provider["key_source"],
            provider["last_four"],
            provider["stored_at"],
            provider["prefixes"] if provider["configured"] else "not configured",
        )
        for provider in found
    ]
    print_rows(_COLUMNS, rows)


@providers.command("set")
@click.argument("name")
@ACCOUNT
@click.option("--key-env", metavar="VARIABLE", help="Environment variable that holds the key; else standard input.")
@click.option("--check", is_flag=True, help="Ask the provider first, and store nothing that it refuses.")
@CONFIG
@DATA_DIR
@JSON
def set_provider_key(
    name: str,
    account: str | None,
    key_env: str | None,
    config: Path | None,
    data_dir: Path,
    *,
    check: bool,
    as_json: bool,
) -> None:
    """Store the account's key for the provider NAME, sealed. The key is read from standard input."""
    key = _read_key(key_env)
    stored = administer(config, data_dir, "providers.set", account=account, provider=name, key=key, check=check)
    print_done(stored, f"stored: {name}, ends {stored['last_four'] or '?'}", as_json=as_json)


@providers.command("remove")
@click.argument("name")
@ACCOUNT
@YES
@CONFIG
@DATA_DIR
@JSON
def remove_provider_key(
    name: str, account: str | None, config: Path | None, data_dir: Path, *, yes: bool, as_json: bool
) -> None:
    """Shred the account's key for the provider NAME; the server's counts again, if it has one."""
    ask(f"Shred the account's key for {name}?", yes=yes)
    removed = administer(config, data_dir, "providers.remove", account=account, provider=name)
    print_done(removed, f"removed: {name}", as_json=as_json)


@providers.command("check")
@click.argument("name")
@ACCOUNT
@CONFIG
@DATA_DIR
@JSON
@click.pass_context
def check_provider_key(
    context: click.Context, name: str, account: str | None, config: Path | None, data_dir: Path, *, as_json: bool
) -> None:
    """Ask the provider NAME whether it takes the key that counts. Exit code 1: it does not."""
    checked = administer(config, data_dir, "providers.check", account=account, provider=name)
    said, verdict = checked["status"] or checked["error"], "ok" if checked["ok"] else "refused"
    print_done(checked, f"{verdict}: {name} ({said}), key of the {checked['key_source']}", as_json=as_json)
    if not checked["ok"]:
        context.exit(EXIT_FAULT)


def _read_key(variable: str | None) -> str:
    """The key, without what surrounds it.

    Raises:
        click.UsageError: there is none.
    """
    if variable is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise click.UsageError(f"The environment variable {variable} is not set.")
        return key
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True, err=True)).strip()
    key = sys.stdin.readline().strip()
    if not key:
        raise click.UsageError("Give the key on standard input, or name an environment variable by --key-env.")
    return key
