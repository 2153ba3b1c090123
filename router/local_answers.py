"""`local/recall` as a route answers it: from what the vault recalled to a body in the request's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from models.times import absolute_time
from router.chat_memory import ChatMemory
from router.local_recall import RecalledItem, completion, completion_events, reply_text
from router.providers.base import ChatRequest, Turn
from router.providers.openai_chat import ChatCompletionsRequest
from router.proxying import Answer
from router.request_ids import current_request_id

_SENTENCE_END = re.compile(r"[.!?\uff1f\u3002\uff01]\s+\S|\n")


class LocalChat:
    """Answers Chat Completions."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    def answer(self, chat: ChatRequest, turns: Sequence[Turn], memory: ChatMemory) -> Answer:
        """The vault's best memories as a reply, streamed if that was asked for."""
        now_ms = self._now_ms()
        text = recalled_text(memory, now_ms)
        prompt = "\n".join(turn.text for turn in turns)
        completion_id, created_s = f"chatcmpl-{current_request_id()}", now_ms // 1000
        if not chat.stream:
            body = completion(text, prompt=prompt, completion_id=completion_id, created_s=created_s)
            return Answer(text, body, "application/json")
        events = completion_events(
            text,
            prompt=prompt,
            completion_id=completion_id,
            created_s=created_s,
            include_usage=isinstance(chat, ChatCompletionsRequest) and chat.include_usage,
        )
        return Answer(text, b"".join(events), "text/event-stream; charset=utf-8")


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
