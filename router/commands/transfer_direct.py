"""An export or import straight out of or into a data directory that no server uses.

Owns who may do which. Must never touch a directory that a server uses: see `router.commands.directory_vaults`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.settings import Settings
from router.commands.directory_vaults import open_house, refuse_suffix, require_write
from router.commands.terminal import Progress
from router.commands.transfer_files import ExportFile, Selection
from router.components import wall_clock_ms
from router.exporting import import_messages, open_export, parse_export

PAGE_TIMEOUT_S = 600.0
REQUEST_ID = "memoryrouter-import"


async def export_from_directory(
    file: ExportFile,
    settings: Settings,
    data_dir: Path,
    key: str | None,
    vault_number: int | None,
    selection: Selection,
    progress: Progress,
) -> None:
    """Export from a data directory that no server uses.

    Raises:
        SetupError: there is none, or a server uses it.
        Unauthenticated, Forbidden, NotFound: the key or the number opens no vault.
    """
    async with open_house(settings, data_dir) as house:
        if vault_number is not None:
            vault = await house.vault_of_number(vault_number)
        else:
            vault, credential = await house.vault_of_key(key or "")
            refuse_suffix(credential)
        stream = await open_export(
            house.supervisor,
            vault,
            now_ms=wall_clock_ms(),
            after_seq=max(selection.after, file.last_seq),
            session_id=selection.session_id,
            vectors=selection.vectors,
            timeout_s=PAGE_TIMEOUT_S,
        )
        async for piece in stream:
            file.feed(piece)
            progress.show(file.count, file.total)


async def import_into_directory(
    bodies: Iterator[tuple[int, bytes]],
    total: int,
    settings: Settings,
    data_dir: Path,
    key: str,
    progress: Progress,
) -> tuple[int, int]:
    """Import into a data directory that no server uses; the sums of what was stored and what was known.

    Raises:
        SetupError: there is none, or a server uses it.
        Unauthenticated, Forbidden: the key opens no vault, or may not write.
    """
    stored = duplicates = done = 0
    async with open_house(settings, data_dir) as house:
        vault, credential = await house.vault_of_key(key)
        require_write(credential)
        for count, body in bodies:
            messages = parse_export(body, limits=settings.memory)
            applied = await import_messages(
                house.supervisor, vault, messages, now_ms=wall_clock_ms(), request_id=REQUEST_ID
            )
            stored, duplicates, done = stored + applied.stored, duplicates + applied.duplicates, done + count
            progress.show(done, total)
    return stored, duplicates
