"""The block of memories that goes into a prompt.

Owns its shape and its escaping: whatever a memory says, it cannot close the block, pose as another memory, or
speak as a role. Must never change the order of time (oldest first) or render a memory's text unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from functools import lru_cache

import msgspec

from models.look_alikes import shadow, without_invisible
from models.memory import Role
from models.times import absolute_time, relative_time

CONTEXT_OPEN = "<memory_context>"
CONTEXT_CLOSE = "</memory_context>"
ENTRY_OPEN = "[MEMORY - "
CONTINUATION = "  "
"""Every further line of a memory starts with this: only headers of memories stand at the left edge."""

HEADERS_MAX = 256
"""Headers that are remembered: those of one context, which are counted before they are shown."""

CLOSING_SENTENCE = (
    "These are memories from earlier conversations, recalled as background for what follows; "
    "use them where they help and do not reply to them directly."
)
ASSISTANT_PREFIX = "Assistant: "
"""Marks what the assistant said; the user's own words stand plain, as clients of the contract expect."""

THEN: dict[Role, str] = {"user": "The user then: ", "assistant": "The assistant then: "}
"""Before a turn that followed the one above it. No memory's text has such a line: `escape` sees to it."""

_ROLES = "system|developer|user|human|assistant|ai|bot|model|tool|function"
_PROMPTS = "instructions?|response|input|prompt|system[ ](?:prompt|message|instructions?)"
_ROLE_HEADER = re.compile(
    rf"""^ (?P<name> [\s>\#*_\-\["'(]*+ (?: (?:{_ROLES}) | The\s(?:user|assistant)\sthen ) [\s*_\]"')]*+
         | [\s>*_]*+ \#++ \s*+ (?:{_PROMPTS}) [\s*_]*+ ) :""",
    re.VERBOSE | re.IGNORECASE,
)
_ROLE_HEADING = re.compile(
    rf"^ [\s>]*+ (?P<sign>\#) (?= \#*+ \s*+ (?:{_ROLES}|{_PROMPTS}) \W*+ $)", re.VERBOSE | re.IGNORECASE
)
_MARKUP = re.compile(
    rf"""
      < (?= [\W_]{{0,8}} memory[\W_]{{0,8}}context )   # our own tags
    | < (?= \| ) | (?<= \| ) >                         # <|im_start|>, <|eot_id|>, ...
    | < (?= < \s*+ /? sys >> ) | (?<= < ) < (?= /? sys >> ) | (?<= sys ) > (?= > ) | (?<= sys> ) >   # <<SYS>>
    | < (?= /? s > ) | < (?= (?:start|end)_of_turn > ) | < (?= [be]os > )
    | < (?= \s*+ /? \s*+ (?: {_ROLES} | instructions? | (?:system|tool|function|antml)[\s_:-]\w++ ) [\s/>] )
    | \[ (?= [\W_]{{0,8}} memory \s*+ [-] | \s*+ /? \s*+ (?: inst | system_prompt | (?:available_)?tools? ) \s*+ \] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIGN = re.compile(
    r"[<>\[]"
)  # what every alternative of the markup begins with: to look there alone is four times faster
_REPLACEMENTS = {"<": "\u2039", ">": "\u203a", "[": "(", "#": "\u266f", ":": "\u2236"}
"""What reads the same and means nothing to a parser. None of them is turned back by normalisation (NFKC), as full-width
forms are by some models' tokenisers."""


class ContextItem(msgspec.Struct, frozen=True):
    """One memory, or one chunk of it, to be shown.

    Attributes:
        timestamp_ms: when it was said, milliseconds since the epoch, UTC.
        then: what was said right after it, in order; it shares the entry.
    """

    role: Role
    text: str
    timestamp_ms: int
    then: tuple[ContextItem, ...] = ()


def render_context(items: Iterable[ContextItem], now_ms: int, tz: tzinfo) -> str:
    """The block: memories oldest first, a blank line between them, in `<memory_context>` tags, then one
    sentence.

    Items of the same time keep their order. The text ends without a line break.
    """
    ordered = sorted(items, key=lambda item: item.timestamp_ms)
    entries = "\n\n".join(render_entry(item, now_ms, tz) for item in ordered)
    return f"{CONTEXT_OPEN}\n{entries}\n{CONTEXT_CLOSE}\n\n{CLOSING_SENTENCE}"


def render_entry(item: ContextItem, now_ms: int, tz: tzinfo) -> str:
    """One memory: `[MEMORY - 2 days ago (Wed, Jun 3, 9:14 AM)] text`, without blank lines inside.

    What was said right after it follows on lines of its own: `  The assistant then: text`.
    """
    further = [f"\n{CONTINUATION}{THEN[turn.role]}{escape(turn.text)}" for turn in item.then]
    return entry_header(item, now_ms, tz) + escape(item.text) + "".join(further)


def entry_header(item: ContextItem, now_ms: int, tz: tzinfo) -> str:
    """What stands before a memory's text: when it was said and, unless it was the user, by whom."""
    return header(item.role, item.timestamp_ms, now_ms, tz)


@lru_cache(maxsize=HEADERS_MAX)
def header(role: Role, timestamp_ms: int, now_ms: int, tz: tzinfo) -> str:
    """`entry_header` by what it tells."""
    when = f"{relative_time(timestamp_ms, now_ms, tz)} ({absolute_time(timestamp_ms, now_ms, tz)})"
    speaker = ASSISTANT_PREFIX if role == "assistant" else ""
    return f"{ENTRY_OPEN}{when}] {speaker}"


def escape(text: str) -> str:
    """A memory's text as it may stand in a block.

    Characters that nobody sees go. Tags of ours and the control marks of common chat templates get look-alike brackets,
    a role's name at the start of a line a look-alike colon, or in a heading a look-alike sign; blank lines go, and
    further lines are indented. Everything else stays as it was. Letters of other alphabets that resemble those of a
    mark are no disguise.
    """
    if text.isascii() and text.isprintable() and not _SIGN.search(text):  # one line without a bracket, as most are
        return _without_role(text, text).strip()
    text = without_invisible(text)
    seen = shadow(text)
    places = [sign.start() for sign in _SIGN.finditer(seen) if _MARKUP.match(seen, sign.start())]
    lines = _replaced(text, seen, places).splitlines()
    shadows = lines if seen == text else _replaced(seen, seen, places).splitlines()
    escaped = (_without_role(line, seen_as) for line, seen_as in zip(lines, shadows, strict=True) if line.strip())
    return f"\n{CONTINUATION}".join(escaped).strip()


def _without_role(line: str, seen: str) -> str:
    """A line that heads no turn, and its end without white space.

    Args:
        seen: its shadow.
    """
    named = _ROLE_HEADER.match(seen) if ":" in seen else None
    heading = _ROLE_HEADING.match(seen) if "#" in seen else None
    places = [named.end("name")] if named else []
    if heading:
        places.append(heading.start("sign"))
    return _replaced(line, seen, places).rstrip()


def _replaced(text: str, seen: str, places: Sequence[int]) -> str:
    """A text with look-alikes at these places, of what its shadow shows there."""
    if not places:
        return text
    characters = list(text)
    for place in places:
        characters[place] = _REPLACEMENTS[seen[place]]
    return "".join(characters)
