"""The operator's commands on whole data directories: backup, restore, doctor, rotate-server-key.

Thin: what they do is in `actors.store`. Owns their words. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.options import (
    CONFIG,
    DATA_DIR,
    EXIT_FAULT,
    JSON,
    load,
)
from router.commands.terminal import Progress, print_json, styled, warn

if TYPE_CHECKING:
    from actors.store.doctor import Report
    from models.settings import Settings

NEW_SERVER_KEY_VARIABLE = "MEMORYROUTER_NEW_SERVER_KEY"
_SEVERITIES = {"damage": "error", "warning": "warning"}


@click.command(short_help="Copy the data directory, also beside a server.")
@click.argument("directory", type=click.Path(path_type=Path))
@CONFIG
@DATA_DIR
@JSON
def backup(directory: Path, config: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Copy the data directory into the empty or new DIRECTORY, also while a server runs.

    What was acknowledged before the command began is in the backup. The server key is not: keep a copy of it elsewhere,
    since a backup can only be read with it.
    """
    settings = load(config)
    from actors.store.backup import back_up
    from router.components import wall_clock_ms
    from router.configured_store import require_sqlite

    require_sqlite(settings, "pg_dump or pg_basebackup copies it")

    with Progress("backed up", unit="bytes") as progress:
        manifest = back_up(data_dir, directory, now_ms=wall_clock_ms(), report=progress.show)
    size_bytes = sum(file.size_bytes for file in manifest.files)
    if as_json:
        print_json({"directory": str(directory), "files": len(manifest.files), "bytes": size_bytes})
    else:
        click.echo(f"backed up: {len(manifest.files)} files, {size_bytes} bytes, in {directory}")


@click.command(short_help="Put a backup in the place of the data directory.")
@click.argument("directory", type=click.Path(path_type=Path))
@CONFIG
@DATA_DIR
@JSON
@click.option("--yes", is_flag=True, help="Replace what is in the data directory without asking.")
@click.option(
    "--backup-key-file",
    type=click.Path(path_type=Path),
    help="The server key that the backup was made under, if it is not the present one.",
)
def restore(
    directory: Path,
    config: Path | None,
    data_dir: Path,
    *,
    as_json: bool,
    yes: bool,
    backup_key_file: Path | None,
) -> None:
    """Put the backup in DIRECTORY in the place of the data directory; no server may use it.

    The backup is verified first. The data directory keeps its server key and the list of what was erased: vaults and
    keys that were deleted or revoked since the backup do not come back. In a new data directory, put the server key
    (server.key) there first.
    """
    settings = load(config)
    from actors.store import restore as restoring
    from actors.store.data_directory import META_FILE
    from router.components import wall_clock_ms
    from router.configured_store import require_sqlite

    require_sqlite(settings, "pg_restore or a base backup brings it back")
    has_data = (data_dir / META_FILE).exists()
    if has_data and not yes and sys.stdin.isatty():
        yes = click.confirm(f"Replace everything in {data_dir}?", abort=True, err=True)
    with Progress("restored", unit="bytes") as progress:
        restored = restoring.restore(
            directory,
            data_dir,
            now_ms=wall_clock_ms(),
            replace=yes,
            backup_server_key=None if backup_key_file is None else _key_in(backup_key_file),
            report=progress.show,
            **_server_key_of(settings),
        )
    counts = {
        "vaults": restored.vaults,
        "vaults_erased": restored.vaults_erased,
        "keys_revoked": restored.keys_revoked,
    }
    if as_json:
        print_json({"directory": str(directory), "backup_made_ms": restored.manifest.created_ms, **counts})
    else:
        click.echo(
            f"restored: {restored.vaults} vaults; erased again since the backup: {restored.vaults_erased} vaults, "
            f"{restored.keys_revoked} keys"
        )


@click.command(short_help="Verify everything in the data directory.")
@CONFIG
@DATA_DIR
@JSON
@click.option("--repair", "repairs", is_flag=True, help="Mend what can be mended without loss; no server may run.")
@click.option(
    "--accept-loss",
    "accepts_loss",
    is_flag=True,
    help="Let databases that lost commits serve again; what is lost stays lost. Make a copy before.",
)
@click.pass_context
def doctor(
    context: click.Context, config: Path | None, data_dir: Path, *, as_json: bool, repairs: bool, accepts_loss: bool
) -> None:
    """Verify everything in the data directory and say what is wrong, also beside a running server.

    Reads every row. Changes nothing unless told to. Exit code 0: nothing is damaged (warnings do not count). 1: damage
    was found. 2: there is no such data directory, or it is in use and was to be repaired.
    """
    settings = load(config)
    from actors.store.doctor import verify
    from actors.store.mending import accept_loss, repair
    from router.components import wall_clock_ms
    from router.configured_store import require_sqlite

    require_sqlite(settings, "pg_amcheck verifies it, and `memoryrouter cluster status` shows the servers")
    done: list[str] = []
    if accepts_loss:
        for loss in accept_loss(data_dir, now_ms=wall_clock_ms()):
            kept = f"; the old file is {loss.moved_to}" if loss.moved_to else ""
            done.append(f"Accepted the loss of {loss.commits} commits of {loss.name}{kept}.")
    if repairs:
        done += repair(data_dir, now_ms=wall_clock_ms(), **_server_key_of(settings))
    with Progress("verified", unit="bytes") as progress:
        report = _with_startup_code(verify(data_dir, progress=progress.show, **_server_key_of(settings)))
    if as_json:
        print_json(_report_as_json(report, done))
    else:
        _print_report(report, done)
    context.exit(0 if report.healthy else EXIT_FAULT)


def _with_startup_code(report: Report) -> Report:
    """The report, with a warning of code that runs before this program and that nobody expects."""
    import msgspec

    from actors.store.examining import Finding
    from router.startup_code import unexpected_startup_code

    what = "Runs code whenever this Python starts, and is not known to be harmless."
    remedy = "Find out which package brought it; if none should have, take the machine's keys for stolen."
    warnings = (Finding("warning", str(file), what, remedy) for file in unexpected_startup_code())
    return msgspec.structs.replace(report, findings=(*report.findings, *warnings))


def _report_as_json(report: Report, done: list[str]) -> dict[str, Any]:
    import msgspec

    answer: dict[str, Any] = msgspec.to_builtins(report)
    return {"healthy": report.healthy, "repairable": report.repairable, "done": done, **answer}


def _print_report(report: Report, done: list[str]) -> None:
    for sentence in done:
        click.echo(sentence)
    for database in report.databases:
        rows = ", ".join(f"{count} {table}" for table, count in database.rows_verified.items())
        click.echo(f"{database.name}: schema {database.schema}, {database.commits} commits{rows and ', ' + rows}")
    for finding in report.findings:
        mendable = " (--repair does it)" if finding.repairable else ""
        severity = styled(finding.severity, _SEVERITIES.get(finding.severity, "dim"), sys.stdout)
        click.echo(f"{severity}: {finding.where}: {finding.what} {finding.remedy}".rstrip() + mendable)
    state = styled("healthy", "good", sys.stdout) if report.healthy else styled("damaged", "error", sys.stdout)
    running = ", in use by a server" if report.running else ""
    click.echo(f"{state}: {report.vaults} vaults, {report.keys} keys{running}")


@click.command("rotate-server-key", short_help="Exchange the key that wraps the vaults' keys.")
@CONFIG
@DATA_DIR
@JSON
@click.option(
    "--new-key",
    envvar=NEW_SERVER_KEY_VARIABLE,
    help=f"The new key in base64, if it is not to be in a file. Better given as {NEW_SERVER_KEY_VARIABLE}: other users "
    "of the machine can read a command's arguments.",
)
def rotate_server_key(config: Path | None, data_dir: Path, *, as_json: bool, new_key: str | None) -> None:
    """Exchange the server key; every vault's key is wrapped anew. No server may run.

    Without a new key given, one is made and put into the key's file. Older backups need the old key: keep a copy of it
    as long as you keep them.
    """
    settings = load(config)
    from actors.store import data_directory
    from models.errors import SetupError
    from models.provider_settings import Secret
    from models.store_settings import StoreSettings
    from router.components import wall_clock_ms
    from router.configured_store import require_sqlite

    require_sqlite(settings, "its server key cannot be changed yet")
    secret = StoreSettings(server_key=Secret(new_key)).server_key_bytes() if new_key else None
    if secret is None and settings.store.server_key:
        raise SetupError(
            "the server key comes from store.server_key, so the new one must be given too.",
            hint=f"Set {NEW_SERVER_KEY_VARIABLE} for this command, and store.server_key to it afterwards.",
        )
    with Progress("rotated", unit="vaults") as progress:
        rotation = data_directory.rotate_server_key(
            data_dir,
            now_ms=wall_clock_ms(),
            new_server_key=secret,
            report=progress.show,
            **_server_key_of(settings),
        )
    if as_json:
        print_json({"vaults": rotation.vaults, "damaged": list(rotation.damaged)})
        return
    click.echo(f"rotated: the keys of {rotation.vaults} vaults")
    if rotation.damaged:
        warn(f"the keys of {len(rotation.damaged)} vaults could not be opened before either")


def _server_key_of(settings: Settings) -> dict[str, Any]:
    """The server key as the store's functions take it."""
    return {"server_key_file": settings.store.key_path, "server_key": settings.store.server_key_bytes()}


def _key_in(path: Path) -> bytes:
    from actors.store.seal import load_server_key
    from models.errors import SetupError

    load_server_key(path, may_create=False)  # whose errors are in words
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: the server key cannot be read: {error.strerror}.") from error
