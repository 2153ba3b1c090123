"""A request as its provider takes it, and the way back for the reply.

Owns which edits a call needs and their order. The relay and the routes see the format of the request only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from router.plans import Plan
from router.providers.base import StreamTranslator, Translation, Usage
from router.providers.messages_translation import MessagesTranslation
from router.providers.tweaks import tweaked
from router.usage_chunks import WithoutUsage


class Adapted(msgspec.Struct, frozen=True):
    """A request in its provider's clothes.

    Attributes:
        body: what is sent.
        translation: the way back, if the provider answers in another format.
        usage_added: token counts were asked for in the client's place; it must not see their event.
    """

    body: bytes
    translation: Translation | None = None
    usage_added: bool = False

    def reply(self, body: bytes, *, status: int) -> bytes:
        """A whole reply or error in the format of the request."""
        return body if self.translation is None else self.translation.reply(body, status=status)

    def chunks(self, reply: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A streamed reply in the format of the request; the provider's own bytes wherever they can stay."""
        if self.translation is not None:
            return TranslatedStream(reply, self.translation.stream())
        return WithoutUsage(reply) if self.usage_added else reply


def adapt(body: bytes, plan: Plan, *, now_s: int) -> Adapted:
    """Make the edits that a plan's call needs.

    Raises:
        InvalidRequest: the request asks for what the provider's format cannot say.
    """
    match plan.call.edit:
        case "translation":
            translation = MessagesTranslation(body, now_s=now_s)
            return Adapted(translation.body, translation)
        case "tweaks":
            edited = tweaked(body, plan.route.settings)
            return Adapted(edited.body, usage_added=edited.usage_added)
        case "none":
            return Adapted(body)


class TranslatedStream:
    """An async iterator over translated bytes, never empty ones. Pulls one chunk at a time and holds nothing back.

    A provider's stream that breaks off raises here as it did there; one that ends gives what its end adds, and that
    never contains a finish which the provider did not announce.
    """

    def __init__(self, chunks: AsyncIterator[bytes], translator: StreamTranslator) -> None:
        self._chunks = chunks
        self._translator = translator
        self._ended = False

    @property
    def usage(self) -> Usage | None:
        """What the provider has said of its tokens so far, whether or not the client gets to see it."""
        return self._translator.usage

    def __aiter__(self) -> TranslatedStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                translated = self._translator.feed(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
                translated = self._translator.end()
            if translated:
                return translated
        raise StopAsyncIteration
