"""A provider's key in a provider's reply: found and blotted out before anybody else sees it.

Owns which spellings of a key are looked for and how a key is found that arrives in pieces. Must never change a byte
that is not part of the key, change the length of anything, or hold bytes back unless they may be the middle of one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

HeaderList = list[tuple[str, str]]

_CREDENTIAL_NAMES = frozenset({"authorization", "x-api-key", "x-goog-api-key"})
_MASK = b"*"

ERROR_KEY_CHARACTERS_MIN = 8
"""In an error. A shorter key would blot out words, too; nobody issues such keys."""

REPLY_KEY_CHARACTERS_MIN = 16
"""In a reply, where a key must also have a letter and a digit: the stand-ins that servers without keys are given
(`not-needed`, `sk-no-key-required`) are words that a model may say."""

SHOWN_BYTES = 4
"""The beginning of what may be a key goes out at once when a chunk ends with it: `sk-p` is no secret, and most of what
begins so is no key. From the next byte on, the end of a chunk waits for the chunk that decides."""


class KeyMask:
    """Blots out one key, in every spelling, with asterisks; lengths stay. One for each body.

    Args:
        keys: texts to blot out; none makes a mask that changes nothing.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        spellings = {spelling for key in keys for spelling in _spellings(key)}
        self._spellings = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
        self._tail = b""
        self._shown = 0

    def whole(self, body: bytes) -> bytes:
        """A text that is complete."""
        for spelling in self._spellings:
            if spelling in body:
                return re.sub(b"|".join(map(re.escape, self._spellings)), _blot, body)
        return body

    def feed(self, chunk: bytes) -> bytes:
        """What may go out of a body in pieces, now that this piece is here. Perhaps nothing."""
        if not self._spellings:
            return chunk
        data = self.whole(self._tail + chunk if self._tail else chunk)
        if data.endswith(b"\n"):  # as events do, and no part of a key
            out, self._tail, self._shown = data[self._shown :], b"", 0
            return out
        begins = self._open_end(data)
        out_to = min(begins + SHOWN_BYTES, len(data))
        out = data[self._shown : out_to]
        self._tail, self._shown = data[begins:], out_to - begins
        return out

    def end(self) -> bytes:
        """What was held back of a body that ends here."""
        held, self._tail, self._shown = self._tail[self._shown :], b"", 0
        return held

    def _open_end(self, data: bytes) -> int:
        """Where the first spelling begins that the end of the data leaves open; the length if none does."""
        earliest = len(data)
        in_last_line = data.rfind(b"\n") + 1  # no header has a line break, and most chunks end with one
        for spelling in self._spellings:
            at = data.find(spelling[:1], max(len(data) - len(spelling) + 1, in_last_line), earliest)
            while at != -1:
                if spelling.startswith(data[at:]):
                    earliest = at
                    break
                at = data.find(spelling[:1], at + 1, earliest)
        return earliest


def _blot(match: re.Match[bytes]) -> bytes:
    return _MASK * len(match.group())


def _spellings(key: str) -> Iterable[bytes]:
    """The key as it is, in a URL, in a JSON text that escapes slashes, in base64, and in base64 for URLs."""
    raw = key.encode()
    yield raw
    yield quote(key, safe="").encode()
    yield key.replace("/", "\\/").encode()
    yield base64.b64encode(raw).rstrip(b"=")
    yield base64.urlsafe_b64encode(raw).rstrip(b"=")


def mask_for(sent: HeaderList, *, status: int) -> KeyMask:
    """The mask for a provider's answer.

    Args:
        sent: the headers of the request, from `router.headers.request_headers`.
        status: of the answer.
    """
    keys = [value.removeprefix("Bearer ") for name, value in sent if name in _CREDENTIAL_NAMES]
    is_key = _is_in_an_error if status >= 400 else _is_in_a_reply
    return KeyMask(key for key in keys if is_key(key))


def _is_in_an_error(key: str) -> bool:
    return len(key) >= ERROR_KEY_CHARACTERS_MIN


def _is_in_a_reply(key: str) -> bool:
    return (
        len(key) >= REPLY_KEY_CHARACTERS_MIN
        and any(character.isdigit() for character in key)
        and any(character.isalpha() for character in key)
    )


def mask_headers(headers: HeaderList, mask: KeyMask) -> HeaderList:
    """A provider's headers, with asterisks where they quote the key."""
    return [(name, mask.whole(value.encode("latin-1")).decode("latin-1")) for name, value in headers]
