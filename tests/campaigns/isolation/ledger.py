"""Who may see what: every text with its canary, every deletion, and what a reply may therefore hold.

A canary is one word in a text that says whose it is: account, vault, session, generation of the vault, and a number of
its own. The ledger knows nothing of HTTP. It takes the order of events from moments, numbers that only grow: what was
acknowledged before a request began binds it, what was under way meanwhile may go either way. Must never excuse a canary
that it does not know.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

_CANARY = re.compile(rb"zq(\d+)a(\d+)v(\d+)s(\d+)g(\d+)n")
_MEMORY_KEY = re.compile(rb"mk[_-][A-Za-z0-9_-]{24,}")
_PROVIDER_KEY = re.compile(rb"sk-zq\d+a[a-z]+\d+k")

LEAKS_MAX = 20
"""Further ones are not described; one is enough to fail."""


class Told:
    """One text with a canary, or a name with one.

    Attributes:
        vault: the number of its vault in this ledger; 0 for names, which belong to a whole account.
        session: the number of its session; 0 for none.
        request_id: of the request that stored it, once known.
        tag: its metadata.
        began_ms, settled_ms: the wall clock around its storing; a changed memory has the times of the first.
        settled: the moment from which on it is not going to be stored any more, because it is, or never will be.
        stored: whether that was acknowledged.
        gone: the moment from which on nobody may see it.
        at_risk: whether a deletion may have hit it, so that nobody can say whether it is still there.
        changed: whether it took the place of another text.
    """

    __slots__ = (
        "account", "at_risk", "began", "began_ms", "canary", "changed", "generation", "gone", "number", "request_id",
        "session", "settled", "settled_ms", "stored", "tag", "vault",
    )  # fmt: skip

    def __init__(
        self, number: int, *, account: int, vault: int, session: int, generation: int, began: int, tag: str | None
    ) -> None:
        self.number = number
        self.account = account
        self.vault = vault
        self.session = session
        self.generation = generation
        self.tag = tag
        self.canary = f"zq{account}a{vault}v{session}s{generation}g{number}n"
        self.began = began
        self.began_ms = wall_ms()
        self.settled: int | None = None
        self.settled_ms: int | None = None
        self.stored = False
        self.gone: int | None = None
        self.at_risk = False
        self.changed = False
        self.request_id: str | None = None

    @property
    def word(self) -> str:
        """An ordinary word that only this text has: what to search it by without naming its canary."""
        return f"note{self.number}"

    @property
    def required(self) -> bool:
        """Whether it must be found by its own key."""
        return self.stored and self.gone is None and not self.at_risk


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What the reply to one request may hold.

    Attributes:
        began: the moment before the request was sent.
        vault: whose memories; 0: none.
        session: only this session's; 0: only those without a session; None: all.
        account: whose names; 0: nobody's.
        sent: canaries of the request itself, which an echo repeats.
        mints: whether a Memory Key may be in it.
    """

    began: int
    vault: int = 0
    session: int | None = None
    account: int = 0
    sent: frozenset[int] = frozenset()
    mints: bool = False


class Deletion:
    """One deletion on its way: of those of a vault's texts that fulfil `certain`, perhaps also of the `possible`."""

    def __init__(
        self, ledger: Ledger, vault: int, certain: Callable[[Told], bool], possible: Callable[[Told], bool]
    ) -> None:
        self._ledger = ledger
        self._vault = vault
        self._certain = certain
        self.possible = possible
        self._began = ledger.now()
        for told in ledger.of_vault(vault):
            told.at_risk = told.at_risk or possible(told)

    def end(self) -> None:
        """It was acknowledged: what was there before it began is gone."""
        moment = self._ledger.now()
        self._ledger.deletions_of(self._vault).remove(self)
        for told in self._ledger.of_vault(self._vault):
            if told.settled is not None and told.settled < self._began and self._certain(told):
                told.gone = moment
        self._ledger.drop_gone(self._vault)


class Ledger:
    """Everything that was told, and what has been seen of it.

    Attributes:
        leaks: what somebody saw who must not have.
        checked: retrievals that were checked, by kind.
        retrievals: how many that are.
        seen: canaries that were rightly seen, by kind of retrieval.
    """

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.checked: Counter[str] = Counter()
        self.retrievals = 0
        self.seen: Counter[str] = Counter()
        self._told: dict[int, Told] = {}
        self._by_vault: dict[int, list[Told]] = {}
        self._deletions: dict[int, list[Deletion]] = {}
        self._unsettled: set[Told] = set()
        self._moments = itertools.count(1)
        self._numbers = itertools.count(1)

    def now(self) -> int:
        """The next moment."""
        return next(self._moments)

    def count(self, kind: str) -> None:
        """A retrieval was checked."""
        self.checked[kind] += 1
        self.retrievals += 1

    # What is told.

    def tell(self, *, account: int, vault: int, session: int = 0, generation: int = 0, tag: str | None = None) -> Told:
        """A text that is about to be sent."""
        told = Told(
            next(self._numbers),
            account=account, vault=vault, session=session, generation=generation, began=self.now(), tag=tag,
        )  # fmt: skip
        self.suspect(told)
        self._told[told.number] = told
        self._by_vault.setdefault(vault, []).append(told)
        self._unsettled.add(told)
        return told

    def suspect(self, told: Told) -> None:
        """Look whether a deletion under way may hit it."""
        told.at_risk = told.at_risk or any(deletion.possible(told) for deletion in self.deletions_of(told.vault))

    def settle(self, told: Told, *, stored: bool, request_id: str | None = None) -> None:
        """It was acknowledged, or refused for good: then nobody will ever see it."""
        told.settled, told.settled_ms, told.stored, told.request_id = self.now(), wall_ms(), stored, request_id
        self._unsettled.discard(told)
        if not stored:
            told.gone = told.settled

    def replace(self, old: Told) -> None:
        """A change of this text was acknowledged."""
        old.gone = self.now()
        self.drop_gone(old.vault)

    def restart(self) -> None:
        """The server has ended: what was under way is decided, though nobody knows how."""
        for told in self._unsettled:
            told.settled, told.settled_ms, told.at_risk = self.now(), wall_ms(), True
        self._unsettled.clear()
        self._deletions.clear()

    def begin_deletion(
        self, vault: int, certain: Callable[[Told], bool], possible: Callable[[Told], bool] | None = None
    ) -> Deletion:
        """Something is about to be deleted."""
        deletion = Deletion(self, vault, certain, possible or certain)
        self.deletions_of(vault).append(deletion)
        return deletion

    def deletions_of(self, vault: int) -> list[Deletion]:
        """Those under way."""
        return self._deletions.setdefault(vault, [])

    def of_vault(self, vault: int) -> list[Told]:
        """What a vault was told and may still have."""
        return self._by_vault.get(vault, [])

    def drop_gone(self, vault: int) -> None:
        """Forget what is gone of a vault's list; its canaries stay known."""
        self._by_vault[vault] = [told for told in self.of_vault(vault) if told.gone is None]

    # What is seen.

    def find(self, data: bytes) -> set[int]:
        """The numbers of the canaries in a text."""
        return {int(match[5]) for match in _CANARY.finditer(data)}

    def check(self, kind: str, permit: Permit, data: bytes) -> set[int]:
        """Look at everything that somebody was shown; returns the numbers of the canaries in it."""
        numbers = set()
        for match in _CANARY.finditer(data):
            number = int(match[5])
            if number in numbers:
                continue
            numbers.add(number)
            told = self._told.get(number)
            if told is None or told.canary.encode() != match[0]:
                self.leak(f"{kind}: {match[0]!r} was never told")
            elif number not in permit.sent:
                self._judge(kind, permit, told)
        self.seen[kind] += len(numbers)
        if _PROVIDER_KEY.search(data):
            self.leak(f"{kind}: a provider's key was shown")
        if not permit.mints and _MEMORY_KEY.search(data):
            self.leak(f"{kind}: a Memory Key was shown")
        return numbers

    def _judge(self, kind: str, permit: Permit, told: Told) -> None:
        if told.vault == 0:
            if told.account != permit.account:
                self.leak(f"{kind}: account {permit.account} was shown the name {told.canary}")
        elif told.vault != permit.vault:
            self.leak(f"{kind}: vault {permit.vault} was shown {told.canary}")
        elif told.gone is not None and told.gone < permit.began:
            self.leak(f"{kind}: {told.canary} was shown after its deletion")
        elif permit.session is not None and told.session != permit.session:
            self.leak(f"{kind}: session {permit.session} was shown {told.canary}")

    def leak(self, what: str) -> None:
        """Somebody saw or could do what they must not."""
        if len(self.leaks) < LEAKS_MAX:
            self.leaks.append(what)

    def missing(self, vault: int, held: Iterable[int]) -> list[str]:
        """The canaries that a vault must hold and does not."""
        found = set(held)
        return [told.canary for told in self.of_vault(vault) if told.required and told.number not in found]


def wall_ms() -> int:
    """The wall clock, which the server shares."""
    return time.time_ns() // 1_000_000
