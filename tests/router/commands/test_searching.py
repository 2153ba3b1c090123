"""`memoryrouter search`: the same answers over HTTP and from a stopped server's data directory."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from router.cli import run_program
from tests.router.commands.test_connecting import other_server
from tests.router.commands.test_terminal import Screen
from tests.router.test_cli import error_line, run_json
from tests.running import Client, open_server

ADA = "My sister Ada lives in Lisbon and\nplays the violin."
LINES = [
    {"content": ADA, "session_id": "s1", "timestamp": 1_700_000_000_000},
    {"content": "Ada will visit us in March.", "timestamp": 1_700_000_100_000},
    {"content": "The dog is called Rex.", "timestamp": 1_700_000_200_000},
]


async def filled(server: Client) -> Client:
    """A client whose vault has the lines, embedded."""
    await server.upload(LINES)
    await server.wait_embedded()
    return server


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A data directory with memories, whose key is in the environment."""

    async def fill() -> str:
        async with open_server(tmp_path / "data") as server:
            return (await filled(server)).key

    key = trio.run(fill).removeprefix("account key: ").strip()
    monkeypatch.setenv("MEMORYROUTER_API_KEY", key)
    capsys.readouterr()
    return tmp_path / "data"


async def test_a_running_server_is_searched_by_its_address_or_through_its_data_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piped, each memory is a line with tabs, whatever line ends it has itself."""
    async with open_server(tmp_path / "data") as server:
        await filled(server)
        monkeypatch.setenv("MEMORYROUTER_API_KEY", server.key.removeprefix("account key: ").strip())

        async def search(*arguments: str, code: int = 0) -> str:
            capsys.readouterr()
            got = await trio.to_thread.run_sync(partial(run_program, ["search", *arguments]))
            captured = capsys.readouterr()
            assert got == code, captured.err
            return captured.out if code == 0 else captured.err

        found = await search("Ada's violin", "--url", f"{server.url}/v1", "--limit", "2")
        first, second = (line.split("\t") for line in found.splitlines())
        assert first[1:] == [
            "mem_1", "2023-11-14T22:13:20.000Z", "user", "s1", "My sister Ada lives in Lisbon and plays the violin.",
        ]  # fmt: skip
        assert second[1] in {"mem_2", "mem_3"}
        assert second[4] == "-"
        assert float(first[0]) > float(second[0])
        assert await search("Ada's violin", "--data-dir", str(tmp_path / "data"), "--limit", "2") == found
        only = await search("Ada", "--url", server.url, "--session", "s1", "--json")
        assert "mem_1" in {memory["id"] for memory in json.loads(only)["memories"]}
        explained = (await search("Ada", "--url", server.url, "--explain")).splitlines()[0].split("\t")[6]
        assert "coverage=+" in explained
        answer = json.loads(await search("Ada", "--url", server.url, "--explain", "--json"))
        assert answer["count"] == 3
        assert set(answer["memories"][0]["explanation"]) == {"features", "weights", "relevance", "rank"}
        assert "a server uses the data directory" in await search(
            "x", "--vault", "1", "--data-dir", str(tmp_path / "data"), code=2
        )


def test_a_stopped_servers_data_directory_is_searched_by_key_and_by_number(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*arguments: str) -> list[dict[str, Any]]:
        answer = run_json(capsys, "search", "Ada's violin", "--data-dir", str(stopped), *arguments)
        assert isinstance(answer, dict)
        memories: list[dict[str, Any]] = answer["memories"]
        return memories

    by_key, by_number = found("--limit", "2", "--explain"), found("--vault", "1", "--limit", "2", "--explain")
    assert [memory["id"] for memory in by_key] == ["mem_1", by_key[1]["id"]]
    assert by_key == by_number
    assert by_key[0]["content"] == ADA
    assert "explanation" in by_key[0]
    where = ["--data-dir", str(stopped)]
    assert run_program(["search", "x", "--vault", "9", *where]) == 1
    assert "There is no vault 9" in error_line(capsys)
    assert run_program(["search", "x", "--key", "mk_" + "y" * 32, *where]) == 1
    assert "Invalid or inactive memory key" in error_line(capsys)
    monkeypatch.setenv("MEMORYROUTER_API_KEY", os.environ["MEMORYROUTER_API_KEY"] + ":write")
    assert found() == [], "as over HTTP: a key that may not read finds nothing"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], "Missing argument 'QUERY'"),
        (["search", " ", "--vault", "1"], "QUERY is empty"),
        (["search", "x", "--limit", "0", "--vault", "1"], "0 is not in the range"),
        (["search", "x", "--vault", "1"], "there is no data directory data"),
        (["search", "x"], "Give the vault's Memory Key"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_program(arguments) == 2
    assert words in error_line(capsys)


def test_on_a_terminal_scores_are_bars_and_reasons_stand_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest reasons first; control characters of a memory do not get through."""
    found = {
        "id": "mem_1", "content": "Ada\x1b[2J plays\nthe violin.", "role": "user", "timestamp": 1_700_000_000_000,
        "session_id": "s1", "score": 0.72,
        "explanation": {"features": {"dense": 0.5, "asks": 1.0, "long": 0.0}, "weights": {"dense": 3.0, "asks": -2.0}},
    }  # fmt: skip
    screen = Screen()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with other_server(body=json.dumps({"memories": [found]}).encode()) as url:
        monkeypatch.setattr(sys, "stdout", screen)
        assert run_program(["search", "Ada", "--explain", "--url", url, "--key", "mk_x"]) == 0
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert lines[0] == "score when memory"
    assert lines[2:] == [
        "███████░░░ 0.72 2023-11-14 Ada?[2J plays the violin.",
        "user · mem_1 · session s1",
        "-2.00 asks",
        "+1.50 dense",
    ]
    assert "\x1b" not in screen.getvalue()


def test_on_a_terminal_nothing_is_said_to_be_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    with other_server(body=b'{"memories": []}') as url:
        monkeypatch.setattr(sys, "stdout", screen)
        assert run_program(["search", "Ada", "--url", url, "--key", "mk_x"]) == 0
    assert screen.getvalue() == "nothing found\n"
