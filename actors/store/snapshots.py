"""Sealed index segments on the disk: `<directory>/<two digits>/<vault>/<segment>.<generation>`.

Owns which files there are, and how many generations of each. They are a cache: a bad or missing one costs a rebuild,
never a memory and never a wrong answer, so what does not hold is removed. What is in a file is the business of
`actors.store.segment_files`. Synchronous: for worker threads, one call at a time for one vault.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from actors.segments import Segment
from actors.store.seal import DataKey, sync_directory
from actors.store.segment_files import DRAFT_SUFFIX, Refused, read_segment, shred, write_segment
from models.errors import StorageFull, StoreUnavailable

GENERATIONS_KEPT = 2

_NAME = re.compile(r"(\d{1,9})\.(\d{1,18})")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_log = logging.getLogger(__name__)


class Unusable(msgspec.Struct, frozen=True):
    """A file that was refused and removed: its name and why."""

    name: str
    reason: str


class LoadedSegments(msgspec.Struct, frozen=True):
    """What a vault's directory held: usable segments, the newest memories first, and what was refused."""

    segments: tuple[Segment, ...]
    unusable: tuple[Unusable, ...]


# Saving.


def save_segment(directory: Path, data_key: DataKey, vault_number: int, segment: Segment) -> int:
    """Write a new generation of a segment and remove all but the one before it. Durable when it returns.

    Returns:
        The generation.

    Raises:
        StorageFull: the disk is full; older generations are still there.
        StoreUnavailable: the file cannot be written, or there is no memory for a copy of the segment.
    """
    home = home_of(directory, vault_number)
    try:
        make_directories(directory, home)
        older = sorted(generation for number, generation in _files(home) if number == segment.number)
        generation = older[-1] + 1 if older else 1
        with segment.open_payload() as payload:
            write_segment(home, data_key, vault_number, segment, generation, payload)
        for outdated in older[: -(GENERATIONS_KEPT - 1)]:
            (home / f"{segment.number}.{outdated}").unlink(missing_ok=True)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("The disk is too full for a snapshot of an index.") from error
        raise StoreUnavailable(f"A snapshot of an index cannot be written: {error.strerror}.") from error
    return generation


def make_directories(directory: Path, home: Path) -> None:
    """Make a vault's own directory, durably."""
    for path in (directory, home.parent, home):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(path.parent)


# Loading.


def load_segments(directory: Path, data_key: DataKey, vault_number: int, *, model_id: str, dims: int) -> LoadedSegments:
    """The newest usable generation of each segment of a vault. Files that are not usable are removed, and logged."""
    home = home_of(directory, vault_number)
    loaded: dict[int, tuple[int, Segment]] = {}
    unusable: list[Unusable] = []
    try:
        files = sorted(_files(home), reverse=True)
        _remove_drafts(home)
    except OSError as error:
        return LoadedSegments(segments=(), unusable=(_refusal(vault_number, home.name, _reason(error)),))
    for number, generation in files:
        if number in loaded:
            continue
        path = home / f"{number}.{generation}"
        try:
            loaded[number] = read_segment(
                path, data_key, vault_number, number, generation, model_id=model_id, dims=dims
            )
        except (Refused, OSError, MemoryError) as error:
            unusable.append(_refusal(vault_number, path.name, _reason(error)))
            with contextlib.suppress(OSError):
                path.unlink()
    newest_first = sorted(loaded.values(), key=lambda pair: pair[0], reverse=True)
    return LoadedSegments(segments=tuple(segment for _, segment in newest_first), unusable=tuple(unusable))


def _refusal(vault_number: int, name: str, reason: str) -> Unusable:
    _log.warning("snapshot_unusable", extra={"vault": vault_number, "file": name, "reason": reason})
    return Unusable(name=name, reason=reason)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


# Removing.


def prune_segments(directory: Path, vault_number: int, *, keep: Collection[int]) -> None:
    """Remove the files of segments that are no longer part of a vault's index (merged, rebuilt, emptied), for good:
    they may hold vectors of memories that are deleted.

    Raises:
        StoreUnavailable: a file cannot be removed.
    """
    home = home_of(directory, vault_number)
    try:
        for number, generation in _files(home):
            if number not in keep:
                shred(home / f"{number}.{generation}")
        _remove_drafts(home)
    except OSError as error:
        raise StoreUnavailable(f"Snapshots of an index cannot be removed: {error.strerror}.") from error


def remove_snapshots(directory: Path, vault_number: int) -> None:
    """Remove all that there is of a vault, durably; nothing at all is fine.

    Raises:
        StoreUnavailable: a file cannot be removed.
    """
    home = home_of(directory, vault_number)
    try:
        shutil.rmtree(home)
        sync_directory(home.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"Snapshots of an index cannot be removed: {error.strerror}.") from error


def home_of(directory: Path, vault_number: int) -> Path:
    """A vault's own directory; the level above keeps directories small."""
    return directory / f"{vault_number & 0xFF:02x}" / str(vault_number)


def _files(home: Path) -> list[tuple[int, int]]:
    """Segment and generation of each file."""
    if not home.exists():
        return []
    matches = (_NAME.fullmatch(name) for name in os.listdir(home))
    return [(int(match[1]), int(match[2])) for match in matches if match]


def _remove_drafts(home: Path) -> None:
    """What a crash in the middle of saving has left. Not the draft of an imprint, which may be under way."""
    if home.exists():
        for draft in home.glob("*.*" + DRAFT_SUFFIX):
            shred(draft)
