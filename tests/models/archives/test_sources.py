"""Which files are read, and that neither a packed file nor a link leads anywhere else."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path

import pytest

from models.archives.entries import ArchiveError, Bad, Passed
from models.archives.sources import ArchiveLimits, Source, sources_of
from models.errors import SetupError
from tests.fakes.exports import zipped

SMALL = ArchiveLimits(free_bytes=1_000, ratio_max=10, total_bytes_max=100_000, members_max=5)


def read_all(path: Path, limits: ArchiveLimits | None = None) -> tuple[dict[str, bytes], list[str], list[str]]:
    """The bytes of each source by its name, what was passed over, and what is bad."""
    found, passed, bad = {}, [], []
    for source in sources_of([(path, path.name)], limits=limits):
        if isinstance(source, Source):
            with source.open() as stream:
                found[source.name] = stream.read()
        elif isinstance(source, Passed):
            passed.append(f"{source.place}: {source.reason}")
        else:
            bad.append(f"{source.place}: {source.problem}")
    return found, passed, bad


def written(path: Path, data: bytes) -> Path:
    """A file with these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_directory_gives_its_files_in_order_without_hidden_ones_and_links(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("b.md", "a.txt", "sub/c.jsonl", "sub/d.png", ".hidden.md", ".git/e.md"):
        written(home / name, name.encode())
    secret = written(tmp_path / "secret.txt", b"secret")
    (home / "link.txt").symlink_to(secret)
    (home / "out").symlink_to(tmp_path, target_is_directory=True)

    found, passed, bad = read_all(home)

    assert found == {"home/a.txt": b"a.txt", "home/b.md": b"b.md", "home/sub/c.jsonl": b"sub/c.jsonl"}
    assert passed == ["home/link.txt: symbolic_link", "home/sub/d.png: other_file"]
    assert bad == []


def test_where_an_export_lies_nothing_else_is_read(tmp_path: Path) -> None:
    """Beside conversations, such exports hold lists of files and what was once attached."""
    for name in ("conversations-000.json", "conversations-001.json", "user.json", "file-1.txt", "memories.json"):
        written(tmp_path / "x" / name, b"[]")

    found, _, _ = read_all(tmp_path / "x")

    assert sorted(found) == ["x/conversations-000.json", "x/conversations-001.json", "x/memories.json"]


def test_a_zip_file_is_read_in_place(tmp_path: Path) -> None:
    members: dict[str, bytes] = {
        "in/conversations.json": b"[1]",
        "user.json": b"{}",
        "shared_conversations.json": b"[]",
    }
    found, passed, _ = read_all(written(tmp_path / "e.zip", zipped({**members})))

    assert found == {"e.zip: in/conversations.json": b"[1]"}
    assert passed == ["e.zip: shared_conversations.json: other_file", "e.zip: user.json: other_file"]


def test_a_zip_file_of_notes_is_read_too(tmp_path: Path) -> None:
    found, _, _ = read_all(written(tmp_path / "n.zip", zipped({"a.md": b"A", "b.TXT": b"B", "c.png": b"C"})))

    assert found == {"n.zip: a.md": b"A", "n.zip: b.TXT": b"B"}


def test_a_link_inside_of_a_zip_file_is_not_taken_for_a_text(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.txt", "A")

    found, passed, _ = read_all(tmp_path / "e.zip")

    assert found == {"e.zip: a.txt": b"A"}
    assert passed == ["e.zip: link.txt: symbolic_link"]


def test_names_inside_of_a_zip_file_lead_nowhere(tmp_path: Path) -> None:
    evil = zipped({"../../etc/evil.md": b"A", "/top/x.md": b"B", "a\x1b[31m\n.md": b"C"})
    before = sorted(tmp_path.rglob("*"))

    found, _, _ = read_all(written(tmp_path / "e.zip", evil))

    assert sorted(found) == ["e.zip: ../../etc/evil.md", "e.zip: /top/x.md", "e.zip: a?[31m?.md"]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "e.zip"])


def test_a_gzip_file_is_unpacked_and_loses_its_ending(tmp_path: Path) -> None:
    found, _, _ = read_all(written(tmp_path / "a.jsonl.gz", gzip.compress(b"hello") + gzip.compress(b" again")))

    assert found == {"a.jsonl": b"hello again"}


def test_what_is_packed_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    found, _, _ = read_all(written(tmp_path / "export", gzip.compress(b"hello")))

    assert found == {"export": b"hello"}


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    bomb = written(tmp_path / "e.zip", zipped({"a.txt": b"0" * 50_000}))

    found, _, bad = read_all(bomb, SMALL)

    assert found == {}
    assert bad == ["e.zip: a.txt would unpack to 50000 bytes, far more than is sound."]
    assert read_all(bomb)[0] == {"e.zip: a.txt": b"0" * 50_000}


def test_many_members_and_large_sums_are_refused(tmp_path: Path) -> None:
    many = written(tmp_path / "m.zip", zipped({f"{number}.txt": b"x" for number in range(6)}))
    noise = [os.urandom(40_000) for _ in range(3)]
    large = written(tmp_path / "l.zip", zipped({f"{number}.txt": data for number, data in enumerate(noise)}))

    assert read_all(many, SMALL)[2] == ["m.zip: it has more than 5 files."]
    assert read_all(large, SMALL)[2] == ["l.zip: it would unpack to 120000 bytes; 100000 are allowed."]


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_said(tmp_path: Path) -> None:
    """zipfile stops at the size that the directory of the archive states, and then its checksum does not fit."""
    honest = zipped({"a.txt": os.urandom(5_000)})
    lie = honest.replace(struct.pack("<L", 5_000), struct.pack("<L", 900))
    path = written(tmp_path / "e.zip", lie)

    with pytest.raises(ArchiveError, match="damaged"):
        read_all(path, SMALL)


def test_a_gzip_bomb_ends_in_an_error_while_it_is_read(tmp_path: Path) -> None:
    bomb = written(tmp_path / "a.txt.gz", gzip.compress(b"0" * 50_000))

    with pytest.raises(ArchiveError, match="far more than is sound"):
        read_all(bomb, SMALL)


def test_an_encrypted_member_is_refused_with_the_reason(tmp_path: Path) -> None:
    packed = bytearray(zipped({"conversations.json": b"[]"}))
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(head) + flags] |= 1

    _, _, bad = read_all(written(tmp_path / "e.zip", bytes(packed)))

    assert bad == ["e.zip: conversations.json is encrypted; unpack it with its password first."]


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_a_cut_zip_file_is_named(tmp_path: Path, cut: int) -> None:
    whole = zipped({"conversations.json": b"[1, 2, 3]"})

    assert read_all(written(tmp_path / "e.zip", whole[:-cut]))[2] == ["e.zip: the packed file is damaged or cut."]


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    for number, data in enumerate((gzip.compress(b"hello" * 100)[:-9], b"\x1f\x8bnonsense", b"\x1f\x8b\x08")):
        with pytest.raises(ArchiveError, match="damaged or cut"):
            read_all(written(tmp_path / f"{number}.gz", data))


def test_a_method_of_packing_that_is_not_known_is_named(tmp_path: Path) -> None:
    packed = bytearray(zipped({"a.txt": b"hello"}))
    for head, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        packed[packed.index(head) + method] = 97

    with pytest.raises(ArchiveError, match="packed in a way"):
        read_all(written(tmp_path / "e.zip", bytes(packed)))


def test_a_file_that_is_not_there_is_a_mistake_in_the_arguments(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing\.txt: cannot be read"):
        list(sources_of([(tmp_path / "nothing.txt", "nothing.txt")]))


def test_a_date_that_is_none_is_left_open(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt", (1980, 0, 0, 0, 0, 0)), "x")
        archive.writestr(zipfile.ZipInfo("b.txt", (2024, 5, 6, 7, 8, 10)), "x")

    path = written(tmp_path / "e.zip", packed.getvalue())
    times = [source.modified_ms for source in sources_of([(path, "e.zip")]) if isinstance(source, Source)]

    assert times == [None, 1_714_979_290_000]
    assert not any(isinstance(source, Bad) for source in sources_of([(path, "e.zip")]))
