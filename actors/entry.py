"""One row of the supervisor's routing table: what of a live vault outlasts a crash of its actor.

Owns the mailbox, the count of crashes and the scope that the actor runs in. Decides nothing.
"""

from __future__ import annotations

from collections import Counter

import trio

from actors.embedder import Embedder
from actors.inbox_lag import InboxLag
from actors.mailbox import Mailbox
from actors.restart import RestartPolicy
from actors.vault_actor import VaultActor
from models.ids import VaultRef
from models.messages import Applied


class Entry:
    """A vault that is in memory, or on its way in or out.

    Attributes:
        actor: the present incarnation.
        embedder: the one that it uses, once that is known.
        lag: how much of what the vault has taken in is not materialised yet.
        rows_sent: the last inbox row whose `Apply` went into the mailbox. It was committed before, so whatever hydrates
            later has found it in the store.
        suspects: how often each inbox row was in hand when an incarnation crashed.
        hydrated: what hydration made of inbox rows whose `Apply` may still wait in the mailbox, None if it set them
            aside. A later incarnation no longer finds them in the inbox once they are written out, yet must tell their
            caller the truth.
        scope: ends by erasure or by the deadline of the drain; no cancellation from outside reaches the actor.
        store_failed: whether it was the store, not the vault, that brought the last incarnation down.
        closed: nothing more enters the mailbox.
        gone: the entry is no longer in the table.
    """

    __slots__ = (
        "actor",
        "closed",
        "embedder",
        "gone",
        "hydrated",
        "lag",
        "mailbox",
        "quarantined_until_s",
        "restarts",
        "rows_sent",
        "scope",
        "store_failed",
        "suspects",
        "vault",
    )

    def __init__(self, vault: VaultRef, mailbox: Mailbox, lag: InboxLag, restarts: RestartPolicy) -> None:
        self.vault = vault
        self.mailbox = mailbox
        self.lag = lag
        self.restarts = restarts
        self.actor: VaultActor | None = None
        self.embedder: Embedder | None = None
        self.rows_sent = 0
        self.suspects = Counter[int]()
        self.hydrated: dict[int, Applied | None] = {}
        self.quarantined_until_s: float | None = None
        self.store_failed = False
        self.scope = trio.CancelScope(shield=True)
        self.closed = trio.Event()
        self.gone = trio.Event()

    @property
    def idle(self) -> bool:
        """Could leave memory without disturbing anybody: nothing waits, and no pin holds a place for what will come."""
        waiting = self.mailbox.waiting or self.mailbox.reserved or self.lag.waiting
        return not (self.closed.is_set() or waiting or self._busy)

    @property
    def _busy(self) -> bool:
        if self.quarantined_until_s is not None:
            return False  # whoever asks after the quarantine may as well begin anew
        return self.actor is None or self.actor.busy

    def close(self) -> None:
        """Begin passivation: what the mailbox holds is still handled."""
        self.closed.set()
        self.mailbox.close()
        self.lag.close()
