"""Memories and entries of the audit log that have been kept for as long as they may be are deleted, in the background.

Owns which vaults are looked at, and how often. What counts is when a memory was stored, which no client can say
otherwise. A vault is only brought into memory when it has something to delete: its first row tells, since rows are in
the order of storing. Must never hold up anybody: one vault at a time, a bounded part of it in one turn.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import trio

from actors.store.protocol import Store
from actors.supervisor import Supervisor
from models.accounts import SERVER, Retention
from models.errors import MemoryRouterError, NotOwner
from models.ids import VaultRef
from models.messages import ForgetMatching, ForgottenPart, Page
from models.selection import MemoryFilter
from models.times import DAY_MS

logger = logging.getLogger(__name__)

FIRST_SWEEP_S = 60.0
"""After the start, when vaults with an inbox have been resumed."""

SWEEP_INTERVAL_S = 3_600.0
PAUSE_S = 0.05
"""Between two parts of a vault, and after a vault that had something to delete."""

FORGET_TIMEOUT_S = 60.0
PAGE_ENTRIES = 500


async def delete_expired(
    store: Store,
    supervisor: Supervisor,
    *,
    default_days: int,
    audit_keep_days: int = 0,
    now_ms: Callable[[], int],
    deleted: Callable[[VaultRef], None],
) -> None:
    """Sweep all vaults and the audit log, again and again, until cancelled.

    Args:
        default_days: for vaults and accounts that say nothing; 0 keeps their memories.
        audit_keep_days: for entries of the audit log; 0 keeps them.
        deleted: told of each vault of which something was deleted.
    """
    await trio.sleep(FIRST_SWEEP_S)
    while True:
        try:
            await sweep(store, supervisor, default_days=default_days, now_ms=now_ms, deleted=deleted)
        except MemoryRouterError as error:  # of the directory; the next sweep comes
            logger.warning("retention_not_swept", extra={"code": error.code})
        try:
            await trim_audit(store, keep_days=audit_keep_days, now_ms=now_ms())
        except MemoryRouterError as error:
            logger.warning("audit_not_trimmed", extra={"code": error.code})
        await trio.sleep(SWEEP_INTERVAL_S)


async def trim_audit(store: Store, *, keep_days: int, now_ms: int) -> int:
    """Delete entries of the audit log that are older than so many days, a few at a time; how many. 0 keeps them.

    Entries are looked at from the oldest number on. One that a wrong clock has dated into the future keeps nothing but
    itself, unless there are as many of them as are looked at together.

    Raises:
        MemoryRouterError: the directory cannot be read or written.
    """
    count = 0
    while keep_days and (trimmed := await store.trim_audit(before_ms=now_ms - keep_days * DAY_MS, limit=PAGE_ENTRIES)):
        count += trimmed
        await trio.sleep(PAUSE_S)
    if count:
        logger.info("audit_trimmed", extra={"entries": count})
    return count


async def sweep(
    store: Store,
    supervisor: Supervisor,
    *,
    default_days: int,
    now_ms: Callable[[], int],
    deleted: Callable[[VaultRef], None],
) -> None:
    """Look at every vault that keeps its memories for a time only; arguments as of `delete_expired`.

    Raises:
        MemoryRouterError: the directory cannot be read.
    """
    async for retention in retentions(store, default_days=default_days):
        before_ms = now_ms() - retention.days * DAY_MS
        try:
            supervisor.check_owned(retention.vault.shard)
            if not await _has_expired(store, retention.vault, before_ms=before_ms):
                continue
            count = await _forget(supervisor, retention.vault, before_ms=before_ms)
            if count:
                deleted(retention.vault)
                await store.audit(
                    at_ms=now_ms(),
                    account_number=retention.account_number,
                    action="memories.expired",
                    target=f"vault:{retention.vault.number}",
                    by=SERVER,
                    detail={"memories": count, "retention_days": retention.days},
                )
        except NotOwner:
            continue  # its owner does this
        except MemoryRouterError as error:  # of one vault: the others are looked at all the same
            logger.warning("retention_skipped", extra={"vault": retention.vault.number, "code": error.code})
        await trio.sleep(PAUSE_S)


async def retentions(store: Store, *, default_days: int) -> AsyncIterator[Retention]:
    """The vaults whose memories expire. A vault's own setting wins over its account's, and that over the default; 0
    keeps them."""
    if not default_days:
        after = 0
        while page := await store.list_retentions(after=after, limit=PAGE_ENTRIES):
            for retention in page:
                if retention.days:
                    yield retention
            after = page[-1].vault.number
        return
    account_after = 0
    while accounts := await store.list_accounts(after=account_after, limit=PAGE_ENTRIES):
        for account in accounts:
            after = 0
            while vaults := await store.list_vaults(account.number, after=after, limit=PAGE_ENTRIES):
                for vault in vaults:
                    settings = (vault.retention_days, account.retention_days, default_days)
                    days = next(days for days in settings if days is not None)
                    if days:
                        yield Retention(vault=vault.vault, account_number=account.number, days=days)
                after = vaults[-1].vault.number
        account_after = accounts[-1].number


async def _has_expired(store: Store, vault: VaultRef, *, before_ms: int) -> bool:
    """Whether the vault's first memory was stored before this time."""
    page = await store.load_page(vault, Page(after_seq=0, limit=1, vectors=False), model_id="")
    return any(memory.stored_ms < before_ms for memory in page.memories)


async def _forget(supervisor: Supervisor, vault: VaultRef, *, before_ms: int) -> int:
    count = 0
    part = ForgottenPart(count=0, after_seq=0, last_seq=0)
    while part.after_seq is not None:
        message = ForgetMatching(
            MemoryFilter(stored_before_ms=before_ms), after_seq=part.after_seq, last_seq=part.last_seq or None
        )
        part = await supervisor.ask(vault, message, timeout_s=FORGET_TIMEOUT_S)
        count += part.count
        await trio.sleep(PAUSE_S)
    return count
