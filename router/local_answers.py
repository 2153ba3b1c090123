"""`local/recall` as the routes answer it: from what the vault recalled to a body in the request's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from models.times import absolute_time
from router.chat_memory import ChatMemory
from router.local_formats import (
    LocalReply,
    chat_body,
    chat_events,
    gemini_body,
    gemini_events,
    messages_body,
    messages_events,
    responses_body,
    responses_events,
)
from router.local_recall import RecalledItem, reply_text
from router.providers.base import ChatRequest, Turn
from router.providers.openai_chat import ChatCompletionsRequest
from router.proxying import Answer
from router.request_ids import current_request_id

_SENTENCE_END = re.compile(r"[.!?\uff1f\u3002\uff01]\s+\S|\n")
_EVENT_STREAM = "text/event-stream"


class LocalAnswers:
    """One method for each wire format: the vault's best memories as a reply, streamed if that was asked for."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    def completions(self, chat: ChatRequest, turns: Sequence[Turn], memory: ChatMemory) -> Answer:
        """In Chat Completions."""
        said = self._said(turns, memory)
        if not chat.stream:
            return _whole(said, chat_body(said))
        include_usage = isinstance(chat, ChatCompletionsRequest) and chat.include_usage
        return _streamed(said, chat, chat_events(said, include_usage=include_usage))

    def responses(self, chat: ChatRequest, turns: Sequence[Turn], memory: ChatMemory) -> Answer:
        """In Responses."""
        said = self._said(turns, memory)
        return _streamed(said, chat, responses_events(said)) if chat.stream else _whole(said, responses_body(said))

    def messages(self, chat: ChatRequest, turns: Sequence[Turn], memory: ChatMemory) -> Answer:
        """In Messages."""
        said = self._said(turns, memory)
        return _streamed(said, chat, messages_events(said)) if chat.stream else _whole(said, messages_body(said))

    def gemini(self, chat: ChatRequest, turns: Sequence[Turn], memory: ChatMemory) -> Answer:
        """In `generateContent` and `streamGenerateContent`."""
        said = self._said(turns, memory)
        if not chat.stream:
            return _whole(said, gemini_body(said))
        return _streamed(said, chat, gemini_events(said, sse=chat.stream_type == _EVENT_STREAM))

    def _said(self, turns: Sequence[Turn], memory: ChatMemory) -> LocalReply:
        now_ms = self._now_ms()
        return LocalReply(
            text=recalled_text(memory, now_ms),
            prompt="\n".join(turn.text for turn in turns),
            unique=current_request_id().removeprefix("req_"),
            created_s=now_ms // 1000,
        )


def _whole(said: LocalReply, body: bytes) -> Answer:
    return Answer(said.text, body, "application/json")


def _streamed(said: LocalReply, chat: ChatRequest, events: Sequence[bytes]) -> Answer:
    charset = "; charset=utf-8" if chat.stream_type == _EVENT_STREAM else ""
    return Answer(said.text, b"".join(events), chat.stream_type + charset)


def recalled_text(memory: ChatMemory, now_ms: int) -> str:
    """The reply's words: what was recalled, without the questions among it."""
    items = [
        RecalledItem(
            text=hit.matched,
            role=hit.memory.role,
            when=absolute_time(hit.memory.timestamp_ms, now_ms, memory.time_zone),
            timestamp_ms=hit.memory.timestamp_ms,
        )
        for hit in memory.recollection.hits
        if not (hit.memory.role == "user" and _only_asks(hit.matched))
    ]
    return reply_text(items)


def _only_asks(text: str) -> bool:
    """Whether a text is one question and nothing else: it was worth storing, and answers nothing."""
    text = text.strip()
    return text.endswith(("?", "\uff1f", "\u061f")) and not _SENTENCE_END.search(text)
