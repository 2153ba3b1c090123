"""`memoryrouter upload` as a user meets it: a real server, real files, and what is in the vault afterwards."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from models.errors import InvalidRequest
from models.settings import Settings
from router.cli import run_program
from router.commands.upload import _deliver
from router.commands.upload_delivery import SLICE_LINES_MAX
from router.commands.upload_plan import Choice
from tests.fakes.exports import chatgpt_talk, claude_conversation, claude_message, zipped
from tests.patience import PATIENCE_S
from tests.running import ROOT, Client, open_server


class Uploads:
    """Runs the command in this process.

    Attributes:
        errors: what the last one wrote on stderr, without the log of a server beside it.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def here(self, *arguments: object, code: int = 0) -> str:
        """What an upload prints; insists on its exit code."""
        self._capsys.readouterr()
        got = run_program(["upload", *map(str, arguments)])
        captured = self._capsys.readouterr()
        self.errors = "\n".join(line for line in captured.err.splitlines() if not line.startswith("{"))  # no log lines
        assert got == code, captured.err
        return captured.out

    async def to(self, client: Client, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The figures of an upload to a server in this loop."""
        arguments = ("--url", client.url, *arguments, "--key", client.key, "--json")
        out = await trio.to_thread.run_sync(lambda: self.here(*arguments, code=code))
        figures: dict[str, Any] = json.loads(out) if out else {}
        return figures


@pytest.fixture
def uploads(capsys: pytest.CaptureFixture[str]) -> Uploads:
    return Uploads(capsys)


def stored(figures: dict[str, Any]) -> tuple[int, int]:
    """What was new, and what was known."""
    return figures["stored"], figures["duplicates"]


async def count(client: Client) -> int:
    """Memories in the vault."""
    return int((await client.stats())["memories"])


def saved(name: str, data: bytes | str | Any) -> Path:
    """A file with these bytes, this text, or this as JSON."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data)).encode()
    path.write_bytes(data)
    return path


TALKS = [chatgpt_talk(1, "I like green tea", "Noted"), chatgpt_talk(2, "I live in Kiel", "A nice town")]


async def test_the_same_conversations_are_stored_once_whatever_they_come_in(tmp_path: Path, uploads: Uploads) -> None:
    """From the zip, from its conversations.json, from its parts, compressed, and from a directory of all of these."""
    packed = saved("in/export.zip", zipped({"conversations.json": TALKS, "chat.html": b"<html>", "user.json": {}}))
    alone = saved("in/conversations.json", TALKS)
    parts = [saved(f"in/conversations-00{number}.json", [talk]) for number, talk in enumerate(TALKS)]
    small = saved("c.json.gz", gzip.compress(json.dumps(TALKS).encode()))

    async with open_server(tmp_path / "d") as client:
        first = await uploads.to(client, packed)
        assert stored(first) == (4, 0)
        assert first["files"] == 1
        assert first["conversations"] == first["sessions"] == 2
        assert first["messages"] == 4
        assert first["skipped"] == {"other_file": 2}
        assert first["errors"] == 0
        assert stored(await uploads.to(client, packed)) == (0, 4)
        assert stored(await uploads.to(client, alone)) == (0, 4)
        assert stored(await uploads.to(client, *parts)) == (0, 4)
        assert stored(await uploads.to(client, small)) == (0, 4)
        assert stored(await uploads.to(client, "in")) == (0, 12)
        assert await count(client) == 4


async def test_a_named_pipe_is_read_once_and_stored_whole(tmp_path: Path, uploads: Uploads) -> None:
    """As `<(command)` and `/dev/stdin` are: the check must not swallow what is to be sent."""
    os.mkfifo("pipe.jsonl")
    lines = "".join(json.dumps({"content": f"Note {number}"}) + "\n" for number in range(3))
    async with open_server(tmp_path / "d") as client, trio.open_nursery() as nursery:
        nursery.start_soon(trio.Path("pipe.jsonl").write_text, lines)
        assert stored(await uploads.to(client, "pipe.jsonl")) == (3, 0)


async def test_an_export_that_has_grown_adds_only_what_is_new(tmp_path: Path, uploads: Uploads) -> None:
    grown = [
        chatgpt_talk(1, "I like green tea", "Noted", "And coffee on Sundays", "Noted too"),
        *TALKS[1:],
        chatgpt_talk(3, "My sister is Anna"),
    ]
    async with open_server(tmp_path / "d") as client:
        await uploads.to(client, saved("conversations.json", TALKS))
        assert stored(await uploads.to(client, saved("conversations.json", grown))) == (3, 4)
        assert await count(client) == 7


async def test_what_was_uploaded_is_found_with_its_time_and_session(tmp_path: Path, uploads: Uploads) -> None:
    talk = claude_conversation("k", [claude_message("a", "human", "The red boat is mine")])
    async with open_server(tmp_path / "d") as client:
        await uploads.to(client, saved("claude.zip", zipped({"conversations.json": [talk]})))
        (found,) = await client.search("red boat", headers={"x-session-id": "claude:k"})

        assert found["content"] == "The red boat is mine"
        assert found["role"] == "user"
        assert found["session_id"] == "claude:k"
        assert found["timestamp"] == 1_735_787_045_679


async def test_choices_reach_the_vault(tmp_path: Path, uploads: Uploads) -> None:
    path = saved("conversations.json", TALKS)
    async with open_server(tmp_path / "d") as client:
        figures = await uploads.to(
            client, path, "--role", "user", "--since", "2023-11-14T22:40:00Z", "--session", "old"
        )

        assert stored(figures) == (1, 0)
        assert figures["skipped"] == {"before_since": 1, "other_role": 2}
        assert {item["session_id"] for item in await client.search("Kiel")} == {"old"}


async def test_a_dry_run_stores_nothing_and_shows_no_text_unless_asked(tmp_path: Path, uploads: Uploads) -> None:
    path = saved("conversations.json", TALKS)
    async with open_server(tmp_path / "d") as client:
        figures = await uploads.to(client, path, "--dry-run")
        assert (figures["messages"], figures["sessions"]) == (4, 2)
        assert figures["oldest"] == "2023-11-14T22:30:00.500Z"
        assert [sample["characters"] for sample in figures["samples"]] == [16, 5, 14, 11]
        assert "tea" not in json.dumps(figures)
        shown = await uploads.to(client, path, "--dry-run", "--show")
        assert shown["samples"][0]["content"] == "I like green tea"
        assert await count(client) == 0


async def test_bad_lines_are_named_and_nothing_is_stored_unless_they_are_skipped(
    tmp_path: Path, uploads: Uploads
) -> None:
    path = saved("a.jsonl", '{"content": "good"}\n{"content": 5}\n{"content": "too"}\nnonsense\n')
    async with open_server(tmp_path / "d") as client:
        figures = await uploads.to(client, path, code=1)
        assert (figures["stored"], figures["errors"]) == (0, 2)
        assert uploads.errors.splitlines() == [
            "bad: a.jsonl, line 2: content must be a non-empty string.",
            "bad: a.jsonl, line 4: not valid JSON.",
            "error: 2 entries cannot be read; nothing was sent. Mend them, or leave them out by --skip-bad.",
        ]
        assert await count(client) == 0
        figures = await uploads.to(client, path, "--skip-bad")
        assert (stored(figures), figures["errors"]) == ((2, 0), 2)


async def test_files_that_change_while_they_are_read_are_a_fault(tmp_path: Path, uploads: Uploads) -> None:
    """Half an upload must not look like a whole one."""
    path = saved("a.jsonl", '{"content": "one"}\n{"content": "two"}\n')
    async with open_server(tmp_path / "d") as client:

        def send_more_than_there_is() -> None:
            _deliver([(path, "a")], Choice(), Settings(), 3, None, url=client.url, key=client.key, data_dir=tmp_path)

        with pytest.raises(InvalidRequest, match="2 messages instead of 3 were sent"):
            await trio.to_thread.run_sync(send_more_than_there_is)
        assert await count(client) == 2


async def test_a_key_that_opens_nothing_is_a_fault_and_says_so(tmp_path: Path, uploads: Uploads) -> None:
    path = saved("a.jsonl", '{"content": "good"}')
    async with open_server(tmp_path / "d") as client:
        await uploads.to(Client(client.http, "mk_" + "x" * 32), path, code=1)
        assert uploads.errors.startswith("error: ")
        await uploads.to(Client(client.http, client.key + ":read"), path, code=1)
        assert await count(client) == 0


def test_memories_of_several_users_do_not_go_into_one_vault(uploads: Uploads) -> None:
    page = {"results": [{"id": name, "memory": f"{name} likes tea", "user_id": name} for name in ("anna", "bert")]}
    path = saved("mem0.json", page)

    uploads.here(path, "--dry-run", code=2)
    assert "memories of 2 users (anna, bert ...)" in uploads.errors
    assert "messages: 1" in uploads.here(path, "--dry-run", "--user", "bert")


def test_mistakes_in_arguments_are_told_apart(uploads: Uploads) -> None:
    path = saved("a.jsonl", '{"content": "good"}')

    uploads.here(path, code=2)
    assert "MEMORYROUTER_API_KEY" in uploads.errors
    uploads.here("nothing.jsonl", "--dry-run", code=2)
    assert "nothing.jsonl: cannot be read" in uploads.errors
    uploads.here(path, "--since", "soon", "--dry-run", code=2)
    assert "no date" in uploads.errors
    uploads.here(path, "--show", code=2)
    uploads.here(code=2)
    uploads.here(path, "--key", "mk_" + "x" * 32, "--url", "http://127.0.0.1:1", code=1)
    assert "refuses the connection" in uploads.errors


def test_notes_are_uploaded_into_a_stopped_data_directory(uploads: Uploads, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server the data directory is opened; text, Markdown and lines may lie in one directory."""
    assert run_program(["init"]) == 0
    key = capsys.readouterr().out.strip().removeprefix("account key: ")
    saved("notes/a.md", "# Roses\nNeed water.\n\n# Tulips\nNeed sun.")
    saved("notes/b.txt", "first\n\nsecond")
    saved("notes/c.jsonl", '{"content": "third"}\n')

    assert uploads.here("notes", "--key", key) == ("uploaded: 5 of 5 messages; 0 were known already\n")
    assert uploads.here("notes", "--key", key).endswith("; 5 were known already\n")
    uploads.here("notes", "--key", key + ":read", code=1)


async def test_files_come_through_a_pipe(tmp_path: Path, uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_server(tmp_path / "d") as client:
        for data in (b'{"content": "piped"}\n', zipped({"conversations.json": TALKS})):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            await uploads.to(client, "-")
        assert await count(client) == 5


async def test_an_upload_that_is_done_leaves_no_file_behind(tmp_path: Path, uploads: Uploads) -> None:
    async with open_server(tmp_path / "d") as client:
        await uploads.to(client, saved("conversations.json", TALKS))
        await uploads.to(client, saved("conversations.json", TALKS), "--restart")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


# --- kill -9 ---


class Relay:
    """Passes bytes between an upload and a server, until an answer that it keeps: what was asked is done, unheard.

    Attributes:
        kept: the answer is kept.
    """

    def __init__(self, client: Client, *, answers: int) -> None:
        self._port = int(client.url.rpartition(":")[2])
        self._left = answers
        self.kept = trio.Event()

    async def serve(self, port: int = 0, *, task_status: trio.TaskStatus[int]) -> None:
        """Accept connections for ever; starts with the port."""
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as far, near, trio.open_nursery() as passing:
            passing.start_soon(self._requests, near, far)
            await self._answers(far, near)
            passing.cancel_scope.cancel(reason="the connection is over")

    @staticmethod
    async def _requests(near: trio.SocketStream, far: trio.SocketStream) -> None:
        try:
            async for data in near:
                await far.send_all(data)
        except trio.BrokenResourceError:
            return

    async def _answers(self, far: trio.SocketStream, near: trio.SocketStream) -> None:
        async for data in far:
            if data.startswith(b"HTTP/1.1 200"):
                self._left -= 1
            if self._left < 0:
                self.kept.set()
                await trio.sleep_forever()
            await near.send_all(data)


async def test_an_upload_that_is_killed_goes_on_and_doubles_nothing(tmp_path: Path, uploads: Uploads) -> None:
    """Killed when a slice is committed and its answer is still on the way: the worst moment."""
    total = 2 * SLICE_LINES_MAX + 500
    path = saved("a.jsonl", "\n".join(json.dumps({"content": f"Note {number}"}) for number in range(total)))
    async with open_server(tmp_path / "d") as client, trio.open_nursery() as relaying:
        relay = Relay(client, answers=1)
        port = await relaying.start(relay.serve)
        command = [sys.executable, "-m", "router", "upload", str(path.resolve()), "--url", f"http://127.0.0.1:{port}"]
        process = await trio.lowlevel.open_process(
            command,
            cwd=ROOT,
            env={**os.environ, "MEMORYROUTER_API_KEY": client.key},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with trio.fail_after(PATIENCE_S):
            await relay.kept.wait()
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
        relaying.cancel_scope.cancel(reason="the upload is dead")

    async with open_server(tmp_path / "d") as client, trio.open_nursery() as relaying:
        assert await count(client) == 2 * SLICE_LINES_MAX
        await relaying.start(Relay(client, answers=1_000).serve, port)
        figures = await uploads.to(client, path, "--url", f"http://127.0.0.1:{port}")
        relaying.cancel_scope.cancel(reason="the upload is through")
        assert figures["resumed"] == SLICE_LINES_MAX
        assert stored(figures) == (500, 2 * SLICE_LINES_MAX)
        assert await count(client) == total
        assert stored(await uploads.to(client, path)) == (0, total)
