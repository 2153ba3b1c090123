"""How many memories a vault may hold, where its operator or its key's account says so.

Room is reserved before anything is stored, so that requests that come at once do not all find the last place. Counts
what the vault has taken in, embedded or not, and what is on its way. Costs nothing where no quota is set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from actors.supervisor import Supervisor
from models.errors import DeadlineExceeded, QuotaExceeded
from models.ids import Principal, VaultNumber, VaultRef
from models.memory import Exchange, Message, Source
from models.messages import Sift, Sifted, Stats, VaultStats

RESERVE_TIMEOUT_S = 30.0
"""To ask the vault, which may have to be hydrated first."""


class Reservation:
    """Room for memories that are on their way. Use it as a context manager, or call `close` when they have arrived."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None] = lambda: None) -> None:
        self._release: Callable[[], None] | None = release

    def close(self) -> None:
        """What was to come has been taken in, or will not come; harmless a second time."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Vault:
    """What is on its way to one vault.

    Attributes:
        reserved: memories that may be in the vault already or not.
        released: of those let go while somebody looks; the look may have come before or after their arrival.
        users: who holds this object; with none, it is forgotten.
    """

    def __init__(self) -> None:
        self.looking = trio.Lock()
        self.reserved = 0
        self.released = 0
        self.users = 0


class MemoryQuota:
    """Reserves room in vaults."""

    def __init__(self, supervisor: Supervisor, *, memories_max: int, refused: Callable[[], None]) -> None:
        self._supervisor = supervisor
        self._memories_max = memories_max
        self._refused = refused
        self._vaults: dict[VaultNumber, _Vault] = {}

    def __len__(self) -> int:
        return len(self._vaults)

    def most(self, principal: Principal) -> int:
        """How many memories this key's vault may hold; 0 for any number."""
        own = principal.limits.memories_max
        return self._memories_max if own is None else own

    async def reserve(
        self,
        principal: Principal,
        messages: Sequence[Message],
        *,
        source: Source,
        now_ms: int,
        further: int = 0,
        timeout_s: float = RESERVE_TIMEOUT_S,
    ) -> Reservation:
        """Room for these messages, all or none. Those that the vault knows already need none.

        Args:
            further: messages that will come with them and are not known yet, such as a reply.

        Raises:
            QuotaExceeded: there is no room for all of them.
            DeadlineExceeded, Overloaded: the vault could not be asked.
        """
        most = self.most(principal)
        if not most or not (messages or further):
            return Reservation()
        number = principal.vault.number
        vault = self._vaults.setdefault(number, _Vault())
        vault.users += 1
        reserved = None
        try:
            with trio.move_on_after(timeout_s):
                async with vault.looking:
                    exchange = Exchange(messages=tuple(messages), source=source, accepted_ms=now_ms)
                    reserved = await self._look(principal.vault, vault, exchange, further, most, timeout_s)
        finally:
            if reserved is None:
                self._leave(number, vault)
        if reserved is None:
            raise DeadlineExceeded("The vault could not be asked for its size in time.")
        return Reservation(partial(self._release, number, vault, reserved))

    def _release(self, number: VaultNumber, vault: _Vault, count: int) -> None:
        vault.reserved -= count
        vault.released += count
        self._leave(number, vault)

    def _leave(self, number: VaultNumber, vault: _Vault) -> None:
        vault.users -= 1
        if not vault.users:
            del self._vaults[number]

    async def _look(
        self, ref: VaultRef, vault: _Vault, exchange: Exchange, further: int, most: int, timeout_s: float
    ) -> int:
        """Reserve room as soon as the vault has said how much it holds; how much that is."""
        wanted = len(exchange.messages) + further
        sifted = False
        while True:
            vault.released = 0
            counted: VaultStats = await self._supervisor.ask(ref, Stats(), timeout_s=timeout_s)
            taken = counted.memories + vault.reserved + vault.released
            if not wanted or taken + wanted <= most:
                vault.reserved += wanted
                return wanted
            if vault.released:
                continue  # what was let go meanwhile may have been counted twice
            if sifted or not exchange.messages:
                self._refused()
                raise _exceeded(taken, wanted, most)
            # It does not fit if all of it is new. What comes a second time is not, such as a repeated upload.
            known: Sifted = await self._supervisor.ask(ref, Sift(exchange), timeout_s=timeout_s)
            wanted, sifted = len(known.unknown) + further, True


def _exceeded(taken: int, wanted: int, most: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"The vault may hold {most} memories.",
        hint="Delete memories, or have the limit of this key raised.",
        details={"memories": taken, "memories_wanted": wanted, "memories_max": most},
    )
