"""`memoryrouter chat`: one reply, or a conversation on a terminal, which Ctrl-C does not end."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from router.cli import run_program
from tests.fakes.provider import FakeProvider, Script, Step, chat_chunk, open_fake_provider
from tests.router.commands.terminals import CTRL_C, CTRL_D, Terminal, open_terminal
from tests.router.test_cli import error_line
from tests.running import Client, open_server, settings_for

END = b"data: [DONE]\n\n"
STREAM = [("content-type", "text/event-stream")]


def reply(*words: str) -> Script:
    """A streamed reply of a provider."""
    chunks = [chat_chunk(word) for word in words]
    return Script(headers=STREAM, steps=[*chunks, chat_chunk(finish_reason="stop"), END])


@asynccontextmanager
async def chatting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Client, FakeProvider]]:
    """A server, named by the environment, with a provider behind it."""
    async with (
        open_fake_provider() as provider,
        open_server(tmp_path / "data", settings_for(provider.settings(api_key="sk-x"))) as server,
    ):
        monkeypatch.setenv("MEMORYROUTER_API_KEY", server.key.removeprefix("account key: ").strip())
        monkeypatch.setenv("MEMORYROUTER_BASE_URL", f"{server.url}/v1")
        yield server, provider


class Chat:
    """Runs `chat` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it wrote to stdout and to stderr."""
        self._capsys.readouterr()
        got = await trio.to_thread.run_sync(partial(run_program, ["chat", *arguments]))
        captured = self._capsys.readouterr()
        assert got == code, captured.err
        return captured.out, captured.err


async def test_one_reply_goes_to_stdout_and_what_memory_did_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an argument or standard input; session, mode and system message reach the server."""
    chat = Chat(capsys)
    async with chatting(tmp_path, monkeypatch) as (server, provider):
        await server.ingest("My dog is called Rex.")
        out, err = await chat("What is my dog called?")
        assert "Rex" in out
        assert out.endswith("\n")
        assert err.startswith("memory: ok, 1 memory, ")

        provider.enqueue(reply("Hel", "lo\u2028 there."))
        monkeypatch.setattr(sys, "stdin", io.StringIO("Good morning\n"))
        out, err = await chat("--model", "openai/m", "--memory", "off", "--session", "s9", "--system", "Be brief.")
        assert (out, err) == ("Hello\u2028 there.\n", "memory: off\n")
        asked = msgspec.json.decode(provider.requests[-1].body)
        assert [message["role"] for message in asked["messages"]] == ["system", "user"]
        assert asked["stream"] is True

        provider.enqueue(reply("Your dog is Rex."))
        out, err = await chat("And my dog?", "--model", "openai/m", "--memory", "read", "--json")
        answer = json.loads(out)
        assert err == ""
        assert (answer["content"], answer["finish_reason"]) == ("Your dog is Rex.", "stop")
        assert (answer["memory"]["status"], answer["memory"]["mode"]) == ("ok", "read")
        assert answer["memory"]["memories"] >= 1
        assert "mem_1" in answer["memory"]["ids"]
        assert answer["request_id"].startswith("req_")


async def test_words_are_written_as_they_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones are out while the model still thinks about the next."""
    gate = trio.Event()
    async with chatting(tmp_path, monkeypatch) as (_, provider):
        steps: list[Step] = [chat_chunk("First."), gate, chat_chunk(" Second."), chat_chunk(finish_reason="stop"), END]
        provider.enqueue(Script(headers=STREAM, steps=steps))
        with open_terminal("chat", "Hello", "--model", "openai/m") as terminal:
            await trio.to_thread.run_sync(terminal.read_until, "First.")
            assert "Second" not in terminal.text
            gate.set()
            code, text = await trio.to_thread.run_sync(terminal.end)
    assert code == 0
    assert "First. Second.\n" in text
    assert "memory: empty\n" in text


async def test_a_reply_that_fails_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(capsys)
    async with chatting(tmp_path, monkeypatch) as (_, provider):
        assert "No provider is configured" in (await chat("Hello", "--model", "nobody/m", code=1))[1]
        provider.enqueue(
            Script(headers=STREAM, steps=[chat_chunk("Half"), b'data: {"error": {"message": "no more"}}\n\n'])
        )
        assert await chat("Hello", "--model", "openai/m", code=1) == ("Half\n", "error: no more\n")
        provider.enqueue(Script(headers=STREAM, steps=[chat_chunk("Half")]))
        out, err = await chat("Hello", "--model", "openai/m", code=1)
        assert out == "Half\n"
        assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Hello"], "Give the vault's Memory Key"),
        (["Hello", "--key", "mk_x"], "no server runs on the data directory data. Start one with `memoryrouter serve`"),
        ([" ", "--key", "mk_x"], "There is nothing to say"),
        (["Hello", "--key", "mk_x", "--memory", "some"], "'some' is not one of"),
        (["Hello", "--key", "mk_x", "--url", "http://x", "--session", "\u00e4"], "printable ASCII"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_program(["chat", *arguments]) == 2
    assert words in error_line(capsys)


async def test_a_conversation_goes_on_after_ctrl_c_and_ends_with_ctrl_d(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said before is sent again, a reply that was ended with what came of it; a terminal is not driven."""
    async with chatting(tmp_path, monkeypatch) as (_, provider):

        async def shown(terminal: Terminal, text: str, times: int = 1) -> None:
            await trio.to_thread.run_sync(partial(terminal.read_until, text, times=times))

        def said() -> list[tuple[str, str]]:
            messages = msgspec.json.decode(provider.requests[-1].body)["messages"]
            return [(message["role"], message["content"]) for message in messages]

        steps: list[Step] = [chat_chunk("Endless \x1b[2J"), trio.Event()]
        provider.enqueue(Script(headers=STREAM, steps=steps))
        provider.enqueue(reply("All right."))
        provider.enqueue(reply("Anew."))
        with open_terminal("chat", "--model", "openai/m", "--memory", "off") as terminal:
            await shown(terminal, "> ")
            terminal.type("Count to a million\n")
            await shown(terminal, "Endless ?[2J")
            terminal.type(CTRL_C)
            await shown(terminal, "the reply was ended")
            await shown(terminal, "> ", times=2)
            terminal.type("Stop\n")
            await shown(terminal, "All right.\nmemory: off")
            assert said() == [
                ("user", "Count to a million"), ("assistant", "Endless \x1b[2J"), ("user", "Stop"),
            ]  # fmt: skip
            terminal.type("/new\n")
            await shown(terminal, "a new conversation")
            terminal.type("Hello\n")
            await shown(terminal, "Anew.\nmemory: off")
            assert said() == [("user", "Hello")]
            await shown(terminal, "> ", times=5)
            terminal.type("half a line" + CTRL_C)
            await shown(terminal, "> ", times=6)
            terminal.type(CTRL_D)
            code, text = await trio.to_thread.run_sync(terminal.end)
    assert code == 0, text
    assert "Traceback" not in text
    assert "\x1b[2J" not in terminal.seen
