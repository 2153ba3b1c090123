"""File systems of a campaign's own: ext4 in an image file, a small tmpfs. They need root, and leave nothing mounted.

Every mount is undone in the order in which a stack unwinds, also when a test fails; what is still busy then is detached
lazily, so that no test can leave a mount behind.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_BYTES = 128 * 1024 * 1024
LONG_COMMIT_INTERVAL_S = 300
"""ext4 commits its journal this often by itself. Longer than a test: what nobody synced stays unsynced, as in the
moment of a power cut, and an image does not change while it is copied."""


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)


def make_image(image: Path) -> None:
    """An empty ext4 file system in a file. Sparse: what was never written takes no room."""
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run("mkfs.ext4", "-q", "-F", image)


def copy_image(image: Path, copy: Path) -> None:
    """What the disk holds at this moment: writes that were never issued to it are not in it. Nothing is synced."""
    _run("cp", "--sparse=always", image, copy)


@contextmanager
def mounted_image(image: Path, folder: Path) -> Iterator[Path]:
    """An image's file system, mounted over a loop device that goes away with the mount."""
    with _mounted(folder, "-t", "ext4", "-o", f"loop,commit={LONG_COMMIT_INTERVAL_S}", image):
        yield folder


@contextmanager
def mounted_tmpfs(folder: Path, *, size_bytes: int) -> Iterator[Path]:
    """A file system in memory that holds so many bytes."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs"):
        yield folder


@contextmanager
def _mounted(folder: Path, *options: str | Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", *options, folder)
    try:
        yield
    finally:
        try:
            _run("umount", folder)
        except subprocess.CalledProcessError:
            _run("umount", "--lazy", folder)


@functools.cache
def reason_against_mounting(kind: str) -> str:
    """Why this machine cannot mount a "tmpfs" or an "image", or "" if it can; found out by doing it."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if kind == "image" and shutil.which("mkfs.ext4") is None:
        return "there is no mkfs.ext4"
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        try:
            if kind == "image":
                make_image(folder / "image")
                stack.enter_context(mounted_image(folder / "image", folder / "mount"))
            else:
                stack.enter_context(mounted_tmpfs(folder / "mount", size_bytes=1 << 20))
        except (OSError, subprocess.SubprocessError) as error:
            detail = error.stderr.decode() if isinstance(error, subprocess.CalledProcessError) else str(error)
            return f"{kind} cannot be mounted here: {detail.strip()}"
    return ""
