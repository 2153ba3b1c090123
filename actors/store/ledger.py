"""The erasure ledger: what was shredded, revoked and deleted, in a file that no restore replaces.

A backup made before an erasure still holds the vault's wrapped key, the live key row, the sealed provider key. The
ledger is what makes them void again. Owns `erasure.log`: one checksummed JSON line an erasure, appended and synced
before the erasure is answered. Vaults and accounts are named by their number and creation time, since numbers may be
given out twice after a restore; a key by a hash of its hash, a provider's key by a hash of its random mark. Must never
hold anything that opens a row or a door.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

LEDGER_FILE = "erasure.log"
LOCK_WAIT_S = 5.0
"""How long an append waits for another process's, which takes as long as a sync unless that process is frozen."""
_LOOK_AGAIN_S = 0.005

_log = logging.getLogger(__name__)


class ErasedVault(msgspec.Struct, frozen=True, tag="vault"):
    """A vault whose data key is destroyed."""

    vault: int
    created_ms: int
    erased_ms: int


class RevokedKey(msgspec.Struct, frozen=True, tag="key", omit_defaults=True):
    """A key that opens nothing any more. `key` is `key_id` of its hash.

    Attributes:
        rotated: another one took its place, and it is valid until `revoked_ms`, the end of its grace period. Otherwise
            it is revoked whatever the clock says.
    """

    key: str
    revoked_ms: int
    rotated: bool = False


class DeletedAccount(msgspec.Struct, frozen=True, tag="account"):
    """An account that is gone for good. Its keys and vaults have entries of their own."""

    account: int
    created_ms: int
    deleted_ms: int


class ErasedProviderKey(msgspec.Struct, frozen=True, tag="provider_key"):
    """A provider's key that was deleted or replaced. `key` is `mark_id` of its mark."""

    key: str
    erased_ms: int


class DeletedMemories(msgspec.Struct, frozen=True, tag="memories"):
    """Memories of a vault that lives on. Seqs may be given out twice after a restore: those stored later are others.

    Attributes:
        seqs: ranges, first and last included.
    """

    vault: int
    created_ms: int
    deleted_ms: int
    seqs: tuple[tuple[int, int], ...]


Erasure = ErasedVault | RevokedKey | DeletedAccount | ErasedProviderKey | DeletedMemories

_encode = msgspec.json.Encoder().encode
_erasures: msgspec.json.Decoder[Erasure] = msgspec.json.Decoder(Erasure)


def key_id(key_hash: bytes) -> str:
    """Names a key row in the ledger without being its hash."""
    return hashlib.sha256(b"memoryrouter revoked key" + key_hash).hexdigest()[:32]


def mark_id(mark: bytes) -> str:
    """Names a provider's key in the ledger without being its mark."""
    return hashlib.sha256(b"memoryrouter provider key" + mark).hexdigest()[:32]


class Ledger(msgspec.Struct, frozen=True):
    """What a ledger file holds.

    Attributes:
        vaults: erased vaults by number and creation time.
        keys: revoked keys by id; of one that was rotated and revoked then, the revocation.
        accounts: deleted accounts by number and creation time.
        provider_keys: erased provider keys by id.
        memories: deleted memories. meta.db knows nothing of them; a restore deletes them from the shards again.
        damaged_lines: lines that fail their checksum. The last one may be an erasure that nobody was told of.
    """

    vaults: dict[tuple[int, int], ErasedVault]
    keys: dict[str, RevokedKey]
    accounts: dict[tuple[int, int], DeletedAccount]
    provider_keys: dict[str, ErasedProviderKey]
    memories: set[DeletedMemories] = msgspec.field(default_factory=set)
    damaged_lines: int = 0

    @property
    def erasures(self) -> list[Erasure]:
        """All of them."""
        return [
            *self.vaults.values(),
            *self.keys.values(),
            *self.accounts.values(),
            *self.provider_keys.values(),
            *sorted(self.memories, key=lambda deleted: deleted.deleted_ms),
        ]

    def missing_from(self, other: Ledger) -> list[Erasure]:
        """What of meta.db this one holds and the other does not."""
        return [
            *(erased for name, erased in self.vaults.items() if name not in other.vaults),
            *(revoked for revoked in self.keys.values() if not other.covers(revoked)),
            *(deleted for name, deleted in self.accounts.items() if name not in other.accounts),
            *(erased for name, erased in self.provider_keys.items() if name not in other.provider_keys),
        ]

    def covers(self, revoked: RevokedKey) -> bool:
        """Whether this knows the key to be revoked, or rotated if that is all that is said."""
        known = self.keys.get(revoked.key)
        return known is not None and (revoked.rotated or not known.rotated)


def ledger_of(erasures: Iterable[Erasure], *, damaged_lines: int = 0) -> Ledger:
    """A ledger of these."""
    ledger = Ledger(vaults={}, keys={}, accounts={}, provider_keys={}, damaged_lines=damaged_lines)
    for erasure in erasures:
        match erasure:
            case ErasedVault():
                ledger.vaults[erasure.vault, erasure.created_ms] = erasure
            case RevokedKey():
                if not ledger.covers(erasure):
                    ledger.keys[erasure.key] = erasure
            case DeletedAccount():
                ledger.accounts[erasure.account, erasure.created_ms] = erasure
            case ErasedProviderKey():
                ledger.provider_keys[erasure.key] = erasure
            case DeletedMemories():
                if (erasure.vault, erasure.created_ms) not in ledger.vaults:
                    ledger.memories.add(erasure)
    return ledger


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
    """The ledger of a running store. Any thread may append, and any process: they do so one after the other.

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
            unwritten = [*self.owed, *erasures]
            if not unwritten:
                return
            try:
                self._write(ledger_lines(unwritten))
            except OSError as error:
                self.owed = unwritten  # only now: whoever looks while another's are being written is owed nothing
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
            _lock(descriptor)  # until it is closed; only so is what looks like a cut line none that is being written
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line; it stays alone
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Wait until no other process writes the file.

    Raises:
        BlockingIOError: one still does after `LOCK_WAIT_S`.
    """
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
        time.sleep(_LOOK_AGAIN_S)
