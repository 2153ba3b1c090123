"""A directory that others change, too: what was read of it is forgotten, and vaults that they shredded are told of.

Others are the nodes on the same database, or the workers on the same data directory. Owns nothing but the order: data
keys first, in the watching thread, then what is cached for Trio's. Must never cost anything where nobody else writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from actors.store.database import Connection
from actors.store.meta_jobs import Effects, MetaJobs
from actors.store.vault_rows import shredded_vaults
from actors.store.watch import DirectoryWatch, raise_change
from models.errors import NotOwner
from models.ids import VaultRef
from models.provider_settings import Secret

MakeWatch = Callable[[Callable[[Connection], None]], DirectoryWatch]
"""A watch that calls this when somebody else has changed something."""


class ForeignChanges(MetaJobs):
    """A part of the stores."""

    __slots__ = ("_on_shredded", "_shredded", "_watch")

    def _begin_to_watch(self, make_watch: MakeWatch | None) -> None:
        """For the constructor. None: nobody else writes this directory."""
        self._shredded: frozenset[VaultRef] = frozenset()
        self._on_shredded: Callable[[VaultRef], None] = _ignored
        token = trio.lowlevel.current_trio_token()

        def on_change(connection: Connection) -> None:  # in the watching thread
            self._keyring.forget_all()
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._forget_all)
                token.run_sync_soon(self._note_shredded_elsewhere, frozenset(shredded_vaults(connection)))

        self._watch = None if make_watch is None else make_watch(on_change)

    @property
    def node_token(self) -> Secret:
        """What the servers on this directory know each other by."""
        return self._server_key.node_token

    @property
    def watch(self) -> DirectoryWatch:
        """What sees the changes of others."""
        assert self._watch is not None, "nobody else writes this directory"
        return self._watch

    def call_on_shredded(self, callback: Callable[[VaultRef], None]) -> None:
        """Whom to tell, in Trio's thread, that somebody else has shredded a vault: what is in memory of it must go."""
        self._on_shredded = callback

    def _note_change(self, connection: Connection, effects: Effects) -> None:
        if self._watch is not None:
            effects.change = raise_change(connection)

    def _note_committed(self, effects: Effects) -> None:
        if self._watch is not None and effects.change:
            self._watch.note_own(effects.change)

    def _forget_all(self) -> None:
        """Somebody else changed something: what was read before is not to be relied on."""
        self._generation += 1
        self._live_keys.clear()
        self._unknown_keys.clear()
        self._provider_keys.clear()

    def _note_shredded_elsewhere(self, shredded: frozenset[VaultRef]) -> None:
        """Vaults whose rows are still there: those of partitions that are owned here are to be removed here."""
        new, self._shredded = shredded - self._shredded, shredded
        for vault in new:
            self._on_shredded(vault)
            with suppress(NotOwner):  # lost a moment ago: the new owner does it
                self._purge_nowait(vault)


def _ignored(_vault: VaultRef) -> None:
    """Nobody is to be told."""
