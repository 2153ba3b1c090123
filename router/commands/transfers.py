"""`memoryrouter export` and `import`: one vault to a file and back.

Owns the choice of the way: over HTTP where a server's address is given or one runs on the data directory, else by
opening that itself. Both ways verify, and both can be broken off and run again. Heavy imports happen inside.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from router.commands.connecting import KEY, KEY_VARIABLE, URL, require_key, server_of
from router.commands.options import CONFIG, DATA_DIR, JSON, load, run
from router.commands.terminal import Progress, print_json

if TYPE_CHECKING:
    from router.commands.transfer_files import ExportFile

SPOOL_BYTES = 16 * 1024 * 1024
"""Of an export on stdin that is kept in memory; longer ones go to a temporary file."""


@click.command("export", short_help="Write one vault to a file or to stdout.")
@CONFIG
@DATA_DIR
@KEY
@click.option("--vault", type=int, help="Number of the vault instead of a key; without a running server.")
@URL
@click.option("--output", type=click.Path(path_type=Path), help="File to write; stdout unless given.")
@click.option("--no-vectors", is_flag=True, help="Leave embeddings out: a quarter of the size, embedded at import.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only what comes behind this seq.")
@click.option("--session", help="Only this session.")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted export left in OUTPUT.part.")
@JSON
def export_command(
    config: Path | None,
    data_dir: Path,
    key: str | None,
    vault: int | None,
    url: str | None,
    output: Path | None,
    after: int,
    session: str | None,
    *,
    no_vectors: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Write one vault as JSON lines, with checksums, to stdout or a file.

    The file carries its name only when it is whole. Lost connections are taken up again.
    """
    if key is None and vault is None:
        raise click.UsageError(f"Give the vault's Memory Key in {KEY_VARIABLE} or by --key, or its number by --vault.")
    if output is None and (resume or as_json):
        raise click.UsageError("--resume and --json need --output.")
    settings = load(config)
    from router.commands.transfer_files import Selection

    selection = Selection(after=after, session_id=session, vectors=not no_vectors)
    by_key = key is not None and vault is None
    url = (url or server_of(data_dir)) if by_key else None
    with _export_file(output, resume=resume) as file, Progress("exported") as progress:
        if url and key:
            from router.commands.transfer_http import export_over_http

            export_over_http(file, url, key, selection, progress)
        else:
            from router.commands.transfer_direct import export_from_directory

            run(partial(export_from_directory, file, settings, data_dir, key, vault, selection, progress))
    if as_json:
        print_json({"file": str(output), "memories": file.count, "last_seq": file.last_seq})
    elif output is not None:
        click.echo(f"exported: {file.count} memories to {output}")


@contextmanager
def _export_file(output: Path | None, *, resume: bool) -> Iterator[ExportFile]:
    """Where an export goes. A file that is left without an error gets its name."""
    from models.errors import StoreUnavailable
    from router.commands.transfer_files import ExportFile, open_part, put_in_place

    if output is None:
        yield ExportFile(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with open_part(output, resume=resume) as target:
        file = ExportFile(target)
        if resume:
            file.resume(target)
        yield file
        if not file.whole:
            raise StoreUnavailable("The export is not whole.", hint="Run it again with --resume.")
        put_in_place(output, target)


@click.command("import", short_help="Store the memories of an export in a vault.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@CONFIG
@DATA_DIR
@KEY
@URL
@JSON
def import_command(
    file: Path, config: Path | None, data_dir: Path, key: str | None, url: str | None, *, as_json: bool
) -> None:
    """Store the memories of an export in the vault of a key. FILE may be - for stdin.

    The whole file is verified before anything is stored. What the vault knows already is passed over, so an import that
    broke off is simply run again. Vectors of the same embedding model are taken over, others are computed anew.
    """
    key = require_key(key)
    settings = load(config)
    from router.commands.transfer_files import bodies_of, verify_file

    with _import_file(file) as source, Progress("imported") as progress:
        total = verify_file(source)
        bodies = bodies_of(source)
        url = url or server_of(data_dir)
        if url:
            from router.commands.transfer_http import import_over_http

            stored, duplicates = import_over_http(bodies, total, url, key, progress)
        else:
            from router.commands.transfer_direct import import_into_directory

            stored, duplicates = run(partial(import_into_directory, bodies, total, settings, data_dir, key, progress))
    if as_json:
        print_json({"memories": total, "stored": stored, "duplicates": duplicates})
    else:
        click.echo(f"imported: {stored} of {total} memories; {duplicates} were known already")


@contextmanager
def _import_file(path: Path) -> Iterator[BinaryIO]:
    """The export, in a form that can be read twice."""
    from models.errors import SetupError

    if str(path) == "-":
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.seek(0)
            yield spool  # type: ignore[misc]  # it has all of BinaryIO that is used, but not its type
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}.") from error
    with file:
        yield file
