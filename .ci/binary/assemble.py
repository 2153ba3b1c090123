"""Makes one executable file of the folder that PyInstaller made: launcher, archive, trailer.

    python .ci/binary/assemble.py FOLDER LAUNCHER TARGET

Owns the form of the file, which `launcher.c` reads. The same folder always gives the same bytes: entries are sorted,
belong to nobody, and have the time in SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"memoryrouter:1"
NAME_LENGTH = 32
SIZE_DIGITS = 20
COMPRESSION = 9

STRIPPED = ("libpython*.so*", "hnswlib*.so", "Stemmer*.so", "python3*/lib-dynload/*.so")
"""What was built on this machine, with symbols for debuggers: 50 MB. What wheels bring is left as it was checked."""


def strip_symbols(folder: Path) -> None:
    """Take the symbols out of the libraries that were built here."""
    files = sorted(file for pattern in STRIPPED for file in folder.rglob(pattern) if not file.is_symlink())
    if files:
        subprocess.run(["strip", "--strip-unneeded", "--enable-deterministic-archives", *map(str, files)], check=True)


def entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Everything below a folder with its name in the archive, parents first."""
    yield from ((path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*")))


def archive(folder: Path, *, time_s: int) -> bytes:
    """The folder as a ustar archive in gzip."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=COMPRESSION, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path, name in entries(folder):
            entry = tar.gettarinfo(path, name)
            if entry.islnk():  # a second name of one file: packed as a file of its own
                entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = time_s
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return packed.getvalue()


def assemble(folder: Path, launcher: Path, target: Path, *, time_s: int) -> None:
    """Write the executable file."""
    strip_symbols(folder)
    payload = archive(folder, time_s=time_s)
    name = hashlib.sha256(payload).hexdigest()[:NAME_LENGTH].encode()
    part = target.with_name(target.name + ".part")
    part.write_bytes(launcher.read_bytes() + payload + name + str(len(payload)).zfill(SIZE_DIGITS).encode() + MAGIC)
    part.chmod(0o755)
    part.replace(target)


if __name__ == "__main__":
    assemble(*map(Path, sys.argv[1:4]), time_s=int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
