"""Nothing private gets out: every route and every error with marked keys and texts, then a search of all there is.

The routes come from the table of operations, so that a new one is driven without a word here. What is searched: every
line of every logger at debug level, stderr, the metrics, every answer (keys in all of them, texts in those of error
status), what providers get to see, and every file of the data directory, while the server runs and afterwards.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from router.openapi.operations import OPERATIONS
from tests.contract.canaries import (
    KEYS,
    PARAMETER,
    REPLIED,
    SAID,
    TEXTS,
    UNKNOWN_KEY,
    Replies,
    Search,
    all_logs,
    look_through_files,
)
from tests.contract.driving import Driver, bodies_of, drive_everything, in_order, open_marked
from tests.fakes.disk import Fate, FaultyDisk
from tests.fakes.embedding import HashEmbedding
from tests.fakes.provider import Recorded
from tests.running import Client


def look_at_requests(search: Search, requests: Sequence[Recorded], memory_keys: tuple[str, ...]) -> None:
    """A provider sees its own key, in one header, and never a Memory Key."""
    for recorded in requests:
        place = f"{recorded.method} {recorded.path}"
        values = [*recorded.headers.values(), recorded.path]
        search.look("requests", place, recorded.body + "\n".join(values).encode(), memory_keys)
        search.look("requests", place, recorded.body + recorded.path.encode(), KEYS)
        holding = [name for name, value in recorded.headers.items() if "sk-qcanary" in value]
        assert len(holding) <= 1, holding


async def look_around(search: Search, server: Client, data_dir: Path, marks: tuple[str, ...]) -> None:
    """Metrics, and the files as they are while the server runs."""
    metrics = await server.get("/metrics")
    assert metrics.status_code == 200
    search.look("metrics", "/metrics", metrics.content, (*marks, PARAMETER))
    assert look_through_files(search, data_dir, marks) >= 3


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """In every spelling, and says where."""
    search = Search()
    contents = (
        f"text {SAID.upper()}".encode(),
        base64.b64encode(f"x{SAID}y".encode()),
        base64.b64encode(f"xy{SAID}".encode()),
        f"<{SAID.encode().hex()}>".encode(),
        SAID.encode("utf-16-le"),
    )
    for at, content in enumerate(contents):
        search.look("test", str(at), content, (SAID,))
    assert search.found == [f"test {at}: {SAID}" for at in range(5)]
    (tmp_path / "file").write_bytes(b"\0" + REPLIED.encode() + b"\0")
    look_through_files(search, tmp_path, TEXTS)
    assert search.found[5:] == [f"files file: {REPLIED}"]


async def test_no_mark_gets_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is asked of whichever route, and however its provider behaves."""
    search = Search()
    with all_logs() as logs:
        async with open_marked(tmp_path) as (server, provider):
            changed, other = await server.other("for examples that change a key"), await server.other()
            driver = Driver(server, Replies(search, (server.key, other.key, changed.key)), other.key)
            await drive_everything(driver, provider)
            memory_keys = (*driver.replies.memory_keys, *driver.replies.minted)
            secrets = (*KEYS, *memory_keys, *driver.sessions)
            await look_around(search, server, tmp_path / "data", (*secrets, *TEXTS))
            look_at_requests(search, provider.requests, memory_keys)
        look_at_rest(search, tmp_path / "data", logs, capfd, (*secrets, *TEXTS))
    statuses = driver.replies.statuses
    assert driver.replies.minted
    with capfd.disabled():
        print(f"\n{search.report()}; {driver.replies.count} answers: {dict(sorted(statuses.items()))}")
    assert logs.getvalue().count("request_done") >= driver.replies.count
    assert search.found == []
    assert {200, 307, 400, 401, 403, 404, 413, 415, 429, 500, 502} <= set(statuses)


def look_at_rest(
    search: Search, data_dir: Path, logs: io.StringIO, capfd: pytest.CaptureFixture[str], marks: tuple[str, ...]
) -> None:
    """What is left when the server has ended: its files, its logs, what went to stdout and stderr."""
    look_through_files(search, data_dir, (*marks, PARAMETER))
    for line in logs.getvalue().splitlines():
        search.look("log lines", line[:200], line, (*marks, PARAMETER))
    captured = capfd.readouterr()
    search.look("stderr", "stdout and stderr", captured.out + captured.err, (*marks, PARAMETER))


# --- crashes and full disks ---


class QuotingEncoder(HashEmbedding):
    """An encoder whose errors quote the text, as those of foreign packages do.

    Attributes:
        failing: how it fails, if it does.
    """

    failing: Literal["", "raises", "answers nonsense"] = ""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors, an error with everything in it, or vectors that fit nowhere."""
        if self.failing == "raises":
            raise RuntimeError(f"cannot encode {texts!r} for {UNKNOWN_KEY}")
        vectors = super().encode(texts)
        return vectors[:, :3] if self.failing else vectors


MEMORY = [operation for operation in OPERATIONS if operation.path.startswith("/v1/memor") or operation.is_proxied]


@pytest.mark.parametrize("failing", ["raises", "answers nonsense"])
async def test_no_mark_gets_out_of_a_crash(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], failing: Literal["raises", "answers nonsense"]
) -> None:
    """Of the encoder, and of the vaults that it brings down."""
    search, encoder = Search(), QuotingEncoder()
    with all_logs() as logs:
        async with open_marked(tmp_path, encoder) as (server, _):
            other = await server.other()
            await other.ingest(f"My dog is called {SAID}.")
            await other.wait_embedded()
            driver = Driver(server, Replies(search, (server.key, other.key)), other.key)
            encoder.failing = failing
            for operation in in_order(MEMORY):
                for body in bodies_of(operation):
                    await driver.ask(operation, body)
            marks = (*KEYS, server.key, other.key, *TEXTS)
            await look_around(search, server, tmp_path / "data", marks)
        look_at_rest(search, tmp_path / "data", logs, capfd, marks)
    assert search.found == []
    assert "error" in logs.getvalue()


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """The disk under every store of the test."""
    disk = FaultyDisk("canary", default=True)
    yield disk
    disk.unregister()


@pytest.mark.parametrize("fate", ["full", "failed"])
async def test_no_mark_gets_out_when_nothing_can_be_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], disk: FaultyDisk, fate: Fate
) -> None:
    """507 and 503, and chats that go on without being stored."""
    search = Search()
    with all_logs() as logs:
        async with open_marked(tmp_path) as (server, _):
            other = await server.other()
            await other.ingest(f"My dog is called {SAID}.")
            await other.wait_embedded()
            await other.get("/v1/memory/export")  # which waits until all is written out
            driver = Driver(server, Replies(search, (server.key, other.key)), other.key)
            disk.plan = lambda operation: fate if operation.kind == "write" else "done"
            for operation in in_order(MEMORY):
                for body in bodies_of(operation):
                    await driver.ask(operation, body)
            marks = (*KEYS, server.key, other.key, *TEXTS)
            await look_around(search, server, tmp_path / "data", marks)
            disk.heal()
        look_at_rest(search, tmp_path / "data", logs, capfd, marks)
    assert search.found == []
    assert {507, 503} & set(driver.replies.statuses)
