"""The doctor: looks at everything in a data directory and says in words what is wrong and what to do about it.

Owns the report. Only reads, also beside a running server: `actors.store.mending` is what changes things.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import msgspec

from actors.store.backup import known_vaults
from actors.store.damage import ROW_IDS_LOGGED_MAX
from actors.store.data_directory import LOCK_FILE, META_FILE, open_untouched, shard_count, shard_path
from actors.store.database import one_row
from actors.store.erasing import erasures_of, undone_in
from actors.store.examining import DatabaseReport, Finding, describe, examine_shard, look_at
from actors.store.keyring import KeyRing
from actors.store.ledger import LEDGER_FILE, read_ledger
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS, schema_version
from actors.store.progress import Report as Progress
from actors.store.progress import unreported
from actors.store.provider_keys import damaged_provider_keys
from actors.store.restoring import PARTIAL_FOLDER, READY_FOLDER, SNAPSHOT_FOLDER
from actors.store.rotation import new_key_path, server_key_id, server_key_path
from actors.store.seal import ServerKey, load_server_key
from models.errors import SetupError

FREE_BYTES_MIN = 256 * 1024 * 1024
"""Free room below which the doctor warns."""


class Report(msgspec.Struct, frozen=True):
    """What the doctor found.

    Attributes:
        running: whether a server uses the directory.
        vaults: live vaults.
        keys: live keys.
        snapshots: index snapshot files and their bytes.
        free_bytes: room on the disk.
    """

    running: bool
    vaults: int
    keys: int
    databases: tuple[DatabaseReport, ...]
    snapshots: tuple[int, int]
    free_bytes: int
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is damaged. Warnings and notes do not count."""
        return all(finding.severity != "damage" for finding in self.findings)

    @property
    def repairable(self) -> bool:
        """Whether `repair` has something to do."""
        return any(finding.repairable for finding in self.findings)


def verify(
    data_dir: Path,
    *,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    progress: Progress = unreported,
) -> Report:
    """Look at everything and change nothing; reads every row. Blocks.

    Args:
        data_dir: the directory; a server may be using it.
        server_key_file: the server key's file, if it is not in the data directory.
        server_key: the server key itself, instead of a file.
        progress: told how many bytes of the shards are verified, and how many there are.

    Raises:
        SetupError: there is no data directory.
    """
    if not (data_dir / META_FILE).exists() and not (data_dir / READY_FOLDER).exists():
        raise SetupError(f"There is no data directory {data_dir}.")
    findings = list(_leftovers(data_dir, server_key_path(data_dir, server_key_file)))
    free_bytes = shutil.disk_usage(data_dir).free
    if free_bytes < FREE_BYTES_MIN:
        what = f"Only {free_bytes // 2**20} MiB are free."
        findings.append(Finding("warning", str(data_dir), what, "Make room; new memories are refused without."))
    meta = look_at(data_dir / META_FILE, META_MIGRATIONS, findings)
    vaults = keys = 0
    databases: list[DatabaseReport] = []
    if meta is not None:
        try:
            key = _server_key(meta, server_key_path(data_dir, server_key_file), server_key, findings)
            findings += _ledger_findings(meta, data_dir / LEDGER_FILE)
            findings += _provider_key_findings(meta, key)
            databases.append(describe(data_dir / META_FILE, meta, {}))
            databases += _examine_shards(data_dir, meta, key, findings, _Verified(data_dir, progress))
            (vaults,) = one_row(meta, "SELECT count(*) FROM vault WHERE state = 0")
            (keys,) = one_row(meta, "SELECT count(*) FROM key WHERE revoked_ms IS NULL")
        except apsw.Error as error:
            what = f"Reading stopped half-way: {type(error).__name__}."
            findings.append(Finding("damage", META_FILE, what, "Restore a backup."))
        finally:
            meta.close(True)
    return Report(
        running=_is_locked(data_dir),
        vaults=vaults,
        keys=keys,
        databases=tuple(databases),
        snapshots=_snapshots(data_dir / SNAPSHOT_FOLDER),
        free_bytes=free_bytes,
        findings=tuple(findings),
    )


class _Verified:
    """How much of the shards is verified, by the bytes of their rows and files."""

    __slots__ = ("_before", "_here", "_progress", "_total")

    def __init__(self, data_dir: Path, progress: Progress) -> None:
        self._progress = progress
        self._before = self._here = 0
        self._total = sum(path.stat().st_size for path in data_dir.glob("shard-*.db"))

    def note(self, size_bytes: int) -> None:
        """Rows with so many bytes are verified."""
        self._here += size_bytes
        self._progress(min(self._before + self._here, self._total), self._total)

    def end_file(self, path: Path) -> None:
        """All of a shard is: its pages hold more than the rows."""
        self._before, self._here = self._before + path.stat().st_size, 0
        self._progress(min(self._before, self._total), self._total)


def _examine_shards(
    data_dir: Path, meta: apsw.Connection, key: ServerKey | None, findings: list[Finding], verified: _Verified
) -> Iterator[DatabaseReport]:
    vaults = known_vaults(meta)
    keyring = None
    if key is not None:
        keyring = KeyRing(key, partial(open_untouched, data_dir / META_FILE), entries_max=1)
    try:
        for shard in range(shard_count(meta)):
            path = shard_path(data_dir, shard)
            connection = look_at(path, SHARD_MIGRATIONS, findings)
            if connection is None:
                continue
            try:
                find_vault = None if keyring is None else keyring.peek
                yield examine_shard(
                    path, connection, findings, vaults=vaults, find_vault=find_vault, opened=verified.note
                )
                verified.end_file(path)
            finally:
                connection.close(True)
    finally:
        if keyring is not None:
            keyring.close()


def _server_key(meta: apsw.Connection, path: Path, given: bytes | None, findings: list[Finding]) -> ServerKey | None:
    """The server key that opens `meta`; None, and a finding, without it."""
    wanted = server_key_id(meta)
    try:
        candidates = [ServerKey(given)] if given is not None else []
        if given is None:
            paths = (path, new_key_path(path))
            candidates = [load_server_key(file, may_create=False) for file in paths if file.exists()]
    except SetupError as error:
        findings.append(Finding("damage", path.name, error.message, error.hint))
        return None
    for key in candidates:
        if key.key_id == wanted:
            return key
    if wanted is not None and one_row(meta, "SELECT 1 FROM vault_key LIMIT 1") is not None:
        what = "The server key is missing." if not candidates else "The server key is not the one that sealed this."
        findings.append(Finding("damage", path.name, what, "Put the right key back; nothing can be read without it."))
    return None


def _ledger_findings(meta: apsw.Connection, path: Path) -> Iterator[Finding]:
    ledger = read_ledger(path)
    if ledger.damaged_lines:
        yield Finding("warning", LEDGER_FILE, f"{ledger.damaged_lines} lines fail their checksum.")
    if schema_version(meta) < len(META_MIGRATIONS):
        return
    unwritten = len(erasures_of(meta).missing_from(ledger))
    if unwritten:
        what = f"{unwritten} erasures are not in the ledger."
        yield Finding("warning", LEDGER_FILE, what, "The next start, or a repair, adds them.", repairable=True)
    undone = undone_in(meta, ledger)
    for count, what in (
        (len(undone.vaults), "erased vaults"),
        (len(undone.keys), "revoked keys"),
        (len(undone.accounts), "deleted accounts"),
        (len(undone.provider_keys), "deleted provider keys"),
    ):
        if count:
            sentence = f"{count} {what} are live: meta.db is older than the ledger."
            remedy = "The next start, or a repair, erases them again."
            yield Finding("damage", META_FILE, sentence, remedy, repairable=True)


def _provider_key_findings(meta: apsw.Connection, key: ServerKey | None) -> Iterator[Finding]:
    if key is None or schema_version(meta) < len(META_MIGRATIONS):
        return
    damaged = damaged_provider_keys(meta, key)
    if damaged:
        shown = ", ".join(damaged[:ROW_IDS_LOGGED_MAX]) + (", ..." if len(damaged) > ROW_IDS_LOGGED_MAX else "")
        what = f"{len(damaged)} stored provider keys fail their checksum: {shown}."
        yield Finding("damage", META_FILE, what, "Store them again; until then requests that need them fail.")


def _leftovers(data_dir: Path, key_path: Path) -> Iterator[Finding]:
    if (data_dir / READY_FOLDER).exists():
        what = "A restore was interrupted."
        yield Finding("warning", READY_FOLDER, what, "The next start, or a repair, finishes it.", repairable=True)
    if (data_dir / PARTIAL_FOLDER).exists():
        what = "A restore ended before it was decided."
        yield Finding("note", PARTIAL_FOLDER, what, "The next start, or a repair, removes it.", repairable=True)
    if new_key_path(key_path).exists():
        what = "An exchange of the server key was interrupted."
        yield Finding(
            "warning", new_key_path(key_path).name, what, "The next start, or a repair, settles it.", repairable=True
        )


def _snapshots(folder: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return len(sizes), sum(sizes)


def _is_locked(data_dir: Path) -> bool:
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # and with it the lock, if it was free
    return False
