"""Which lines an upload sends, and what it leaves out.

Owns the choice by session, time, role, user and number, the check of every line before anything is sent, and the
counts that the command reports. The same files and choices give the same lines in the same order, whoever asks again:
that is what an upload that broke off goes on by. Must never send a line that the server would refuse.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from models.archives.entries import Bad, Conversation, Item, Object, Passed
from models.archives.reading import entries_of
from models.archives.sources import ArchiveLimits, sources_of
from models.errors import InvalidRequest
from models.memory_settings import MemorySettings
from models.text import clean
from router.uploads import parse_memory

PROBLEMS_MAX = 20
"""Named at most; more are counted."""

SAMPLES_MAX = 5
_NOTE_ID_BYTES = 16


class Choice(msgspec.Struct, frozen=True):
    """What of the files is wanted.

    Attributes:
        format_name: of all files, instead of what they look like.
        session_id: for every line, instead of its own.
        since_ms: nothing that was told before; what has no time stays.
        role: only what one side said.
        user: only what the file says is this user's.
        limit: at most so many lines, the first ones.
    """

    format_name: str | None = None
    session_id: str | None = None
    since_ms: int | None = None
    role: str | None = None
    user: str | None = None
    limit: int | None = None


class Line(msgspec.Struct, frozen=True):
    """One line as it is sent, with the line feed, and the place it comes from."""

    data: bytes
    place: str


class Survey:
    """What the files hold, counted while they are read.

    Attributes:
        skipped: what was left out on purpose, by reason.
        problems: the first things that could not be read, with their places.
        bad: how many of them there are.
        owners: users that the files name; more than one must not share a vault.
        samples: the first lines.
    """

    def __init__(self) -> None:
        self.files = self.conversations = self.messages = self.bad = 0
        self.skipped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.oldest_ms: int | None = None
        self.newest_ms: int | None = None
        self.owners: set[str] = set()
        self.samples: list[Object] = []
        self._sessions: set[int] = set()

    @property
    def sessions(self) -> int:
        """How many different ones there are."""
        return len(self._sessions)

    def take(self, fields: Object) -> None:
        """Count a line that is sent."""
        self.messages += 1
        session, told_ms = fields.get("session_id"), fields.get("timestamp")
        if session is not None:
            self._sessions.add(hash(session))
        if told_ms is not None:
            self.oldest_ms = told_ms if self.oldest_ms is None else min(self.oldest_ms, told_ms)
            self.newest_ms = told_ms if self.newest_ms is None else max(self.newest_ms, told_ms)
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(fields)

    def note(self, bad: Bad) -> None:
        """Count what cannot be read."""
        self.bad += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{bad.place}: {bad.problem}")


def planned_lines(
    paths: list[tuple[Path, str]],
    choice: Choice,
    survey: Survey,
    *,
    settings: MemorySettings,
    limits: ArchiveLimits | None = None,
) -> Iterator[Line]:
    """The lines that are wanted, counted in `survey`.

    Raises:
        SetupError: a file does not exist or cannot be read.
    """
    for entry in _entries(paths, choice, survey, limits):
        if isinstance(entry, Bad):
            survey.note(entry)
        elif isinstance(entry, Passed):
            survey.skipped[entry.reason] += 1
        elif isinstance(entry, Conversation):
            survey.conversations += 1
        else:
            yield from _lines_of(entry, choice, survey, settings)
        if choice.limit is not None and survey.messages >= choice.limit:
            return


def _entries(
    paths: list[tuple[Path, str]], choice: Choice, survey: Survey, limits: ArchiveLimits | None
) -> Iterator[Item | Conversation | Passed | Bad]:
    for source in sources_of(paths, limits=limits):
        if isinstance(source, Passed | Bad):
            yield source
        else:
            survey.files += 1
            yield from entries_of(source, format_name=choice.format_name)


def _lines_of(item: Item, choice: Choice, survey: Survey, settings: MemorySettings) -> Iterator[Line]:
    if item.owner is not None and (choice.user is None or item.owner == choice.user):
        survey.owners.add(item.owner)
    try:
        for fields in _parts(_fields_of(item, choice), settings.content_max_chars):
            message = parse_memory(fields, session_id=None, limits=settings)
            reason = "nothing_said" if message is None else _unwanted(item, fields, choice)
            if reason:
                survey.skipped[reason] += 1
            else:
                survey.take(fields)
                yield Line(msgspec.json.encode(fields) + b"\n", item.place)
    except InvalidRequest as error:
        survey.note(Bad(error.message, item.place))
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # such as an integer of more than 64 bits in its metadata
        survey.note(Bad("it cannot be written as JSON.", item.place))


def _fields_of(item: Item, choice: Choice) -> Object:
    """The fields as they are sent: cleaned, in the session that was asked for, a note with its words as its id."""
    fields = dict(item.fields)
    if isinstance(fields.get("content"), str):
        fields["content"] = clean(fields["content"]) or fields["content"]
    if choice.session_id is not None:
        fields["session_id"] = choice.session_id
    if item.is_note:
        where = f"{choice.session_id or ''}\n{fields['content']}".encode()
        fields["id"] = f"note:{hashlib.blake2b(where, digest_size=_NOTE_ID_BYTES).hexdigest()}"
    return fields


def _unwanted(item: Item, fields: Object, choice: Choice) -> str:
    """Why a line is left out, or ""."""
    told_ms = fields.get("timestamp")
    if choice.user is not None and item.owner != choice.user:
        return "other_user"
    if choice.role is not None and ("assistant" if fields.get("role") == "assistant" else "user") != choice.role:
        return "other_role"
    if choice.since_ms is not None and told_ms is not None and told_ms < choice.since_ms:
        return "before_since"
    return ""


def _parts(fields: Object, characters_max: int) -> Iterator[Object]:
    """The line, or where its text is longer than a server takes, several, cut between two words."""
    content: Any = fields.get("content")
    if not isinstance(content, str) or len(content) <= characters_max:
        yield fields
        return
    external_id, number = fields.get("id"), 0
    while content:
        number += 1
        cut = (
            len(content) if len(content) <= characters_max else content.rfind(" ", characters_max // 2, characters_max)
        )
        cut = characters_max if cut < 0 else cut
        part = {**fields, "content": content[:cut]}
        if external_id is not None and number > 1:
            part["id"] = f"{external_id}/{number}"
        yield part
        content = content[cut:].lstrip()
