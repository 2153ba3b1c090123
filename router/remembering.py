"""From a request to an exchange: which messages are worth storing, and how they are handed to the vault.

Only what users and assistants said is remembered; never system prompts, tool traffic, or our own memory blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from actors.supervisor import Supervisor
from models.errors import MemoryRouterError
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, Message, Source
from models.messages import Sift, Sifted
from models.text import clean
from router.options import MemoryOptions
from router.providers.base import Turn

logger = logging.getLogger(__name__)

SIFT_TIMEOUT_S = 0.2
SIFT_MESSAGES_MAX = 256
"""Messages that a vault looks at in one turn: about 1 ms."""

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


class Fresh(msgspec.Struct, frozen=True):
    """What a vault does not know of some messages.

    Attributes:
        messages: those, in order.
        left_out: how many others there were.
        looked_at: the number of the vault, and how many memories it had forgotten then; None if it was not asked.
    """

    messages: list[Message]
    left_out: int = 0
    looked_at: tuple[VaultNumber, int] | None = None


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
        fresh = await self.fresh(vault, messages, source=source, now_ms=now_ms, timeout_s=SIFT_TIMEOUT_S)
        return fresh.messages

    async def fresh(
        self, vault: VaultRef, messages: Sequence[Message], *, source: Source, now_ms: int, timeout_s: float
    ) -> Fresh:
        """The same, with what tells later whether it still holds.

        Args:
            timeout_s: for each `SIFT_MESSAGES_MAX` messages.
        """
        earlier = [message for message in messages if not message.final]
        keep: set[int] = set()
        number, looked_at = self._supervisor.current(vault).number, None
        for start in range(0, len(earlier), SIFT_MESSAGES_MAX):
            part = tuple(earlier[start : start + SIFT_MESSAGES_MAX])
            try:
                question = Sift(Exchange(messages=part, source=source, accepted_ms=now_ms))
                sifted: Sifted = await self._supervisor.ask(vault, question, timeout_s=timeout_s)
            except MemoryRouterError as error:
                logger.info("sift_skipped", extra={"vault": vault.number, "code": error.code})
                return Fresh(list(messages))
            looked_at = looked_at or (number, sifted.forgotten)
            keep.update(id(part[position]) for position in sifted.unknown)
        kept = [message for message in messages if message.final or id(message) in keep]
        return Fresh(kept, len(messages) - len(kept), looked_at)

    async def count_left_out(self, fresh: Fresh, vault: VaultRef, *, timeout_s: float) -> bool:
        """Have what was left out counted as duplicates; False, and none of it, if anything was deleted since.

        Raises:
            MemoryRouterError: the vault could not be asked.
        """
        if fresh.looked_at is None or fresh.looked_at[0] != self._supervisor.current(vault).number:
            return not fresh.left_out
        nothing = Exchange(messages=(), source="upload", accepted_ms=0)
        question = Sift(nothing, left_out=fresh.left_out, forgotten=fresh.looked_at[1])
        sifted: Sifted = await self._supervisor.ask(vault, question, timeout_s=timeout_s)
        return sifted.forgotten == question.forgotten
