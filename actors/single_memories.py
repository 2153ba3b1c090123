"""What a vault's turn does about single memories: list them, read one, change one, delete some.

Owns the bounds of such a turn: how many memories it looks at, and how many it deletes. Runs within a turn, so nobody
else has the vault; must never answer with a memory that the filter of the request leaves out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

import msgspec
from msgspec import UNSET

from actors.analysis import Analysis, is_echo
from actors.forgetting import FORGET_MEMORIES_MAX, Forgetting
from actors.selecting import Place, Positions, Scan, Selection
from actors.slices import Pause, read_in_turn
from actors.store.protocol import VaultStore
from actors.vault import Vault
from models.errors import NotFound
from models.ids import VaultRef
from models.memory import Memory, Message
from models.messages import (
    AboutMemories,
    ChangeMemory,
    FindTwin,
    ForgetMatching,
    ForgetMemory,
    Forgotten,
    ForgottenPart,
    GetMemory,
    Listed,
    ListedSessions,
    ListMemories,
    ListSessions,
    MemoryChange,
    Mend,
)
from models.selection import MemoryFilter

SCAN_MEMORIES_MAX = 50_000
"""Memories that one turn looks at one by one: 50 to 100 ms, in slices. A page that needs more goes on in the next."""

PAGE_CHARACTERS_MAX = 4_000_000
"""Of a page of texts, above which it ends early."""

SCAN_STEP = 500


class SingleMemories:
    """Answers `AboutMemories` for one vault."""

    def __init__(
        self,
        ref: VaultRef,
        vault: Vault,
        store: VaultStore,
        forgetting: Forgetting,
        *,
        analyse: Callable[[Message], Awaitable[Analysis]],
        write: Callable[[], None],
    ) -> None:
        """Make one.

        Args:
            analyse: chunks and stems a text.
            write: puts to the writer all that the store lacks.
        """
        self._ref = ref
        self._vault = vault
        self._store = store
        self._forgetting = forgetting
        self._analyse = analyse
        self._write = write

    async def answer(self, message: AboutMemories) -> Listed | ListedSessions | Forgotten | ForgottenPart | None:
        """The reply to a message.

        Raises:
            NotFound: the vault has no such memory.
            StoreUnavailable, StorageFull: the store did not do it; ask again.
        """
        match message:
            case ListMemories():
                return await self._list(message)
            case ListSessions():
                return await read_in_turn(self._vault.list_sessions, message, chunks=self._vault.chunks)
            case GetMemory():
                return self._listed(self._find(message.number, message.within))
            case FindTwin():
                twin = self._vault.twin(message.message)
                return Listed(memories=()) if twin is None else self._listed(twin)
            case ChangeMemory():
                return self._listed(await self._change(message))
            case ForgetMemory():
                found = self._find(message.number, message.within)
                self._write()
                await self._forgetting.delete([found.seq])
                return Forgotten(count=1)
            case ForgetMatching():
                return await self._forget_matching(message)
            case Mend():
                self._vault.mend()
                return None
            case _:
                assert_never(message)

    async def forget_session(self, session_id: str) -> Forgotten:
        """Delete a session."""
        self._write()
        await self._forgetting.settle()
        seqs = self._vault.session_seqs(session_id)
        await self._forgetting.delete(seqs)
        return Forgotten(count=len(seqs))

    def _find(self, number: int, within: MemoryFilter) -> Memory:
        memory = self._vault.find(number)
        if memory is None or not within.admits(memory):
            raise NotFound("There is no such memory.", hint="It may be deleted, or in another session or vault.")
        return memory

    def _listed(self, *memories: Memory, after: Place | None = None) -> Listed:
        pending = frozenset(memory.seq for memory in memories if self._vault.is_pending(memory.seq))
        return Listed(memories=memories, pending=pending, after=after)

    # Finding.

    async def _list(self, message: ListMemories) -> Listed:
        wanted = message.wanted
        most = SCAN_MEMORIES_MAX if wanted.looks_inside else message.limit
        after = None if message.after is None else Place(*message.after)

        def order(_: MemoryFilter) -> tuple[Selection, Positions]:
            selection = self._vault.selection(wanted)
            return selection, selection.by_time(descending=message.descending, after=after, most=most + 1)

        selection, positions = await read_in_turn(order, wanted, chunks=self._vault.chunks)
        scan = await _scanned(Scan(selection, positions[:most], limit=message.limit))
        memories = [selection.at(position) for position in scan.found]
        if (fitting := _fitting(memories)) < len(memories):
            return self._listed(*memories[:fitting], after=selection.place(scan.found[fitting - 1]))
        more = scan.looked_at < len(positions)
        return self._listed(*memories, after=selection.place(int(positions[scan.looked_at - 1])) if more else None)

    async def _forget_matching(self, message: ForgetMatching) -> ForgottenPart:
        """A part of a deletion by filter; what there is to delete is looked for in the order of storing."""
        self._write()
        last_seq = self._vault.last_seq if message.last_seq is None else message.last_seq
        selection = await read_in_turn(self._vault.selection, message.wanted, chunks=self._vault.chunks)
        positions = selection.by_seq(after_seq=message.after_seq, last_seq=last_seq)
        most = SCAN_MEMORIES_MAX if message.counts_only else FORGET_MEMORIES_MAX
        scan = await _scanned(Scan(selection, positions[:SCAN_MEMORIES_MAX], limit=most))
        seqs = [selection.at(position).seq for position in scan.found]
        more = scan.looked_at < len(positions)
        part = ForgottenPart(
            count=len(seqs),
            after_seq=selection.at(int(positions[scan.looked_at - 1])).seq if more else None,
            last_seq=last_seq,
        )
        if not message.counts_only:
            await self._forgetting.delete(seqs)
        return part

    # Changing.

    async def _change(self, message: ChangeMemory) -> Memory:
        """Change a memory, in the store first. Its text and its role are what it is found by: where one of them is
        changed, a memory with a new seq takes the place of the old one, of which nothing stays."""
        before = self._find(message.number, message.within)
        after = changed(before, message.change)
        if after == before:
            return before
        self._write()
        if (after.role, after.content) != (before.role, before.content):
            return await self._rewrite(before, after, now_ms=message.now_ms)
        await self._forgetting.settle()
        with self._forgetting.in_time(uncertain=True):
            await self._store.put_memory(self._ref, after)
        self._vault.replace(after)
        return after

    async def _rewrite(self, before: Memory, after: Memory, *, now_ms: int) -> Memory:
        analysis = await self._analyse(Message(role=after.role, content=after.content))
        after = msgspec.structs.replace(
            after,
            seq=self._vault.take_seq(),
            first_seq=before.number,
            stored_ms=now_ms,
            tokens=analysis.tokens,
            spans=() if is_echo(after.role, after.model) else analysis.spans,
            small_talk=analysis.small_talk,
            flags=analysis.flags,
        )
        async with self._forgetting.rows_alone([before.seq]):
            with self._forgetting.in_time(uncertain=True):
                await self._store.rewrite_memory(self._ref, before.seq, after)
            gone = self._vault.forget(before.seq)
            self._vault.place(after, analysis)
            self._vault.know_again([gone])
        return after


async def _scanned(scan: Scan) -> Scan:
    """A scan that is done."""
    pause = Pause()
    while not scan.done:
        scan.step(SCAN_STEP)
        await pause.after_slice()
    return scan


def _fitting(memories: Sequence[Memory]) -> int:
    """How many of these fit into a page, at least one."""
    characters = 0
    for count, memory in enumerate(memories):
        characters += len(memory.content)
        if characters > PAGE_CHARACTERS_MAX and count:
            return count
    return len(memories)


def changed(memory: Memory, change: MemoryChange) -> Memory:
    """The memory with what the change says."""
    fields = {name: getattr(change, name) for name in change.__struct_fields__ if getattr(change, name) is not UNSET}
    if "timestamp_ms" in fields:
        fields["timestamp_given"] = True
    return msgspec.structs.replace(memory, **fields)
