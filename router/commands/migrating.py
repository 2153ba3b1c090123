"""`migrate-store`: a data directory becomes a PostgreSQL database, or the other way round.

Thin: what it does is in `actors.store.migrating`. Owns its words. Heavy imports happen inside the command.
"""

from __future__ import annotations

from pathlib import Path

import click

from router.commands.options import CONFIG, JSON, load
from router.commands.terminal import Progress, note, print_json


@click.command("migrate-store", short_help="Move everything between a data directory and PostgreSQL.")
@click.option("--from", "source", required=True, metavar="DIR|URL", help="What is moved; it stays as it is.")
@click.option("--to", "target", required=True, metavar="URL|DIR", help="An empty database, or a new directory.")
@CONFIG
@JSON
def migrate_store(source: str, target: str, config: Path | None, *, as_json: bool) -> None:
    """Copy a store to the other kind: a data directory to the PostgreSQL database of a URL, or back.

    No server may use either of them. Rows are copied as they are sealed, nothing is embedded again, and everything is
    compared at the end. Interrupted at any point, the same command goes on where it was; until it is through, no server
    starts with the target.

    The server key stays the same: it is taken from the data directory (server.key) or from where the settings say, and
    every node needs it. To move back into a new directory, put server.key there first. A password in the URL can be
    seen by other users of the machine: leave it to PGPASSWORD or to ~/.pgpass.
    """
    settings = load(config)
    from actors.store import migrating
    from router.components import wall_clock_ms

    with Progress("copied") as copied, Progress("compared") as compared:
        moved = migrating.migrate_store(
            source,
            target,
            keys=migrating.Keys(file=settings.store.key_path, secret=settings.store.server_key_bytes()),
            shards=settings.store.shards,
            parts=settings.store.parts,
            now_ms=wall_clock_ms(),
            watcher=migrating.Watcher(copied=copied.show, compared=compared.show, note=note),
        )
    if as_json:
        counts = {"vaults": moved.vaults, **moved.rows, "sealed_anew": moved.sealed_anew}
        print_json({**counts, "directory": moved.directory, "resumed": moved.resumed})
        return
    waiting = moved.rows["inbox"]
    click.echo(
        f"moved and compared: {moved.vaults} vaults, {moved.rows['memory']} memories, "
        f"{moved.rows['embedding']} embeddings, {waiting} messages that wait to be taken in"
    )
