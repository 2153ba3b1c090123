"""What a user said, without what coding agents write into the user's messages.

Claude Code puts reminders, the state of git and CLAUDE.md in front of the user's words, Codex sends AGENTS.md and the
environment as messages of their own. Looked up, they drown the question; stored, they fill the vault with repetitions.
Owns the list of their elements. Must only be used on turns that are looked up and stored, never on what a provider
gets, and must stay linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from router.providers.base import Turn

_ELEMENTS = (
    "system-reminder",
    "local-command-caveat",
    "local-command-stdout",
    "local-command-stderr",
    "task-notification",
    "environment_context",
    "user_instructions",
    "INSTRUCTIONS",
)
"""As Claude Code 2.1 and Codex 0.169 write them."""

_OPENING = re.compile(
    rf"^(?:\# AGENTS\.md instructions for [^\n]*\n\n?)?<(?P<name>{'|'.join(_ELEMENTS)})>", re.MULTILINE
)


def spoken_turns(turns: Iterable[Turn]) -> list[Turn]:
    """These turns with the user's own words only; a turn of the user without any is left out."""
    own = (msgspec.structs.replace(turn, text=spoken(turn.text)) if turn.role == "user" else turn for turn in turns)
    return [turn for turn in own if turn.text.strip()]


def spoken(text: str) -> str:
    """A text without such elements. They begin a line and are closed; anything else is the user's."""
    kept: list[str] = []
    position = 0
    unclosed: set[str] = set()  # looked for once each
    for opening in _OPENING.finditer(text):
        if opening.start() < position or opening["name"] in unclosed:
            continue
        closing = f"</{opening['name']}>"
        end = text.find(closing, opening.end())
        if end < 0:
            unclosed.add(opening["name"])
            continue
        kept.append(text[position : opening.start()])
        position = end + len(closing)
    return "".join([*kept, text[position:]]).strip() if kept else text
