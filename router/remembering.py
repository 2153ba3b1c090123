"""From a request to an exchange: which messages are worth storing, and how they are handed to the vault.

Only what users and assistants said is remembered; never system prompts, tool traffic, or our own memory blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from actors.supervisor import Supervisor
from models.errors import MemoryRouterError
from models.ids import VaultRef
from models.memory import Exchange, Message, Source
from models.messages import Sift, Sifted
from models.text import clean
from router.options import MemoryOptions
from router.providers.base import Turn

logger = logging.getLogger(__name__)

SIFT_TIMEOUT_S = 0.2
MODEL_CHARACTERS_MAX = 256
"""Of a model's name, as it is kept with each memory of an exchange."""


def messages_of(turns: Sequence[Turn], options: MemoryOptions, *, content_max_chars: int) -> list[Message]:
    """The messages to remember of a conversation: what follows the last user turn's beginning is the final exchange.

    Longer texts than `content_max_chars` are cut, which the log says; own routes refuse them before they come here.
    """
    last_user = max((position for position, turn in enumerate(turns) if turn.role == "user"), default=len(turns))
    messages = []
    for position, turn in enumerate(turns):
        content = clean(turn.text)
        if not options.stores_role(turn.role) or not turn.remember or not content:
            continue
        if len(content) > content_max_chars:
            logger.warning("content_cut", extra={"characters": len(content), "limit": content_max_chars})
            content = content[:content_max_chars]
        messages.append(
            Message(role=turn.role, content=content, session_id=options.session_id, final=position >= last_user)
        )
    return messages


class Rememberer:
    """Sifts conversations against their vaults before they are logged."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def unknown(
        self, vault: VaultRef, messages: Sequence[Message], *, source: Source, now_ms: int
    ) -> list[Message]:
        """The messages without those earlier ones that the vault knows.

        Clients resend their history with every request; this keeps it out of the log. It is an economy, not the rule:
        the vault decides again when it takes the exchange in, so a failure here only costs bytes.
        """
        earlier = [message for message in messages if not message.final]
        if not earlier:
            return list(messages)
        question = Sift(Exchange(messages=tuple(earlier), source=source, accepted_ms=now_ms))
        try:
            sifted: Sifted = await self._supervisor.ask(vault, question, timeout_s=SIFT_TIMEOUT_S)
        except MemoryRouterError as error:
            logger.info("sift_skipped", extra={"vault": vault.number, "code": error.code})
            return list(messages)
        keep = {id(earlier[position]) for position in sifted.unknown}
        return [message for message in messages if message.final or id(message) in keep]
