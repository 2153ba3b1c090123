"""The erasure ledger: which vaults were shredded and which keys revoked, in a file that no restore replaces.

A backup made before an erasure still holds the vault's wrapped key and the live key row. The ledger is what makes them
void again. Owns `erasure.log`: one checksummed JSON line an erasure, appended and synced before the erasure is
answered. A vault is named by its number and its creation time, since numbers may be given out twice after a restore;
a key by a hash of its hash. Must never hold anything that opens a row or a door.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

LEDGER_FILE = "erasure.log"

_log = logging.getLogger(__name__)


class ErasedVault(msgspec.Struct, frozen=True, tag="vault"):
    """A vault whose data key is destroyed."""

    vault: int
    created_ms: int
    erased_ms: int


class RevokedKey(msgspec.Struct, frozen=True, tag="key"):
    """A key that opens nothing any more. `key` is `key_id` of its hash."""

    key: str
    revoked_ms: int


Erasure = ErasedVault | RevokedKey

_encode = msgspec.json.Encoder().encode
_erasures: msgspec.json.Decoder[Erasure] = msgspec.json.Decoder(Erasure)


def key_id(key_hash: bytes) -> str:
    """Names a key row in the ledger without being its hash."""
    return hashlib.sha256(b"memoryrouter revoked key" + key_hash).hexdigest()[:32]


class Ledger(msgspec.Struct, frozen=True):
    """What a ledger file holds.

    Attributes:
        vaults: erased vaults by number and creation time.
        keys: revoked keys by id.
        damaged_lines: lines that fail their checksum. The last one may be an erasure that nobody was told of.
    """

    vaults: dict[tuple[int, int], ErasedVault]
    keys: dict[str, RevokedKey]
    damaged_lines: int = 0

    @property
    def erasures(self) -> list[Erasure]:
        """All of them."""
        return [*self.vaults.values(), *self.keys.values()]

    def missing_from(self, other: Ledger) -> list[Erasure]:
        """What this one holds and the other does not."""
        vaults = [erased for name, erased in self.vaults.items() if name not in other.vaults]
        keys = [revoked for name, revoked in self.keys.items() if name not in other.keys]
        return [*vaults, *keys]


def ledger_of(erasures: Iterable[Erasure], *, damaged_lines: int = 0) -> Ledger:
    """A ledger of these."""
    vaults, keys = {}, {}
    for erasure in erasures:
        if isinstance(erasure, ErasedVault):
            vaults[erasure.vault, erasure.created_ms] = erasure
        else:
            keys[erasure.key] = erasure
    return Ledger(vaults=vaults, keys=keys, damaged_lines=damaged_lines)


def read_ledger(path: Path) -> Ledger:
    """Read a ledger; a missing file is an empty one. Blocks.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ledger_of(())
    found, damaged = [], 0
    for line in filter(None, lines):
        erasure = _parsed(line)
        if erasure is None:
            damaged += 1
        else:
            found.append(erasure)
    return ledger_of(found, damaged_lines=damaged)


def _parsed(line: bytes) -> Erasure | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        return _erasures.decode(text)
    except msgspec.MsgspecError:
        return None


def ledger_lines(erasures: Iterable[Erasure]) -> bytes:
    """The lines of a ledger file."""
    texts = [_encode(erasure) for erasure in erasures]
    return b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts)


class LedgerFile:
    """The ledger of a running store. Any thread may append.

    Attributes:
        owed: erasures that took effect but could not be written yet; every further call tries again.
    """

    __slots__ = ("_lock", "_path", "owed")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.owed: list[Erasure] = []

    def append(self, erasures: Sequence[Erasure]) -> None:
        """Append and sync, with what is owed. Blocks.

        Raises:
            OSError: it could not be written; it is owed from now on.
        """
        with self._lock:
            self.owed += erasures
            if not self.owed:
                return
            try:
                self._write(ledger_lines(self.owed))
            except OSError as error:
                _log.critical(
                    "the erasure ledger cannot be written: %s; %d erasures took effect, but a restored backup would "
                    "not know of them",
                    error.strerror,
                    len(self.owed),
                )
                raise
            self.owed = []

    def _write(self, lines: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line; it stays alone
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
