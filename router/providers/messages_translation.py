"""A Chat Completions request for an Anthropic model: the request in Anthropic's format, and the way back.

Owns what the caller sees of the translation. Must do no I/O: the version is given here, the rest of the call is the
caller's.
"""

from __future__ import annotations

from router.providers.anthropic_reply import member
from router.providers.translate_reply import translate_reply
from router.providers.translate_request import read_fields, translate_fields
from router.providers.translate_stream import MessagesStream

ANTHROPIC_VERSION = "2023-06-01"
"""`anthropic-version` of translated requests. The later 2026-10-21 refuses temperature, top_p and top_k for every
model, which clients of Chat Completions send and models up to 4.6 take; it adds nothing that the translation uses."""


class MessagesTranslation:
    """One chat request in Anthropic's format; see `router.providers.base.Translation`. Used once.

    Args:
        chat_body: the Chat Completions request as it would be sent on: memory in, own fields out, the model's name
            without prefix.
        now_s: the time, in seconds since 1970, for `created`.

    Raises:
        InvalidRequest: the request cannot be translated; the field is named.
    """

    __slots__ = ("_include_usage", "_now_s", "body")

    def __init__(self, chat_body: bytes, *, now_s: int) -> None:
        fields = read_fields(chat_body)
        self.body: bytes = translate_fields(fields)
        self._include_usage = member(fields, "stream_options").get("include_usage") is True
        self._now_s = now_s

    def reply(self, body: bytes, *, status: int) -> bytes:
        """A whole reply or error of the provider as Chat Completions has it."""
        return translate_reply(body, status=status, now_s=self._now_s)

    def stream(self) -> MessagesStream:
        """A translator for the streamed reply."""
        return MessagesStream(include_usage=self._include_usage, now_s=self._now_s)
