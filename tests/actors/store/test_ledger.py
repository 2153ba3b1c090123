"""The erasure ledger: every line is checked, a torn one is nobody's loss, and what cannot be written stays owed."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from actors.store import ledger
from actors.store.ledger import (
    DeletedAccount,
    ErasedProviderKey,
    ErasedVault,
    Erasure,
    LedgerFile,
    RevokedKey,
    key_id,
    ledger_lines,
    ledger_of,
    mark_id,
    read_ledger,
)
from models.ids import hash_key
from tests.actors.store.harm import flip
from tests.patience import PATIENCE_S

ERASURES: list[Erasure] = [
    ErasedVault(vault=3, created_ms=10, erased_ms=20),
    RevokedKey(key=key_id(b"hash"), revoked_ms=30),
    ErasedVault(vault=3, created_ms=11, erased_ms=21),
]


def test_a_ledger_is_read_as_it_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "erasure.log"
    assert read_ledger(path) == ledger_of(())
    file = LedgerFile(path)
    file.append(ERASURES[:1])
    file.append(ERASURES[1:])
    file.append(())
    found = read_ledger(path)
    assert found == ledger_of(ERASURES)
    assert set(found.vaults) == {(3, 10), (3, 11)}
    assert path.read_bytes().count(b"\n") == 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_flipped_bit_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "erasure.log"
    path.write_bytes(ledger_lines(ERASURES))
    for offset in range(path.stat().st_size - 1):
        flip(path, offset)
        found = read_ledger(path)
        assert found.damaged_lines >= 1
        assert len(found.erasures) >= 1
        flip(path, offset)
    assert read_ledger(path).damaged_lines == 0


def test_what_follows_a_torn_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "erasure.log"
    path.write_bytes(ledger_lines(ERASURES)[:-5])
    LedgerFile(path).append(ERASURES[2:])
    found = read_ledger(path)
    assert (found.erasures, found.damaged_lines) == (ledger_of(ERASURES).erasures, 1)


def test_what_cannot_be_written_is_owed_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "erasure.log"
    path.mkdir()
    file = LedgerFile(path)
    with pytest.raises(IsADirectoryError):
        file.append(ERASURES[:1])
    assert file.owed == ERASURES[:1]
    assert "would not know of them" in caplog.text
    path.rmdir()
    file.append(ERASURES[1:])
    assert file.owed == []
    assert read_ledger(path) == ledger_of(ERASURES)


def test_nothing_is_owed_while_it_is_being_written(tmp_path: Path) -> None:
    """Others look at `owed` meanwhile, and must not take what is under way for something that failed."""
    seen: list[int] = []

    class Watched(LedgerFile):
        def _write(self, lines: bytes) -> None:
            seen.append(len(self.owed))
            super()._write(lines)

    Watched(tmp_path / "erasure.log").append(ERASURES)

    assert seen == [0]
    assert read_ledger(tmp_path / "erasure.log") == ledger_of(ERASURES)


def test_a_ledger_holds_no_key_and_no_hash_of_one(tmp_path: Path) -> None:
    key_hash = hash_key("mk_secret")
    line = ledger_lines([RevokedKey(key=key_id(key_hash), revoked_ms=1)])
    assert key_hash.hex().encode() not in line
    assert b"mk_secret" not in line


def test_ledgers_are_compared_by_what_they_name() -> None:
    assert ledger_of(ERASURES).missing_from(ledger_of(ERASURES[:2])) == ERASURES[2:]
    assert ledger_of(ERASURES[:1]).missing_from(ledger_of(ERASURES)) == []


def test_every_kind_of_erasure_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "erasure.log"
    everything: list[Erasure] = [
        *ERASURES,
        RevokedKey(key=key_id(b"rotated"), revoked_ms=40, rotated=True),
        DeletedAccount(account=2, created_ms=5, deleted_ms=50),
        ErasedProviderKey(key=mark_id(b"mark"), erased_ms=60),
    ]
    path.write_bytes(ledger_lines(everything))
    found = read_ledger(path)
    assert found == ledger_of(everything)
    assert len(found.erasures) == 6
    assert found.missing_from(ledger_of(())) == found.erasures
    assert found.missing_from(found) == []
    assert b"rotated" not in ledger_lines(ERASURES), "and lines of earlier versions are what they were"
    assert mark_id(b"mark") != key_id(b"mark")


def test_a_revocation_counts_more_than_the_end_of_a_grace_period() -> None:
    """Whichever was written first: after a crash the database's own knowledge is appended behind."""
    key = key_id(b"hash")
    rotated = RevokedKey(key=key, revoked_ms=40, rotated=True)
    revoked = RevokedKey(key=key, revoked_ms=20)
    for both in ([rotated, revoked], [revoked, rotated]):
        assert ledger_of(both).keys == {key: revoked}
    assert ledger_of([revoked]).missing_from(ledger_of([rotated])) == [revoked]
    assert ledger_of([rotated]).missing_from(ledger_of([revoked])) == []


def test_processes_append_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "erasure.log"
    lines = ledger_lines(ERASURES)
    path.write_bytes(lines[:-5])
    with path.open("ab", buffering=0) as other:  # another process, in the middle of its line
        fcntl.flock(other, fcntl.LOCK_EX)
        late = ErasedVault(vault=4, created_ms=12, erased_ms=22)
        appending = threading.Thread(target=LedgerFile(path).append, args=([late],))
        appending.start()
        appending.join(0.05)  # it has begun, most likely; it may not write in any case
        assert path.read_bytes() == lines[:-5]
        other.write(lines[-5:])
    appending.join(PATIENCE_S)
    assert read_ledger(path) == ledger_of([*ERASURES, late]), "nothing was taken for a cut line"


def test_what_a_frozen_process_keeps_from_being_written_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "erasure.log"
    monkeypatch.setattr(ledger, "LOCK_WAIT_S", 0.0)
    file = LedgerFile(path)
    with path.open("ab") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unavailable"):
            file.append(ERASURES)
    assert file.owed == ERASURES
    file.append(())
    assert read_ledger(path) == ledger_of(ERASURES)
