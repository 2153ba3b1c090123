"""Segments on the disk: what was saved comes back, and what was damaged is noticed before hnswlib sees it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from actors.segments import GONE, NOWHERE, BuildJob, Segment
from actors.store.seal import DataKey
from actors.store.snapshots import LoadedSegments, load_segments, prune_segments, remove_snapshots, save_segment
from models.errors import StorageFull, StoreUnavailable

DIMS = 384
ROWS = 1_300  # a payload of three pieces
MODEL = "test-model@1"
VAULT = 0x1234


def key(vault_number: int = VAULT) -> DataKey:
    """The data key of a vault."""
    return DataKey(vault_number.to_bytes(32, "big"), vault_number=vault_number)


def vectors(rows: int, seed: int) -> NDArray[np.float32]:
    """Random rows of length 1."""
    found = np.random.default_rng(seed).normal(size=(rows, DIMS))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def built(rows: int = ROWS, *, seed: int = 0, number: int = 1) -> Segment:
    """A segment whose row n belongs to memory n + 1 and chunk n."""
    job = BuildJob(
        [[vectors(rows, seed)]],
        model_id=MODEL,
        dims=DIMS,
        labels=np.arange(1, rows + 1, dtype=np.uint64) << np.uint64(20),
        chunks=np.arange(rows, dtype=np.int32),
        merged=[],
    )
    segment = job.run()
    assert segment is not None
    segment.number = number
    return segment


def load(directory: Path, vault_number: int = VAULT, *, model_id: str = MODEL, dims: int = DIMS) -> LoadedSegments:
    return load_segments(directory, key(vault_number), vault_number, model_id=model_id, dims=dims)


def home(directory: Path, vault_number: int = VAULT) -> Path:
    return directory / f"{vault_number & 0xFF:02x}" / str(vault_number)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in home(directory).iterdir())


# Saving and loading.


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    segment, query = built(), vectors(1, 9)[0]
    assert save_segment(tmp_path, key(), VAULT, segment) == 1
    loaded = load(tmp_path)
    (back,) = loaded.segments
    assert (loaded.unusable, back.number, back.saved, back.live) == ((), 1, True, 0)
    np.testing.assert_array_equal(back.labels, segment.labels)
    back.place(segment.chunks)
    before, after = segment.query(query, candidates=50), back.query(query, candidates=50)
    assert sorted(before[0].tolist()) == sorted(after[0].tolist())
    assert names(tmp_path) == ["1.1"]


def test_a_vault_without_snapshots_has_none(tmp_path: Path) -> None:
    assert load(tmp_path) == LoadedSegments(segments=(), unusable=())


def test_a_tombstone_has_no_label_in_a_snapshot(tmp_path: Path) -> None:
    segment = built(10)
    segment.bury(np.array([3, 9]))
    save_segment(tmp_path, key(), VAULT, segment)
    (back,) = load(tmp_path).segments
    assert np.flatnonzero(back.labels == GONE).tolist() == [3, 9]
    back.place(np.where(back.labels == GONE, NOWHERE, np.arange(10)).astype(np.int32))
    assert set(back.query(vectors(1, 9)[0], candidates=10)[0].tolist()) == set(range(10)) - {3, 9}


def test_two_generations_are_kept(tmp_path: Path) -> None:
    segment = built(10)
    assert [save_segment(tmp_path, key(), VAULT, segment) for _ in range(4)] == [1, 2, 3, 4]
    assert names(tmp_path) == ["1.3", "1.4"]


def test_the_older_generation_stands_in_for_a_bad_one(tmp_path: Path) -> None:
    segment = built(10)
    save_segment(tmp_path, key(), VAULT, segment)
    save_segment(tmp_path, key(), VAULT, segment)
    (home(tmp_path) / "1.2").write_bytes(b"")
    loaded = load(tmp_path)
    assert [(bad.name, bad.reason) for bad in loaded.unusable] == [("1.2", "shorter than its header")]
    assert len(loaded.segments) == 1
    assert names(tmp_path) == ["1.1"]


def test_segments_come_the_newest_memories_first(tmp_path: Path) -> None:
    for number, rows in ((1, 30), (2, 50), (3, 40)):
        save_segment(tmp_path, key(), VAULT, built(rows, number=number))
    assert [segment.number for segment in load(tmp_path).segments] == [2, 3, 1]


def test_nothing_of_a_vector_or_the_model_stands_in_clear(tmp_path: Path) -> None:
    segment = built(50)
    save_segment(tmp_path, key(), VAULT, segment)
    data = (home(tmp_path) / "1.1").read_bytes()
    assert MODEL.encode() not in data
    assert not any(row[:4].tobytes() in data for row in vectors(50, 0))


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    save_segment(tmp_path / "snap", key(), VAULT, built(10))
    assert (home(tmp_path / "snap") / "1.1").stat().st_mode & 0o777 == 0o600
    assert home(tmp_path / "snap").stat().st_mode & 0o777 == 0o700


def test_drafts_of_a_crash_are_removed(tmp_path: Path) -> None:
    save_segment(tmp_path, key(), VAULT, built(10))
    (home(tmp_path) / "1.2.new").write_bytes(b"half")
    load(tmp_path)
    assert names(tmp_path) == ["1.1"]


# Failing to save.


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writes beyond it fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_hnswlib_could_not_write_is_noticed(tmp_path: Path) -> None:
    """Its own file is cut short without an error: here by a limit that holds for files in memory too."""
    with files_no_larger_than(100_000), pytest.raises(StoreUnavailable, match="snapshot"):
        save_segment(tmp_path, key(), VAULT, built())
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    segment = built()
    save_segment(tmp_path, key(), VAULT, segment)
    with segment.open_payload() as payload:
        room = os.fstat(payload).st_size + 1_000  # the sealed file is larger than hnswlib's own
    with files_no_larger_than(room), pytest.raises(StorageFull):
        save_segment(tmp_path, key(), VAULT, segment)
    assert names(tmp_path) == ["1.1"]
    assert len(load(tmp_path).segments) == 1


# Removing.


def test_segments_that_are_no_longer_used_are_removed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_segment(tmp_path, key(), VAULT, built(10, number=number))
    prune_segments(tmp_path, VAULT, keep={2})
    assert names(tmp_path) == ["2.1"]
    prune_segments(tmp_path, VAULT + 1, keep=set())


def test_a_vault_can_be_removed_whole(tmp_path: Path) -> None:
    for vault_number in (VAULT, VAULT + 0x100):
        save_segment(tmp_path, key(vault_number), vault_number, built(10))
    remove_snapshots(tmp_path, VAULT)
    remove_snapshots(tmp_path, VAULT)
    assert not home(tmp_path).exists()
    assert len(load(tmp_path, VAULT + 0x100).segments) == 1


# Damage.


@cache
def saved() -> dict[str, bytes]:
    """Whole files: of this vault in two generations, of another one, and of another segment."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        segment, other = built(), built(seed=1, number=2)
        for _ in range(2):
            save_segment(path, key(), VAULT, segment)
        save_segment(path, key(), VAULT, other)
        save_segment(path, key(VAULT + 1), VAULT + 1, segment)
        found = {name: (home(path) / name).read_bytes() for name in ("1.1", "1.2", "2.1")}
        found["other vault"] = (home(path, VAULT + 1) / "1.1").read_bytes()
        return found


def _flip_a_bit(data: bytearray, pick: random.Random) -> None:
    data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)


def _flip_a_bit_of_the_header(data: bytearray, pick: random.Random) -> None:
    data[pick.randrange(200)] ^= 1 << pick.randrange(8)


def _truncate(data: bytearray, pick: random.Random) -> None:
    del data[pick.randrange(len(data)) :]


def _truncate_at_a_piece(data: bytearray, pick: random.Random) -> None:
    del data[-pick.randrange(1, len(data) // 2) :]


def _empty(data: bytearray, pick: random.Random) -> None:
    del data[:]


def _garbage(data: bytearray, pick: random.Random) -> None:
    start = pick.randrange(len(data) - 16)
    data[start : start + 4_096] = pick.randbytes(len(data[start : start + 4_096]))


def _zeros(data: bytearray, pick: random.Random) -> None:
    start = pick.randrange(len(data) - 64)
    data[start : start + 4_096] = bytes(len(data[start : start + 4_096]))


def _all_garbage(data: bytearray, pick: random.Random) -> None:
    data[:] = pick.randbytes(pick.randrange(1, 100_000))


def _longer(data: bytearray, pick: random.Random) -> None:
    data += pick.randbytes(pick.randrange(1, 5_000))


def _repeated_piece(data: bytearray, pick: random.Random) -> None:
    at = len(data) // 2
    data[at : at + 4_096] = data[at - 8_192 : at - 4_096]


def _of_another_vault(data: bytearray, pick: random.Random) -> None:
    data[:] = saved()["other vault"]


def _of_another_segment(data: bytearray, pick: random.Random) -> None:
    data[:] = saved()["2.1"]


def _of_an_older_generation(data: bytearray, pick: random.Random) -> None:
    data[:] = saved()["1.1"]


def _of_an_older_generation_under_a_new_header(data: bytearray, pick: random.Random) -> None:
    data[38:] = saved()["1.1"][38:]


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    _flip_a_bit,
    _flip_a_bit_of_the_header,
    _truncate,
    _truncate_at_a_piece,
    _empty,
    _garbage,
    _zeros,
    _all_garbage,
    _longer,
    _repeated_piece,
    _of_another_vault,
    _of_another_segment,
    _of_an_older_generation,
    _of_an_older_generation_under_a_new_header,
]


@given(seed=st.integers(0, 2**32 - 1))
def test_every_damage_is_noticed_and_the_file_removed(seed: int) -> None:
    """With the profile `long`, thousands; a crash of hnswlib would end the test run."""
    pick = random.Random(seed)
    data = bytearray(saved()["1.2"])
    pick.choice(DAMAGES)(data, pick)
    assert bytes(data) != saved()["1.2"]
    with tempfile.TemporaryDirectory() as directory:
        path = home(Path(directory)) / "1.2"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        loaded = load(Path(directory))
        assert loaded.segments == ()
        assert [bad.name for bad in loaded.unusable] == ["1.2"]
        assert not path.exists()


def test_swapped_files_of_two_vaults_are_noticed(tmp_path: Path) -> None:
    for vault_number in (VAULT, VAULT + 1):
        save_segment(tmp_path, key(vault_number), vault_number, built(20, seed=vault_number))
    mine, theirs = home(tmp_path) / "1.1", home(tmp_path, VAULT + 1) / "1.1"
    shutil.move(mine, tmp_path / "swap")
    shutil.move(theirs, mine)
    shutil.move(tmp_path / "swap", theirs)
    assert len(load(tmp_path).unusable) == len(load(tmp_path, VAULT + 1).unusable) == 1


@pytest.mark.parametrize(
    ("model_id", "dims", "reason"),
    [("other-model@1", DIMS, "of another model"), (MODEL, DIMS - 1, "of 384 dimensions")],
)
def test_a_segment_of_another_model_is_refused(tmp_path: Path, model_id: str, dims: int, reason: str) -> None:
    save_segment(tmp_path, key(), VAULT, built(20))
    loaded = load(tmp_path, model_id=model_id, dims=dims)
    assert [bad.reason for bad in loaded.unusable] == [reason]
    assert names(tmp_path) == []


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    save_segment(tmp_path, key(), VAULT, built(20))
    other = DataKey(bytes(32), vault_number=VAULT)
    loaded = load_segments(tmp_path, other, VAULT, model_id=MODEL, dims=DIMS)
    assert loaded.segments == ()
    assert "checksum" in loaded.unusable[0].reason
