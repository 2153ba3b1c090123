"""An upload in slices that a server takes, and where it is: sans-IO.

Owns the size of a slice, how a slice that is too large becomes two, and the progress file by which an upload that was
broken off goes on. Must never skip a line that may not be stored: a vault that does not know the last acknowledged
slice any more gets everything again. Sending twice is harmless, since the server knows each line by its id.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from models.sizes import MIB
from router.commands.upload_plan import Line

SLICE_LINES_MAX = 500
"""A server takes 10 000. But it lets a slice wait until there is room for all of it, as fast as it embeds what came
before, and a small one never waits so long that the server gives up."""

SLICE_BYTES = 4 * MIB
"""A slice ends with the line that reaches this; a longer line goes alone. A server takes 64 MiB."""

FORMAT_VERSION = 1
"""Of how files become lines: progress files of another one are not used."""


class Slice(msgspec.Struct, frozen=True):
    """Lines that are sent together.

    Attributes:
        first: the number of its first line, from 0.
    """

    first: int
    lines: tuple[Line, ...]

    @property
    def body(self) -> bytes:
        """What is sent."""
        return b"".join(line.data for line in self.lines)

    @property
    def end(self) -> int:
        """The number of the line behind it."""
        return self.first + len(self.lines)

    def halves(self) -> tuple[Slice, Slice]:
        """Its two halves; it must have two lines."""
        middle = len(self.lines) // 2
        return Slice(self.first, self.lines[:middle]), Slice(self.first + middle, self.lines[middle:])


class Progress(msgspec.Struct, frozen=True):
    """What a progress file says: the last acknowledged slice, as numbers of lines. No text, no key, no name."""

    first: int
    end: int


class ProgressFile:
    """Remembers how far one upload is: of these files, with these choices, into this vault.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Progress | None:
        """What an earlier run left, or None."""
        try:
            progress = msgspec.json.decode(self.path.read_bytes(), type=Progress)
        except (OSError, msgspec.DecodeError):
            return None
        return progress if 0 <= progress.first < progress.end else None

    def write(self, progress: Progress) -> None:
        """Remember; where that is impossible, an interrupted upload sends more again."""
        part = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(progress))
            os.replace(part, self.path)
        except OSError:
            return

    def forget(self) -> None:
        """The upload is complete, or shall begin anew."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return


def progress_file(folder: Path, *parts: object) -> ProgressFile:
    """The progress file of an upload, by everything that makes it the same one: where to, whose, which files, what.

    Args:
        parts: hashed, so that the name tells nothing.
    """
    told = msgspec.json.encode([FORMAT_VERSION, *(str(part) for part in parts)])
    return ProgressFile(folder / f"{hashlib.sha256(told).hexdigest()[:32]}.json")


def progress_folder() -> Path:
    """Where progress files are: `memoryrouter/uploads` in the user's cache directory (XDG Base Directory)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(cache) if cache and Path(cache).is_absolute() else Path.home() / ".cache"
    return base / "memoryrouter" / "uploads"


class Delivery:
    """What is sent next, and what became of what was sent.

    Attributes:
        stored, duplicates: of the lines sent in this run.
        done: lines that are through, those of an earlier run included.
        resumed: lines that an earlier run had sent.
    """

    def __init__(
        self,
        open_lines: Callable[[], Iterator[Line]],
        file: ProgressFile | None = None,
        *,
        lines_max: int = SLICE_LINES_MAX,
    ) -> None:
        """Begin, or go on where `file` says.

        Args:
            open_lines: all lines of the upload, from the first one, each time the same.
            lines_max: of one slice.
        """
        self.stored = self.duplicates = 0
        self._open_lines = open_lines
        self._file = file
        self._lines_max = lines_max
        self._waiting: deque[Slice] = deque()
        progress = file.read() if file is not None else None
        self.resumed = progress.end if progress else 0
        self.done = self._next = progress.first if progress else 0
        self._checked_up_to = progress.end if progress else 0
        self._lines = islice(open_lines(), self._next, None)

    def next_slice(self) -> Slice | None:
        """The lines to send now; None when all are through."""
        if self._waiting:
            return self._waiting.popleft()
        lines: list[Line] = []
        size_bytes = 0
        lines_max = self._lines_max
        if self._next < self._checked_up_to:
            lines_max = self._checked_up_to - self._next
            self._step_back()
        while len(lines) < lines_max and size_bytes < SLICE_BYTES:
            line = next(self._lines, None)
            if line is None:
                break
            lines.append(line)
            size_bytes += len(line.data)
        taken = Slice(self._next, tuple(lines))
        self._next = taken.end
        return taken if lines else None

    def took(self, taken: Slice, *, stored: int, duplicates: int) -> None:
        """The server has stored a slice: some of it new, some known before."""
        self.stored += stored
        self.duplicates += duplicates
        if stored and taken.first < self._checked_up_to:
            self._begin_again()
            return
        self.done = taken.end
        if self._file is not None:
            self._file.write(Progress(first=taken.first, end=taken.end))

    def too_large(self, refused: Slice) -> bool:
        """The server takes no slice of this size; False where it cannot be made smaller."""
        if len(refused.lines) < 2:
            return False
        self._waiting.extendleft(reversed(refused.halves()))
        return True

    def finish(self) -> None:
        """Everything is through."""
        if self._file is not None:
            self._file.forget()

    def _step_back(self) -> None:
        """Before the last acknowledged slice is sent again: should this be the end, the next run looks for another one.

        That one would be known then even by a vault that was emptied: this run brought it there.
        """
        if self._file is None:
            return
        if self._next:
            self._file.write(Progress(first=max(0, self._next - self._lines_max), end=self._next))
        else:
            self._file.forget()

    def _begin_again(self) -> None:
        """The vault does not know what an earlier run had sent: it was emptied since, or is another one now."""
        self.duplicates -= self.stored + self.duplicates  # they come again, and count then
        self._waiting.clear()
        self.done = self._next = self._checked_up_to = self.resumed = 0
        self._lines = islice(self._open_lines(), 0, None)
