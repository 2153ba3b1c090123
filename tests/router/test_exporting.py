"""Exports in pieces: pages follow the size of memories, errors end a stream visibly, long files are split."""

from __future__ import annotations

import base64
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SetupError, StoreUnavailable, TooLarge
from models.exports import FORMAT, VERSION, ExportedMemory, ExportError, ExportHeader, PartsReader, PartWriter, lines_of
from models.ids import VaultNumber, VaultRef
from models.memory import LOCAL_RECALL_MODEL, Memory
from models.memory_settings import MemorySettings
from models.messages import Page, Paged, Stats, VaultStats
from router.commands.terminal import Progress
from router.commands.transfer_files import (
    BODY_MEMORIES_MAX,
    ExportFile,
    Selection,
    bodies_of,
    open_part,
    part_path,
    verify_file,
)
from router.commands.transfer_http import export_over_http
from router.exporting import PAGE_BYTES, import_exchanges, open_export, parse_export
from router.uploads import ROW_MESSAGES_MAX

VAULT = VaultRef(number=VaultNumber(1), shard=0)
NOW_MS = 1_780_000_000_000
LIMITS = MemorySettings()


def memory(seq: int, content: str = "", **fields: Any) -> ExportedMemory:
    """One exported memory."""
    return ExportedMemory(seq=seq, role="user", content=content or f"Fact {seq}.", timestamp=NOW_MS + seq, **fields)


def export(*memories: ExportedMemory, after: int = 0, model: str = "m") -> bytes:
    """A part with these memories, for vectors of two numbers."""
    header = ExportHeader(FORMAT, VERSION, model, 2, len(memories), after, NOW_MS, None)
    writer = PartWriter()
    return b"".join([writer.header(header), *map(writer.memory, memories), writer.end()])


class PagedVault:
    """Answers as a supervisor with one vault, and notes how many memories each page may have."""

    def __init__(self, contents: list[str], *, fails_behind: int = 10**9) -> None:
        self.limits: list[int] = []
        self._fails_behind = fails_behind
        self._memories = [
            Memory(seq=seq, role="user", content=content, timestamp_ms=seq, stored_ms=seq, source="upload")
            for seq, content in enumerate(contents, start=1)
        ]

    async def ask(self, vault: VaultRef, message: Any, *, timeout_s: float) -> Any:
        """The reply to a message."""
        assert vault == VAULT
        assert timeout_s > 0
        if isinstance(message, Stats):
            return VaultStats(memories=len(self._memories), model_id="m", dims=2)
        assert isinstance(message, Page)
        if message.after_seq >= self._fails_behind:
            raise StoreUnavailable("The shard cannot be read.")
        self.limits.append(message.limit)
        return Paged(tuple(self._memories[message.after_seq :][: message.limit]), {})


async def collect(vault: PagedVault) -> list[bytes]:
    """The pieces of an export."""
    stream = await open_export(vault, VAULT, now_ms=1, timeout_s=1)  # type: ignore[arg-type]  # its `ask` is all that is used
    return [piece async for piece in stream]


async def test_pages_grow_with_short_memories_and_shrink_with_long_ones() -> None:
    short, long = PagedVault(["x"] * 1000), PagedVault(["y" * PAGE_BYTES] * 20)

    await collect(short)
    pieces = await collect(long)

    assert short.limits == [4, 8, 16, 32, 64, 128, 256, 256, 256]
    assert set(long.limits) == {4}
    assert max(map(len, pieces)) < 5 * PAGE_BYTES
    assert verify_file(io.BytesIO(b"".join(pieces))) == 20


async def test_a_failure_on_the_way_ends_the_export_with_its_error_and_without_an_end() -> None:
    pieces = await collect(PagedVault(["x"] * 100, fails_behind=50))

    assert msgspec.json.decode(pieces[-1]) == {"error": "The shard cannot be read.", "code": "store_unavailable"}
    with pytest.raises(ExportError):
        parse_export(b"".join(pieces), limits=LIMITS)
    with pytest.raises(StoreUnavailable):
        await collect(PagedVault(["x"], fails_behind=0))


def test_vectors_come_back_as_they_went_and_only_in_one_row_a_span() -> None:
    rows = b"\x00\x3c\x00\x40"
    vector = base64.b64encode(rows).decode()
    (parsed,) = parse_export(export(memory(1, spans=((0, 7),), vector=vector)), limits=LIMITS)
    assert parsed.message.embedded is not None
    assert (parsed.message.embedded.model_id, parsed.message.embedded.rows) == ("m", rows)
    assert parsed.message.embedded.spans == ((0, 7),)

    for spans, text in (((), vector), (((0, 2), (2, 7)), vector), (((0, 7),), "*")):
        with pytest.raises(ExportError, match="Line 2: vector must"):
            parse_export(export(memory(1, spans=spans, vector=text)), limits=LIMITS)


def test_every_field_of_a_memory_is_held_to_the_limits_of_an_upload() -> None:
    with pytest.raises(TooLarge, match="Line 3: content may have at most"):
        parse_export(export(memory(1), memory(2, "x" * (LIMITS.content_max_chars + 1))), limits=LIMITS)
    for fields in ({"metadata": {"a": "x" * 20_000}}, {"id": "x" * 300}, {"session_id": "x" * 600}):
        with pytest.raises(ExportError, match="Line 2: "):
            parse_export(export(memory(1, **fields)), limits=LIMITS)


def test_rows_hold_one_model_each_so_that_local_replies_stay_unrecalled() -> None:
    memories = [memory(seq, model=LOCAL_RECALL_MODEL if seq == 3 else None) for seq in range(1, 2 * ROW_MESSAGES_MAX)]
    exchanges = import_exchanges(parse_export(export(*memories), limits=LIMITS), now_ms=NOW_MS, request_id="r")

    assert [exchange.model for exchange in exchanges] == [None, LOCAL_RECALL_MODEL, None, None]
    assert {exchange.source for exchange in exchanges} == {"import"}
    assert sum(len(exchange.messages) for exchange in exchanges) == len(memories)
    assert max(len(exchange.messages) for exchange in exchanges) == ROW_MESSAGES_MAX


@given(cut=st.integers(0), contents=st.lists(st.text(min_size=1), max_size=4))
def test_an_export_that_is_cut_anywhere_is_refused(cut: int, contents: list[str]) -> None:
    body = export(*(memory(seq, content) for seq, content in enumerate(contents, start=1)))
    cut %= len(body) - 1  # the last line feed may be missing
    with pytest.raises(ExportError):
        parse_export(body[:cut], limits=LIMITS)


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_an_export_with_one_bit_changed_is_refused(place: int, bit: int) -> None:
    """Or means the same: JSON may have blanks, and the last line feed is nothing."""
    body = bytearray(export(memory(1), memory(2, id="a")))
    before = parse_export(bytes(body), limits=LIMITS)
    body[place % len(body)] ^= 1 << bit
    try:
        after = parse_export(bytes(body), limits=LIMITS)
    except ExportError:
        return
    assert after == before


def test_a_long_export_becomes_several_bodies_that_are_exports_themselves() -> None:
    count = 2 * BODY_MEMORIES_MAX + 7
    body = export(*(memory(seq) for seq in range(1, count))) + export(memory(count), after=count - 1, model="n")

    bodies = list(bodies_of(io.BytesIO(body)))

    assert [number for number, _ in bodies] == [BODY_MEMORIES_MAX, BODY_MEMORIES_MAX, 6, 1]
    parsed = [part for _, each in bodies for part in parse_export(each, limits=LIMITS)]
    assert parsed == parse_export(body, limits=LIMITS)
    assert b'"model":"n"' in bodies[-1][1]


@pytest.mark.parametrize("cut", [0, 1, 200, 320, 400, 10**6])
def test_an_interrupted_file_is_resumed_behind_its_last_whole_line(tmp_path: Path, cut: int) -> None:
    memories = [memory(seq) for seq in range(1, 9)]
    with open_part(tmp_path / "x", resume=False) as target:
        target.write(export(*memories)[:cut])
    assert part_path(tmp_path / "x").stat().st_mode & 0o777 == 0o600

    with open_part(tmp_path / "x", resume=True) as target:
        file = ExportFile(target)
        file.resume(target)
        got = file.last_seq
        file.feed(export(*memories[got:], after=got))
        assert file.whole
        assert file.count == len(memories)

    reader = PartsReader()
    values = [reader.read(line) for line in lines_of(part_path(tmp_path / "x").read_bytes())]
    reader.finish()
    assert [value for value in values if isinstance(value, ExportedMemory)] == memories


def test_two_exports_do_not_write_the_same_file_at_once(tmp_path: Path) -> None:
    with open_part(tmp_path / "x", resume=False) as target:
        target.write(b"first")
        for resume in (False, True):
            with pytest.raises(SetupError, match="another export is writing it"):
                open_part(tmp_path / "x", resume=resume)
    assert part_path(tmp_path / "x").read_bytes() == b"first"
    open_part(tmp_path / "x", resume=False).close()
    assert part_path(tmp_path / "x").read_bytes() == b""


class BreakingServer(BaseHTTPRequestHandler):
    """Gives an export, and cuts its first answer off in the middle of a line."""

    memories = tuple(memory(seq) for seq in range(1, 9))
    asked: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        after = int(parse_qs(urlsplit(self.path).query)["after"][0])
        body = export(*self.memories[after:], after=after)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.asked else body[:500])
        self.asked.append(after)

    def log_message(self, *_: object) -> None:
        """Nothing to stderr."""


def test_a_broken_connection_is_taken_up_behind_the_last_whole_memory() -> None:
    BreakingServer.asked.clear()
    target = io.BytesIO()
    with HTTPServer(("127.0.0.1", 0), BreakingServer) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            export_over_http(ExportFile(target), url, "mk_x", Selection(), Progress("exported"))
        finally:
            server.shutdown()
            serving.join()

    first, second = BreakingServer.asked
    assert first == 0
    assert 0 < second < len(BreakingServer.memories)
    parsed = parse_export(target.getvalue(), limits=LIMITS)
    assert [each.message.content for each in parsed] == [each.content for each in BreakingServer.memories]
