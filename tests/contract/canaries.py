"""Marked keys and texts, and the search for them in everything that a server leaves behind.

A mark is a word that nothing else contains. It is looked for in any case and in the encodings in which a text could
come out unnoticed: hexadecimal, base64 at each of its three offsets, UTF-16.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from models.server_settings import LogSettings
from router.observe import configure_logging

SAID = "qcanaryqsaid7f3a91c2"
"""In what a user says, asks, uploads and imports."""

REPLIED = "qcanaryqreplied58e2d4b6"
"""In what a provider replies."""

PARAMETER = "qcanaryqparameter6b1d0e93"
"""In headers, queries and paths. Where these name something, such as a session, an answer may repeat it."""

TEXTS = (SAID, REPLIED)
SENT_KEY = "sk-qcanaryqsent0a1b2c3d4e5f"
"""The provider's key in a request."""

CONFIGURED_KEY = "sk-qcanaryqconfigured9f8e7d6c5b"
"""The provider's key in the configuration."""

UNKNOWN_KEY = "mk_qcanaryqunknown31415926535897932384"
MALFORMED_KEY = "mk_qcanaryqmalformed/271828:nothing"
KEYS = (SENT_KEY, CONFIGURED_KEY, UNKNOWN_KEY, MALFORMED_KEY)


_WHOLE_KEY = re.compile(rb"mk_[A-Za-z0-9_-]{24,}")


class Search:
    """Looks for marks, and counts how often.

    Attributes:
        searches: so many times one mark in one spelling was looked for in one text or file.
        places: searches by kind of place.
        found: where a mark was that must not be there, as "PLACE: MARK".
    """

    def __init__(self) -> None:
        self.searches = 0
        self.places: Counter[str] = Counter()
        self.found: list[str] = []
        self._spellings: dict[str, tuple[bytes, ...]] = {}

    def look(self, kind: str, place: str, content: bytes | str, marks: tuple[str, ...]) -> None:
        """Look for each of these marks in a text or a file."""
        data = (content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")).lower()
        for mark in marks:
            spellings = self._spellings.setdefault(mark, spellings_of(mark))
            self.searches += len(spellings)
            self.places[kind] += len(spellings)
            if any(spelling in data for spelling in spellings):
                self.found.append(f"{kind} {place}: {mark}")

    def report(self) -> str:
        """How much was looked at, for the test's output."""
        places = ", ".join(f"{count} in {kind}" for kind, count in sorted(self.places.items()))
        return f"canary searches: {self.searches} ({places})"


def spellings_of(mark: str) -> tuple[bytes, ...]:
    """A mark in lower case, as it may be written; base64 without the characters that its neighbours decide on."""
    raw = mark.encode()
    base64s = []
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        base64s.append(encoded[4 if offset else 0 : (offset + len(raw)) // 3 * 4].lower())
    return (raw.lower(), raw.hex().encode(), mark.encode("utf-16-le").lower(), *base64s)


class Replies:
    """Everything that the server answered, with what it may not contain.

    Attributes:
        memory_keys: those that may be in no answer.
        minted: keys that answers have shown for the first and last time.
        count: of answers.
        statuses: how often each was given.
    """

    def __init__(self, search: Search, memory_keys: tuple[str, ...]) -> None:
        self._search = search
        self.memory_keys = memory_keys
        self.minted: set[str] = set()
        self.count = 0
        self.statuses: Counter[int] = Counter()

    def look_at(self, answer: httpx.Response, *, name: str) -> None:
        """Keys may be in no answer. Texts may be in successes, and in errors that a provider wrote itself."""
        from_provider = "x-provider-response-ms" in answer.headers
        self.count += 1
        self.statuses[answer.status_code] += 1
        marks = (*KEYS, *self.memory_keys)
        if answer.status_code >= 400 and not from_provider:
            marks += TEXTS
        place = f"{name} ({answer.status_code})"
        self._search.look("replies", place, answer.content, marks)
        self._search.look("headers", place, str(answer.headers.raw), (*marks, *TEXTS))
        if name.startswith("post /v1/keys"):
            self.minted |= {key.decode() for key in _WHOLE_KEY.findall(answer.content)}


@contextmanager
def all_logs() -> Iterator[io.StringIO]:
    """What every logger of the process writes at its lowest level, for the length of the block."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    stream = io.StringIO()
    configure_logging(LogSettings(level="debug"), stream=stream)
    try:
        yield stream
    finally:
        root.handlers[:], logging.raiseExceptions = before[0], before[2]
        root.setLevel(before[1])


def look_through_files(search: Search, folder: Path, marks: tuple[str, ...]) -> int:
    """Search every file below a folder, its names too; returns how many there were."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        search.look("files", path.name, str(path.relative_to(folder)).encode() + path.read_bytes(), marks)
    return len(files)


def with_mark(value: Any, *, name: str = "") -> Any:
    """A request's example with the mark in everything that a user says."""
    if isinstance(value, dict):
        return {key: with_mark(inner, name=key) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_mark(inner, name=name) for inner in value]
    if isinstance(value, str) and (" " in value or name in _SAID_IN):
        return f"{value} {SAID}"
    return value


_SAID_IN = frozenset({"content", "input", "prompt", "q", "query", "text"})


def with_other_types(value: Any, other: Any) -> Any:
    """The same shape with something else in the place of every value; a model keeps its name, which errors repeat."""
    if isinstance(value, dict):
        return {key: inner if key == "model" else with_other_types(inner, other) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_other_types(inner, other) for inner in value]
    return other
