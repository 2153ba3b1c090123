"""What the chats of a signed-in browser did with memory, for the playground to show.

Kept for the last chats of a session, within a bound over all sessions, and dropped with the session, or when memories
of the vault are deleted or changed. What a chat stored is not kept here: the vault tells it by the request's id.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from models.ids import VaultRef

if TYPE_CHECKING:
    from router.recalling import Recollection

CHATS_OF_SESSION_MAX = 50
CHARACTERS_MAX = 32_000_000
"""Of all blocks that are kept; the oldest go first."""

_OVERHEAD_CHARACTERS = 500

Place = tuple[int, str]
"""Number of the session, id of the request."""


class ChatWatch:
    """What one chat did; `ChatMemory` tells.

    Attributes:
        vault: that it was about.
        status: as in `X-Memory-Status`.
        mode: as in `X-Memory-Mode`.
        block: exactly what was injected.
        memory_ids: that the block was made of.
        stored_under: the request's id in the vault.
        stored_status: "off" (it was not to be stored), "pending", "nothing_new", "handed_over", or why not.
    """

    __slots__ = (
        "block", "memory_ids", "messages_max", "mode", "recall_ms", "status", "stored_status", "stored_under",
        "vault",
    )  # fmt: skip

    def __init__(self, vault: VaultRef, *, stored_under: str = "") -> None:
        self.vault = vault
        self.stored_under = stored_under
        self.status = "off"
        self.mode = "on"
        self.block: str | None = None
        self.memory_ids: tuple[str, ...] = ()
        self.recall_ms = 0.0
        self.stored_status = "off"
        self.messages_max = 0

    def recalled(self, recollection: Recollection, *, status: str, mode: str, stores: bool) -> None:
        """What went into the prompt, and whether the exchange is to be stored."""
        self.status, self.mode = status, mode
        self.block, self.memory_ids = recollection.context, tuple(recollection.ids)
        self.recall_ms = round(recollection.total_ms, 2)
        self.stored_status = "pending" if stores else "off"

    def handed_over(self, messages: int) -> None:
        """So many messages went to the store; none means that the vault knows them all."""
        self.messages_max = messages
        self.stored_status = "handed_over" if messages else "nothing_new"

    def not_stored(self, reason: str) -> None:
        """It is not known to be durable."""
        self.status, self.stored_status = "not_stored", reason

    @property
    def size(self) -> int:
        """About how many characters it keeps."""
        return len(self.block or "") + sum(map(len, self.memory_ids)) + _OVERHEAD_CHARACTERS


class Chats:
    """All that are kept, oldest first."""

    def __init__(self, *, characters_max: int = CHARACTERS_MAX) -> None:
        self._characters_max = characters_max
        self._watches: OrderedDict[Place, ChatWatch] = OrderedDict()

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self, session: int, request_id: str, vault: VaultRef, *, stored_under: str = "") -> ChatWatch:
        """Watch a chat of this session.

        Args:
            stored_under: the request's id in the vault, which is another one where another worker was asked.
        """
        own = [place for place in self._watches if place[0] == session]
        for place in own[: max(0, len(own) - CHATS_OF_SESSION_MAX + 1)]:
            del self._watches[place]
        watch = self._watches[session, request_id] = ChatWatch(vault, stored_under=stored_under or request_id)
        self._shrink()
        return watch

    def find(self, session: int, request_id: str) -> ChatWatch | None:
        """A chat of this session."""
        return self._watches.get((session, request_id))

    def forget_session(self, session: int) -> None:
        """It is over."""
        for place in [place for place in self._watches if place[0] == session]:
            del self._watches[place]

    def forget_vault(self, vault: VaultRef) -> None:
        """Memories of this vault were deleted or changed, or it is gone: nobody may quote them any more."""
        for place in [place for place, watch in self._watches.items() if watch.vault.number == vault.number]:
            del self._watches[place]

    def _shrink(self) -> None:
        """Let the oldest go; what the newest will hold is counted when the next one comes."""
        characters = sum(watch.size for watch in self._watches.values())
        while characters > self._characters_max and len(self._watches) > 1:
            _, watch = self._watches.popitem(last=False)
            characters -= watch.size
