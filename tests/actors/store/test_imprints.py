"""The imprint's file: whole or not there, sealed, and gone when it has to be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.store.imprints import NAME, load_imprint, remove_imprint, save_imprint
from actors.store.seal import DataKey, Table
from actors.store.snapshots import remove_snapshots
from models.errors import StoreUnavailable

VAULT = 0x1234
WORDS = b"the launch code is 7-4-1-alpha "


def key(vault_number: int = VAULT) -> DataKey:
    return DataKey(vault_number.to_bytes(32, "big"), vault_number=vault_number)


def file_of(directory: Path, vault_number: int = VAULT) -> Path:
    return directory / f"{vault_number & 0xFF:02x}" / str(vault_number) / NAME


def save(directory: Path, *parts: bytes) -> None:
    save_imprint(directory, key(), VAULT, [memoryview(part) for part in parts])


def load(directory: Path) -> bytes | None:
    data = load_imprint(directory, key(), VAULT)
    return None if data is None else bytes(data)


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (5, 0, 7), (1 << 20,), (3, 1 << 20, 1_500_000)])
def test_what_was_saved_comes_back(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    parts = [os.urandom(size) for size in sizes]
    save(tmp_path, *parts)
    assert load(tmp_path) == b"".join(parts)


def test_a_vault_without_imprint_has_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    remove_imprint(tmp_path, VAULT)


def test_the_next_one_replaces_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, b"long" * 1_000)
    save(tmp_path, b"short")
    assert load(tmp_path) == b"short"
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == [NAME]


def test_a_failed_save_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, b"before")
    with pytest.raises(TypeError):
        save_imprint(tmp_path, key(), VAULT, [memoryview(b"new"), None])  # type: ignore[list-item]  # fails half-way
    assert load(tmp_path) == b"before"
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == [NAME]


def test_a_save_that_is_given_up_leaves_the_one_before(tmp_path: Path) -> None:
    """After any piece, also behind those that were synced already."""
    save(tmp_path, b"before")
    pieces = 0

    def give_up() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 18:
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError, match="given up"):
        save_imprint(tmp_path, key(), VAULT, [memoryview(bytes(20 << 20))], between=give_up)
    assert pieces == 18
    assert load(tmp_path) == b"before"
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == [NAME]


def test_it_is_sealed_and_for_its_owner_only(tmp_path: Path) -> None:
    save(tmp_path, WORDS * 1_000)
    assert b"launch" not in file_of(tmp_path).read_bytes()
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_a_piece_and_say_so(data: bytes) -> bytes:
    """The first piece alone, with a header that fits it."""
    return data[:10] + (1 << 20).to_bytes(8, "big") + data[18 : 18 + (1 << 20) + 28]


def flip(place: int) -> Callable[[bytes], bytes]:
    def harm(data: bytes) -> bytes:
        harmed = bytearray(data)
        harmed[place] ^= 1
        return bytes(harmed)

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        cut_in_half,
        cut_a_piece_and_say_so,
        lambda _: b"",
        lambda data: data[:17],
        lambda data: data + b"\0",
        *map(flip, (0, 9, 17, 18, 30, 2_000, -1)),
    ],
)
def test_a_damaged_file_is_noticed_and_removed(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    save(tmp_path, os.urandom(3 << 19))
    path = file_of(tmp_path)
    path.write_bytes(harm(path.read_bytes()))
    assert load(tmp_path) is None
    assert not path.exists()


def test_that_of_another_vault_does_not_open(tmp_path: Path) -> None:
    save(tmp_path, WORDS)
    stolen = file_of(tmp_path, 7)
    stolen.parent.mkdir(parents=True)
    stolen.write_bytes(file_of(tmp_path).read_bytes())
    assert load_imprint(tmp_path, key(7), 7) is None


def test_a_piece_is_no_row_of_memories(tmp_path: Path) -> None:
    save(tmp_path, WORDS)
    sealed = file_of(tmp_path).read_bytes()[18:]
    assert list(key().unseal_rows(Table.MEMORY, [(0, sealed)], damaged=[])) == []


def test_removing_overwrites_it_first(tmp_path: Path) -> None:
    save(tmp_path, WORDS * 1_000)
    path = file_of(tmp_path)
    twin = tmp_path / "twin"
    os.link(path, twin)  # what the blocks hold afterwards
    remove_imprint(tmp_path, VAULT)
    assert not path.exists()
    assert not twin.read_bytes().strip(b"\0")


def test_the_end_of_a_vault_removes_it(tmp_path: Path) -> None:
    save(tmp_path, WORDS)
    remove_snapshots(tmp_path, VAULT)
    assert load(tmp_path) is None


def test_what_cannot_be_written_or_removed_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        save(tmp_path / "file", WORDS)
    file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        remove_imprint(tmp_path, VAULT)
