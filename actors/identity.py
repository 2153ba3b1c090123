"""Which messages a vault knows already: the rules of design section 6, in one place.

A message's identity is the client's own id where given, else (session, role, content, given time). An earlier message
of a request adds nothing if it is known. The final exchange adds nothing if the same words were stored a short while
ago; later it is a genuine new statement. All decisions use the times in the log, so that replay repeats them.
"""

from __future__ import annotations

import hashlib

from actors.holdings import Holding
from models.memory import Exchange, Memory, Message, Source

Digest = bytes
Identity = tuple[str] | tuple[str | None, str, str, int | None]
"""What makes two messages of one exchange the same."""


def identity(message: Message) -> Identity:
    """The client's id, else session, role, content and given time."""
    if message.external_id is not None:
        return (message.external_id,)
    return message.session_id, message.role, message.content, message.timestamp_ms


def content_digest(session_id: str | None, role: str, content: str) -> Digest:
    """128 bits over who said what and where; lengths keep fields from imitating each other."""
    where = "-" if session_id is None else f"{len(session_id)}:{session_id}"
    data = f"{where}{len(role)}:{role}{len(content)}:{content}"
    return hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def timed_digest(digest: Digest, timestamp_ms: int) -> Digest:
    """The same at one time."""
    return digest + b"%d" % timestamp_ms


class KnownMessages:
    """What has been stored, by identity."""

    def __init__(self, *, repeat_window_ms: int) -> None:
        self._repeat_window_ms = repeat_window_ms
        self._external_ids: dict[str, int] = {}
        self._timed: dict[Digest, int] = {}
        self._stored_ms: dict[Digest, int] = {}
        self._untimed: dict[Digest, int] = {}

    def unknown(self, exchange: Exchange) -> list[int]:
        """The positions of the messages of an exchange that storing it now would add."""
        unknown = []
        new: set[Identity] = set()
        for position, message in enumerate(exchange.messages):
            twin = identity(message)
            known = self.knows(message, source=exchange.source, accepted_ms=exchange.accepted_ms)
            if not known and twin not in new:
                unknown.append(position)
                new.add(twin)
        return unknown

    def knows(self, message: Message, *, source: Source, accepted_ms: int) -> bool:
        """Whether storing this message would add nothing."""
        if message.external_id is not None:
            return message.external_id in self._external_ids
        digest = content_digest(message.session_id, message.role, message.content)
        if message.timestamp_ms is not None:
            return timed_digest(digest, message.timestamp_ms) in self._timed
        if source == "upload":
            return digest in self._untimed
        stored_ms = self._stored_ms.get(digest)
        if stored_ms is None:
            return False
        return not message.final or accepted_ms - stored_ms < self._repeat_window_ms

    def named(self, external_id: str) -> int | None:
        """The seq of the memory that has this id of a client's."""
        return self._external_ids.get(external_id)

    def add(self, memory: Memory) -> None:
        """This memory is stored now."""
        if memory.external_id is not None:
            self._external_ids[memory.external_id] = memory.seq
        digest = content_digest(memory.session_id, memory.role, memory.content)
        self._stored_ms[digest] = max(memory.stored_ms, self._stored_ms.get(digest, 0))
        # With its time even where that was not given: an export carries it, and importing it again adds nothing.
        self._timed[timed_digest(digest, memory.timestamp_ms)] = memory.seq
        if not memory.timestamp_given:
            self._untimed[digest] = memory.seq

    def remove(self, memory: Memory) -> None:
        """This memory is deleted: the same words may come again.

        Whoever removes adds again, in their order, what is left of the memories with the same words: beside those of
        this one it may be their identity that goes here.
        """
        digest = content_digest(memory.session_id, memory.role, memory.content)
        if memory.external_id is not None:
            self._external_ids.pop(memory.external_id, None)
        self._stored_ms.pop(digest, None)
        self._timed.pop(timed_digest(digest, memory.timestamp_ms), None)
        self._untimed.pop(digest, None)

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        return [self._external_ids, self._timed, self._stored_ms, self._untimed]

    def __len__(self) -> int:
        return len(self._stored_ms)
