"""The head of the single executable file: unpacks once, becomes the program, survives what happens to its folder.

It is compiled as `make binary` compiles it; what it unpacks here is a small script.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.running import ROOT

PROGRAM = """#!/bin/sh
echo "$$ $PWD $#" "$@"
test "$1" = wait && read line
exit 7
"""
WEEK_S = 7 * 24 * 3600
OLD = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("launcher") / "launcher"
    source = ROOT / ".ci" / "binary" / "launcher.c"
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
    subprocess.run(["cc", *options, "-o", str(built), str(source), "-lz"], check=True)
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, a folder, a large file and a link."""
    folder = tmp_path_factory.mktemp("packed") / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "memoryrouter").write_text(PROGRAM, encoding="utf-8")
    (folder / "memoryrouter").chmod(0o755)
    (folder / "inner" / "large").write_bytes(os.urandom(1_000_000))
    (folder / "link").symlink_to("inner/large")
    return folder


@pytest.fixture(scope="module")
def file(folder: Path, launcher: Path) -> Path:
    """The executable file that holds them; tests that damage it take a copy."""
    return assembled(folder, launcher, launcher.with_name("file"))


def assembled(folder: Path, launcher: Path, target: Path) -> Path:
    script = ROOT / ".ci" / "binary" / "assemble.py"
    subprocess.run([sys.executable, str(script), str(folder), str(launcher), str(target)], check=True)
    return target


def start(file: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start it with this environment and nothing else."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(file), *arguments], env=environment, cwd="/", stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def run(file: Path, *arguments: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with start(file, *arguments, **environment) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def into(folder: Path) -> dict[str, str]:
    return {"MEMORYROUTER_UNPACK_DIR": str(folder)}


def changed(content: bytes, folder: Path) -> Path:
    """An executable file with this content."""
    copy = folder / "changed"
    copy.write_bytes(content)
    copy.chmod(0o755)
    return copy


def unpacked(base: Path) -> list[Path]:
    """What stands in the cache beside the lock."""
    return sorted(path for path in base.iterdir() if path.name != "lock")


def test_it_becomes_the_program_with_arguments_folder_and_exit_code(file: Path, tmp_path: Path) -> None:
    """No process stands between: the program has the number that was started."""
    with start(file, "a b", "c", **into(tmp_path / "cache")) as process:
        out, _ = process.communicate(timeout=60)
    assert out == f"{process.pid} / 2 a b c\n"
    assert process.returncode == 7


def test_everything_is_unpacked_as_it_was_packed(file: Path, folder: Path, tmp_path: Path) -> None:
    run(file, environment=into(tmp_path / "cache"))
    (copy,) = unpacked(tmp_path / "cache")
    assert (copy / "link").readlink() == Path("inner/large")
    assert (copy / "link").read_bytes() == (folder / "inner" / "large").read_bytes()
    assert (copy / "inner" / "large").stat().st_mode & 0o777 == 0o644
    assert copy.stat().st_mode & 0o777 == 0o700


def test_a_second_start_unpacks_nothing(file: Path, tmp_path: Path) -> None:
    run(file, environment=into(tmp_path / "cache"))
    (folder,) = unpacked(tmp_path / "cache")
    before = (folder / "inner" / "large").stat()
    assert run(file, environment=into(tmp_path / "cache"))[0] == 7
    assert (folder / "inner" / "large").stat() == before


def test_many_first_starts_at_once_unpack_it_once(file: Path, tmp_path: Path) -> None:
    running = [start(file, str(number), **into(tmp_path / "cache")) for number in range(8)]
    for number, process in enumerate(running):
        with process:
            assert process.communicate(timeout=60)[0].endswith(f" / 1 {number}\n")
    assert len(unpacked(tmp_path / "cache")) == 1


def test_what_a_killed_start_has_left_is_removed_by_the_next(file: Path, tmp_path: Path) -> None:
    part = tmp_path / "cache" / "part-123" / "inner"
    part.mkdir(parents=True)
    (part / "large").write_bytes(b"half")
    assert run(file, environment=into(tmp_path / "cache"))[0] == 7
    assert len(unpacked(tmp_path / "cache")) == 1
    assert not part.exists()


def test_other_versions_go_after_a_week_unless_they_run(file: Path, tmp_path: Path) -> None:
    """A running one holds its folder, because it still loads from there."""
    base = tmp_path / "cache"
    names = {"gone": OLD, "recent": OLD[::-1], "held": "f" * 32, "foreign": "somebody-elses-folder"}
    for kind, name in names.items():
        (base / name / "inner").mkdir(parents=True)
        used_s = time.time() - (60 if kind == "recent" else WEEK_S + 60)
        os.utime(base / name, (used_s, used_s))
    held = os.open(base / names["held"], os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert run(file, environment=into(base))[0] == 7
    finally:
        os.close(held)
    left = {path.name for path in unpacked(base)}
    assert {name for name in names.values() if name in left} == {names["recent"], names["held"], names["foreign"]}


def test_a_running_program_holds_its_folder(file: Path, tmp_path: Path) -> None:
    with start(file, "wait", **into(tmp_path / "cache")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = os.open(unpacked(tmp_path / "cache")[0], os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.communicate("go\n", timeout=60)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(held)


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_trusted(file: Path, tmp_path: Path, mode: int) -> None:
    """The next one of the list is taken."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    environment = into(tmp_path / "open") | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run(file, environment=environment)[0] == 7
    assert list((tmp_path / "open").iterdir()) == []
    assert len(unpacked(tmp_path / "cache" / "memoryrouter")) == 1


def test_a_link_in_the_place_of_the_folder_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to("elsewhere")
    environment = into(tmp_path / "linked") | {"HOME": str(tmp_path / "home")}
    assert run(file, environment=environment)[0] == 7
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(unpacked(tmp_path / "home" / ".cache" / "memoryrouter")) == 1


def test_a_damaged_file_is_refused_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-500_000] ^= 0xFF
    code, out, err = run(changed(bytes(content), tmp_path), environment=into(tmp_path / "cache"))
    assert (code, out) == (2, "")
    assert "download it again" in err
    assert unpacked(tmp_path / "cache") == []


def test_a_file_that_was_cut_short_says_so(file: Path, tmp_path: Path) -> None:
    code, _, err = run(changed(file.read_bytes()[:-1000], tmp_path), environment=into(tmp_path / "cache"))
    assert (code, err) == (2, "error: this file is not whole, or /proc is not there.\n")


def test_the_same_folder_gives_the_same_bytes(file: Path, folder: Path, launcher: Path, tmp_path: Path) -> None:
    os.utime(folder / "memoryrouter", (1, 1))
    assert assembled(folder, launcher, tmp_path / "again").read_bytes() == file.read_bytes()
