"""One vault out of the server and into one: pages become export lines, verified lines become exchanges.

Must never hold more of an export than a page, and never let anything of an import in before all of it is verified.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from actors.inbox_lag import weigh
from actors.supervisor import Supervisor
from models.errors import InvalidRequest, MemoryRouterError, TooLarge
from models.exports import (
    FORMAT,
    VECTOR_ITEM_BYTES,
    VERSION,
    ExportedMemory,
    ExportError,
    ExportHeader,
    PartsReader,
    PartWriter,
    exported,
    lines_of,
)
from models.ids import Principal, VaultRef, parse_session_id
from models.memory import Exchange, ImportedVectors, Memory, Message, charged_to
from models.memory_settings import MemorySettings
from models.messages import Applied, Page, Paged, Stats, VaultStats
from models.text import clean
from router.observe import log_event
from router.remembering import MODEL_CHARACTERS_MAX
from router.uploads import ROOM_TIMEOUT_S, ROW_MESSAGES_MAX, parse_external_id, parse_metadata, parse_timestamp

PAGE_MEMORIES_MIN = 4
PAGE_MEMORIES_MAX = 256
PAGE_BYTES = 1024 * 1024
"""About the size of a page. Memories have very different lengths: the number in a page follows their size."""

APPLY_TIMEOUT_S = 120.0


class ExportStream:
    """An export as an async iterator over pieces of it. No scope lives in it, so that it may be left at any await.

    What goes wrong after the first piece ends it with a line `{"error", "code"}` instead of the end line.

    Attributes:
        header: its first line.
    """

    def __init__(
        self, supervisor: Supervisor, vault: VaultRef, header: ExportHeader, *, vectors: bool, timeout_s: float
    ) -> None:
        self.header = header
        self._supervisor = supervisor
        self._vault = vault
        self._vectors = vectors
        self._timeout_s = timeout_s
        self._writer = PartWriter()
        self._pieces: deque[bytes] = deque()
        self._limit = PAGE_MEMORIES_MIN
        self._ended = False

    async def prepare(self) -> ExportStream:
        """Read the first page, while an error can still be an answer.

        Raises:
            MemoryRouterError: the vault cannot be read.
        """
        self._pieces.append(self._writer.header(self.header))
        await self._read_page()
        return self

    def __aiter__(self) -> ExportStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces and not self._ended:
            try:
                await self._read_page()
            except MemoryRouterError as error:
                log_event("export_cut", level=logging.WARNING, vault=self._vault.number, code=error.code)
                self._pieces.append(msgspec.json.encode({"error": error.message, "code": error.code}) + b"\n")
                self._ended = True
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.popleft()

    async def _read_page(self) -> None:
        page = Page(
            after_seq=self._writer.last_seq,
            limit=self._limit,
            session_id=self.header.session_id,
            vectors=self._vectors,
        )
        paged: Paged = await self._supervisor.ask(self._vault, page, timeout_s=self._timeout_s)
        piece = b"".join(self._line(memory, paged.vectors.get(memory.seq, b"")) for memory in paged.memories)
        self._ended = len(paged.memories) < self._limit
        self._pieces.append(piece + self._writer.end() if self._ended else piece)
        smaller = len(piece) > PAGE_BYTES
        self._limit = max(PAGE_MEMORIES_MIN, min(PAGE_MEMORIES_MAX, self._limit // 2 if smaller else self._limit * 2))

    def _line(self, memory: Memory, vectors: bytes) -> bytes:
        """A memory's line. Vectors that a crash left incomplete stay out, since an import would refuse them."""
        complete = len(vectors) == len(memory.spans) * self.header.dims * VECTOR_ITEM_BYTES
        return self._writer.memory(exported(memory, vectors if complete else None))


async def open_export(
    supervisor: Supervisor,
    vault: VaultRef,
    *,
    now_ms: int,
    after_seq: int = 0,
    session_id: str | None = None,
    vectors: bool = True,
    timeout_s: float,
) -> ExportStream:
    """Begin an export of a vault, or of one session of it.

    Raises:
        MemoryRouterError: the vault cannot be read.
    """
    counted: VaultStats = await supervisor.ask(vault, Stats(session_id), timeout_s=timeout_s)
    header = ExportHeader(
        format=FORMAT,
        version=VERSION,
        model=counted.model_id,
        dims=counted.dims,
        count=counted.memories,
        after=after_seq,
        created_at=now_ms,
        session_id=session_id,
    )
    return await ExportStream(supervisor, vault, header, vectors=vectors, timeout_s=timeout_s).prepare()


class ImportedMessage(msgspec.Struct, frozen=True):
    """A message of an import, with the model that answered in its exchange."""

    message: Message
    model: str | None


def parse_export(body: bytes, *, limits: MemorySettings) -> list[ImportedMessage]:
    """The messages of an export that is whole and unchanged, in order.

    Raises:
        ExportError: it is not; the message names the line.
        TooLarge: a text is over `content_max_chars`; the message names the line.
    """
    reader = PartsReader()
    messages = []
    for line in lines_of(body):
        value = reader.read(line)
        if isinstance(value, ExportedMemory) and reader.header is not None:
            messages.append(_message_of(reader.number, value, reader.header, limits))
    reader.finish()
    return [message for message in messages if message.message.content]


def _message_of(number: int, memory: ExportedMemory, header: ExportHeader, limits: MemorySettings) -> ImportedMessage:
    if len(memory.content) > limits.content_max_chars:
        raise TooLarge(f"Line {number}: content may have at most {limits.content_max_chars} characters.")
    content = clean(memory.content)
    try:
        message = Message(
            role=memory.role,
            content=content,
            timestamp_ms=parse_timestamp(memory.timestamp),
            session_id=parse_session_id(memory.session_id),
            external_id=parse_external_id(memory.id),
            metadata=parse_metadata(memory.metadata),
            embedded=_vectors_of(memory, header) if content == memory.content else None,
        )
    except InvalidRequest as error:
        raise ExportError(number, error.message) from None
    return ImportedMessage(message=message, model=memory.model and memory.model[:MODEL_CHARACTERS_MAX])


def _vectors_of(memory: ExportedMemory, header: ExportHeader) -> ImportedVectors | None:
    if memory.vector is None:
        return None
    try:
        rows = base64.b64decode(memory.vector, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("vector must be base64.", field="vector") from None
    if len(rows) != len(memory.spans) * header.dims * VECTOR_ITEM_BYTES:
        raise InvalidRequest("vector must have one row of the header's dims for every span.", field="vector")
    return ImportedVectors(model_id=header.model, spans=memory.spans, rows=rows)


def import_exchanges(messages: Sequence[ImportedMessage], *, now_ms: int, request_id: str) -> list[Exchange]:
    """The messages of one import as inbox rows; they are committed together."""
    return [
        Exchange(messages=tuple(part), source="import", accepted_ms=now_ms, model=model, request_id=request_id)
        for model, run in groupby(messages, key=lambda imported: imported.model)
        for part in _parts([imported.message for imported in run])
    ]


def _parts(messages: list[Message]) -> Iterator[list[Message]]:
    for start in range(0, len(messages), ROW_MESSAGES_MAX):
        yield messages[start : start + ROW_MESSAGES_MAX]


async def import_messages(
    supervisor: Supervisor,
    vault: VaultRef,
    messages: Sequence[ImportedMessage],
    *,
    now_ms: int,
    request_id: str,
    principal: Principal | None = None,
) -> Applied:
    """Store what a vault does not know of these messages, all or none, and return what became of them.

    Args:
        principal: whose usage it is; nobody's where an operator imports.

    Raises:
        StorageFull, StoreUnavailable, Overloaded: nothing was stored.
        DeadlineExceeded: it may be stored; importing again is safe.
    """
    exchanges = import_exchanges(messages, now_ms=now_ms, request_id=request_id)
    if principal is not None:
        exchanges = [charged_to(principal, exchange) for exchange in exchanges]
    if not exchanges:
        return Applied(stored=0, duplicates=0, chunks=0)
    with await supervisor.pin(vault, weigh(exchanges), wait_room_s=ROOM_TIMEOUT_S) as pin:
        receipt = pin.submit(exchanges)
        return await receipt.wait_applied(timeout_s=APPLY_TIMEOUT_S)
