"""What agents write into the user's messages is neither looked up nor stored, and still goes to the provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.providers.base import Turn
from router.spoken_words import spoken, spoken_turns
from tests.fakes.provider import open_fake_provider
from tests.running import open_server, settings_for, user

REMINDER = "<system-reminder>\nContents of CLAUDE.md:\n\nUse tabs.\n</system-reminder>\n"
AGENTS = "# AGENTS.md instructions for /srv/app\n\n<INSTRUCTIONS>\nUse tabs.\n\n</INSTRUCTIONS>"
ENVIRONMENT = "<environment_context>\n  <cwd>/srv/app</cwd>\n</environment_context>"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (f"{REMINDER}\nWhat is my dog called?", "What is my dog called?"),
        (f"My dog is Rex.\n{REMINDER}", "My dog is Rex."),
        (f"{AGENTS}\n{ENVIRONMENT}", ""),
        (f"{REMINDER}one\n{REMINDER}two", "one\n\ntwo"),
        ("What does <system-reminder> mean?", "What does <system-reminder> mean?"),
        ("<system-reminder>\nnever closed", "<system-reminder>\nnever closed"),
        ("<INSTRUCTION>\nmine\n</INSTRUCTION>", "<INSTRUCTION>\nmine\n</INSTRUCTION>"),
        ("", ""),
    ],
)
def test_only_the_users_words_are_left(text: str, own: str) -> None:
    assert spoken(text) == own


def test_many_openings_cost_one_look_each() -> None:
    """A text of openings alone comes back as it is."""
    text = "<system-reminder>\n" * 100_000
    assert spoken(text) is text


def test_turns_of_nothing_but_such_text_are_none() -> None:
    """The assistant's are left alone."""
    said = [Turn("user", ENVIRONMENT), Turn("user", f"{REMINDER}Hello."), Turn("assistant", ENVIRONMENT)]
    assert spoken_turns(said) == [Turn("user", "Hello."), Turn("assistant", ENVIRONMENT)]


async def test_a_chat_recalls_by_the_users_words_and_stores_them_alone(tmp_path: Path) -> None:
    """The provider gets the message as the agent wrote it."""
    async with (
        open_fake_provider() as provider,
        open_server(tmp_path / "data", settings_for(provider.settings())) as server,
    ):
        await server.ingest("My dog is called Rex.")
        answer = await server.chat(user(f"{REMINDER}What is my dog called?"))
        assert answer.headers["x-memory-status"] == "ok"
        assert b"CLAUDE.md" in provider.requests[0].body
        assert b"<memory_context>" in provider.requests[0].body
        stored = (await server.get("/v1/memories")).text
        assert "What is my dog called?" in stored
        assert "CLAUDE.md" not in stored
