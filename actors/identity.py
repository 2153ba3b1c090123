"""Which messages a vault knows already: the rules of design section 6, in one place.

A message's identity is the client's own id where given, else (session, role, content, given time). An earlier message
of a request adds nothing if it is known. The final exchange adds nothing if the same words were stored a short while
ago; later it is a genuine new statement. All decisions use the times in the log, so that replay repeats them.
"""

from __future__ import annotations

import hashlib

from models.memory import Memory, Message, Source

Digest = bytes
Identity = tuple[str] | tuple[str | None, str, str, int | None]
"""What makes two messages of one exchange the same."""


def identity(message: Message) -> Identity:
    """The client's id, else session, role, content and given time."""
    if message.external_id is not None:
        return (message.external_id,)
    return message.session_id, message.role, message.content, message.timestamp_ms


def content_digest(session_id: str | None, role: str, content: str, timestamp_ms: int | None = None) -> Digest:
    """128 bits over who said what, where, and (if given) when; lengths keep fields from imitating each other."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (session_id, role, content, timestamp_ms):
        data = b"" if part is None else str(part).encode("utf-8", "surrogatepass")
        digest.update(b"-" if part is None else b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


class KnownMessages:
    """What has been stored, by identity."""

    def __init__(self, *, repeat_window_ms: int) -> None:
        self._repeat_window_ms = repeat_window_ms
        self._external_ids: dict[str, int] = {}
        self._timed: dict[Digest, int] = {}
        self._stored_ms: dict[Digest, int] = {}
        self._untimed: dict[Digest, int] = {}

    def knows(self, message: Message, *, source: Source, accepted_ms: int) -> bool:
        """Whether storing this message would add nothing."""
        if message.external_id is not None:
            return message.external_id in self._external_ids
        if message.timestamp_ms is not None:
            return self._digest_of(message, message.timestamp_ms) in self._timed
        digest = self._digest_of(message, None)
        if source == "upload":
            return digest in self._untimed
        stored_ms = self._stored_ms.get(digest)
        if stored_ms is None:
            return False
        return not message.final or accepted_ms - stored_ms < self._repeat_window_ms

    @staticmethod
    def _digest_of(message: Message, timestamp_ms: int | None) -> Digest:
        return content_digest(message.session_id, message.role, message.content, timestamp_ms)

    def add(self, memory: Memory) -> None:
        """This memory is stored now."""
        if memory.external_id is not None:
            self._external_ids[memory.external_id] = memory.seq
        digest = content_digest(memory.session_id, memory.role, memory.content)
        self._stored_ms[digest] = max(memory.stored_ms, self._stored_ms.get(digest, 0))
        # With its time even where that was not given: an export carries it, and importing it again adds nothing.
        timed = content_digest(memory.session_id, memory.role, memory.content, memory.timestamp_ms)
        self._timed[timed] = memory.seq
        if not memory.timestamp_given:
            self._untimed[digest] = memory.seq

    def remove(self, memory: Memory) -> None:
        """This memory is deleted: the same words may come again."""
        digest = content_digest(memory.session_id, memory.role, memory.content)
        timed = content_digest(memory.session_id, memory.role, memory.content, memory.timestamp_ms)
        if memory.external_id is not None:
            self._external_ids.pop(memory.external_id, None)
        self._stored_ms.pop(digest, None)
        self._timed.pop(timed, None)
        if self._untimed.get(digest) == memory.seq:
            del self._untimed[digest]

    def __len__(self) -> int:
        return len(self._stored_ms)
