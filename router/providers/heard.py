"""What a collector has heard of a reply: its words, up to a limit."""

from __future__ import annotations

from router.providers.json_bytes import whole_text


class Heard:
    """Text that comes in pieces. What is over the limit is dropped, and noted.

    Attributes:
        truncated: something was dropped.
    """

    __slots__ = ("_chars_left", "_pieces", "truncated")

    def __init__(self, *, text_chars_max: int) -> None:
        self.truncated = False
        self._chars_left = text_chars_max
        self._pieces: list[str] = []

    def __bool__(self) -> bool:
        """Whether there are any words."""
        return bool(self._pieces)

    def add(self, text: str) -> None:
        """Hear some more."""
        if len(text) > self._chars_left:
            text = text[: self._chars_left]
            self.truncated = True
        if text:
            self._pieces.append(text)
            self._chars_left -= len(text)

    def text(self) -> str:
        """All of it."""
        return whole_text("".join(self._pieces))
