"""An upload in slices: their size, their halves, and how an upload that broke off goes on without a loss."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.commands.upload_delivery import (
    SLICE_BYTES,
    SLICE_LINES_MAX,
    Delivery,
    Progress,
    ProgressFile,
    progress_file,
    progress_folder,
)
from router.commands.upload_plan import Line


def numbered(count: int, size: int = 1) -> Callable[[], Iterator[Line]]:
    """So many lines, each with its number."""
    return lambda: (Line(data=f"{number:0{size}}\n".encode(), place=f"line {number}") for number in range(count))


class Vault:
    """Stores each line once, as a server does; takes no slice longer than `lines_max`."""

    def __init__(self, lines_max: int = SLICE_LINES_MAX) -> None:
        self.known: dict[bytes, None] = {}
        self.requests = 0
        self._lines_max = lines_max

    def serve(self, delivery: Delivery, *, requests: int = 1_000_000, answers_last: bool = True) -> bool:
        """Take so many slices; True when the upload is through. The last answer may be lost."""
        for number in range(requests):
            part = delivery.next_slice()
            if part is None:
                delivery.finish()
                return True
            self.requests += 1
            if len(part.lines) > self._lines_max:
                assert delivery.too_large(part)
                continue
            new = [line.data for line in part.lines if line.data not in self.known]
            self.known.update(dict.fromkeys(new))
            if number < requests - 1 or answers_last:
                delivery.took(part, stored=len(new), duplicates=len(part.lines) - len(new))
        return False


def test_slices_have_a_bounded_number_of_lines() -> None:
    vault, delivery = Vault(), Delivery(numbered(2 * SLICE_LINES_MAX + 1))

    assert vault.serve(delivery)
    assert vault.requests == 3
    assert (delivery.stored, delivery.duplicates, delivery.done) == (
        2 * SLICE_LINES_MAX + 1,
        0,
        2 * SLICE_LINES_MAX + 1,
    )


def test_slices_have_a_bounded_number_of_bytes() -> None:
    delivery = Delivery(numbered(5, SLICE_BYTES // 2))

    sizes = []
    while (part := delivery.next_slice()) is not None:
        sizes.append(len(part.lines))
        delivery.took(part, stored=len(part.lines), duplicates=0)

    assert sizes == [2, 2, 1]


def test_a_slice_that_is_too_large_becomes_two_in_their_order() -> None:
    vault, delivery = Vault(lines_max=3), Delivery(numbered(10))

    assert vault.serve(delivery)
    assert list(vault.known) == [line.data for line in numbered(10)()]
    assert delivery.stored == 10


def test_a_single_line_cannot_be_made_smaller() -> None:
    delivery = Delivery(numbered(1))
    part = delivery.next_slice()

    assert part is not None
    assert not delivery.too_large(part)


def test_an_upload_that_broke_off_sends_only_its_last_slice_again(tmp_path: Path) -> None:
    vault, file = Vault(), ProgressFile(tmp_path / "p.json")
    vault.serve(Delivery(numbered(5 * SLICE_LINES_MAX), file), requests=4)

    delivery = Delivery(numbered(5 * SLICE_LINES_MAX), file)
    vault.requests = 0

    assert delivery.resumed == 4 * SLICE_LINES_MAX
    assert vault.serve(delivery)
    assert vault.requests == 2
    assert len(vault.known) == 5 * SLICE_LINES_MAX
    assert (delivery.stored, delivery.duplicates) == (SLICE_LINES_MAX, SLICE_LINES_MAX)


def test_a_vault_that_was_emptied_meanwhile_gets_everything_again(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "p.json")
    Vault().serve(Delivery(numbered(5 * SLICE_LINES_MAX), file), requests=4)

    emptied, delivery = Vault(), Delivery(numbered(5 * SLICE_LINES_MAX), file)

    assert emptied.serve(delivery)
    assert len(emptied.known) == 5 * SLICE_LINES_MAX
    assert (delivery.stored, delivery.duplicates, delivery.resumed) == (5 * SLICE_LINES_MAX, 0, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(
    breaks=st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=5),
    lines_max=st.sampled_from([7, 20]),
)
def test_however_often_it_breaks_off_every_line_is_stored_once(
    tmp_path: Path, breaks: list[tuple[int, bool, bool]], lines_max: int
) -> None:
    """Also where answers are lost, where slices are halved, and where the vault is emptied between two runs."""
    vault, file = Vault(lines_max), ProgressFile(tmp_path / "p.json")
    file.forget()
    for requests, answers_last, emptied in breaks:
        delivery = Delivery(numbered(65), file, lines_max=20)
        vault.serve(delivery, requests=requests, answers_last=answers_last)
        if emptied:
            vault.known.clear()

    delivery = Delivery(numbered(65), file, lines_max=20)
    before = len(vault.known)

    assert vault.serve(delivery)
    assert len(vault.known) == 65
    assert delivery.stored == 65 - before
    assert not file.path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"first": 5, "end": 5}', '{"first": -1, "end": 5}', '{"first": "a"}'])
def test_a_damaged_progress_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)

    assert ProgressFile(tmp_path / "p.json").read() is None


def test_a_progress_file_is_its_owners_and_tells_nothing(tmp_path: Path) -> None:
    file = progress_file(tmp_path / "new" / "folder", "http://127.0.0.1:1", "mk_secret", ("private.json", 5))
    file.write(Progress(first=0, end=2_000))

    assert file.read() == Progress(first=0, end=2_000)
    assert file.path.read_text() == '{"first":0,"end":2000}'
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert "secret" not in file.path.name
    assert "private" not in file.path.name
    assert progress_file(tmp_path, "a", "b").path != progress_file(tmp_path, "a", "c").path


def test_where_nothing_can_be_remembered_the_upload_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    file = ProgressFile(tmp_path / "file" / "p.json")

    assert Vault().serve(Delivery(numbered(10), file))


def test_progress_files_lie_in_the_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert progress_folder() == tmp_path / "memoryrouter" / "uploads"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress_folder() == tmp_path / ".cache" / "memoryrouter" / "uploads"
